//! The audit trail: a hash chain of entries. Without the server's pepper nobody can change, insert,
//! remove or truncate entries undetected.
//!
//! Entry `n` is in the table `audit` under its number, with its hash: a keyed BLAKE3 of the
//! previous hash, the number and the entry's JSON. So the first entry that was tampered with is the
//! first one whose own hash is wrong.
//!
//! Two records in `meta`, the marks, tell where the trail ends and where it begins. Both are
//! authenticated with the key of the trail:
//! - The end exists as soon as the store has records: a store that has records and no end was
//!   tampered with. It contains a seal over every entry that was ever written, and the number of
//!   the beginning that belongs to it.
//! - The beginning moves when the trail has reached its maximum number of entries and the oldest
//!   entries are removed.
//!
//! A *generation* is the part of a history that one store wrote. The first entry of a store begins
//! its first generation; a restore begins the next one, which depends on the last entry before it.
//! So entries that two stores wrote after the same backup cannot be exchanged. If a store has
//! records but no authentic end, the next entry begins the *lost* generation: the trail grows, and
//! every later verification reports it.
//!
//! A batch with an [`AuditAppend`] is written together with its entries or not at all: the engine
//! calls [`writes`] at the point where the order of the batches is fixed.

mod append;
mod chain;
mod read;
mod verify;

pub use append::{AuditAppend, Generation, generation_for_append, writes};
pub use chain::{ChainEntry, ChainState};
pub use read::{ChainPage, TrailError, TrailProblem, newest_first, oldest_first};
pub use verify::{AuditVerdict, Verification, verify};
