//! Durable storage of records: the trait [`Store`] and its engines.
//!
//! Writers, listings and the start of the program use a store. Authorization decisions do not: they
//! read from memory, from the `Directory`, which subscribes to the store.

pub mod archive;
pub mod audit_log;
mod cancel;
mod codec;
#[cfg(test)]
mod contract;
pub mod convert;
mod digest;
mod disk;
mod engine;
#[cfg(all(any(test, feature = "fuzzing"), feature = "server"))]
pub(crate) mod fuzz;
mod marker;
mod memory;
mod open;
mod redb;
mod sled;
mod subscribers;
pub mod table;

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
};

pub use cancel::{Cancel, CancelOnDrop};
pub use codec::{Stored, decode, encode};
pub use digest::RecordDigest;
pub use engine::{EngineKind, store_exists};
pub use memory::MemoryStore;
pub use open::open;
pub use redb::RedbStore;
pub use sled::SledStore;
pub use table::Table;

/// The number of a commit. The first commit has number 1, each further one the next number.
pub type Sequence = u64;

/// A change of one record.
#[derive(Debug, Clone)]
pub struct Write {
    /// The record's table.
    pub table: Table,
    /// The record's key.
    pub key: Vec<u8>,
    /// The new record as JSON. `None` means that the record is deleted.
    pub json: Option<Vec<u8>>,
}

/// A condition of a commit.
#[derive(Debug, Clone)]
pub struct Expect {
    /// The record's table.
    pub table: Table,
    /// The record's key; for [`Expected::Newest`], a prefix of keys.
    pub key: Vec<u8>,
    /// The state that the record must have.
    pub state: Expected,
}

/// The state that a record must have for a commit to succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The record does not exist.
    Missing,
    /// The record exists.
    Present,
    /// The record exists and was last written by this commit.
    Revision(Sequence),
    /// Of all records whose keys begin with the given key, the most recently written one was
    /// written by this commit. `0` means that no such record exists. A writer that has listed the
    /// records uses it to detect records that were added or changed since.
    Newest(Sequence),
}

impl Expected {
    /// Whether the expectation is met. `revision` is the record's revision or, for
    /// [`Expected::Newest`], the highest revision of all records with the prefix. `None` means that
    /// there is no such record.
    pub fn is_met_by(self, revision: Option<Sequence>) -> bool {
        match self {
            Self::Missing => revision.is_none(),
            Self::Present => revision.is_some(),
            Self::Revision(expected) => revision == Some(expected),
            Self::Newest(expected) => revision.unwrap_or(0) == expected,
        }
    }
}

/// Writes that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The conditions, on the state before the batch.
    pub expects: Vec<Expect>,
    /// The writes, in order: the last write to a record counts.
    pub writes: Vec<Write>,
    /// Entries for the audit trail, which are written with the batch: [`audit_log::writes`] turns
    /// them into writes. `None` means no entries.
    pub audit: Option<audit_log::AuditAppend>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    pub fn expect(&mut self, table: Table, key: impl Into<Vec<u8>>, state: Expected) -> &mut Self {
        self.expects.push(Expect { table, key: key.into(), state });
        self
    }

    /// Adds the creation or replacement of a record.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, json: Vec<u8>) -> &mut Self {
        self.writes.push(Write { table, key: key.into(), json: Some(json) });
        self
    }

    /// Adds the deletion of a record. Deleting a record that does not exist is no error.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.writes.push(Write { table, key: key.into(), json: None });
        self
    }
}

/// A committed batch, as subscribers receive it.
#[derive(Debug, Clone)]
pub struct Commit {
    /// The commit's number, which is the new revision of each record that it wrote.
    pub sequence: Sequence,
    /// All writes, those of the audit trail included.
    pub writes: Vec<Write>,
}

/// A receiver of commits.
pub trait Subscriber: Send + Sync {
    /// Receives one commit. Called in the order of the sequence, and once for each commit.
    fn apply(&self, commit: &Commit);
}

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store {path} is in use by another process")]
    Locked {
        /// The store's folder.
        path: String,
    },
    /// The folder contains other files, or an incomplete or damaged store.
    #[error("the store {path} cannot be opened: {problem}")]
    Unusable {
        /// The store's folder.
        path: String,
        /// The reason.
        problem: String,
    },
    /// A record's bytes are not what was written.
    #[error("the record {key} in {table} is damaged: {problem}")]
    Damaged {
        /// The record's table.
        table: &'static str,
        /// The record's key, as far as it can be printed.
        key: String,
        /// The reason.
        problem: String,
    },
    /// A later version wrote the record.
    #[error(
        "the record {key} in {table} was written by a newer Keyward (format {version}). Open the store with that version, or a newer version"
    )]
    Newer {
        /// The record's table.
        table: &'static str,
        /// The record's key, as far as it can be printed.
        key: String,
        /// The version of the record's format.
        version: u8,
    },
    /// A record is larger than the engine can store safely.
    #[error("the record {key} in {table} has {size} bytes; the limit is {limit} bytes")]
    TooLarge {
        /// The record's table.
        table: &'static str,
        /// The record's key, as far as it can be printed.
        key: String,
        /// The record's size in bytes, as stored.
        size: usize,
        /// The largest allowed size in bytes.
        limit: usize,
    },
    /// The work was ended early. Nothing was written.
    #[error("the work was cancelled")]
    Cancelled,
    /// A write failed. The store accepts no writes until the next start.
    #[error("the store stopped writing: {0}")]
    Failed(String),
}

/// Why a commit failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// This expectation of the batch was not met. Nothing was written.
    #[error("a record in {} is not in the expected state", .0.table.name())]
    Conflict(Expect),
    /// The store could not write. After [`StoreError::Failed`] it is unknown whether the batch is
    /// on the disk. After any other error, nothing was written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store no longer remembers all commits after the requested sequence. The caller must take a
/// new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

/// The return type of [`Store::commit`].
pub type CommitFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Sequence, CommitError>> + Send + 'a>>;

/// A borrowed record.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The sequence of the commit that last wrote the record.
    pub revision: Sequence,
    /// The record as JSON.
    pub json: &'a [u8],
}

/// A callback for each record of a table: its key and its value. An error ends the iteration.
pub type Visit<'a> = dyn FnMut(&[u8], RecordRef<'_>) -> Result<(), StoreError> + 'a;

/// An unchanging view of the store after one commit. An engine may delay commits while a snapshot
/// exists.
pub trait Snapshot: Sync {
    /// The last commit that the snapshot contains.
    fn sequence(&self) -> Sequence;

    /// Calls `each` with every record of a table, in the order of the keys.
    fn each(&self, table: Table, each: &mut Visit<'_>) -> Result<(), StoreError> {
        self.range(table, &[], None, each)
    }

    /// Calls `each` with the records whose keys are `from` or greater and, if `to` is given, less
    /// than `to`, in the order of the keys. Several threads can read parts of a table at the same
    /// time.
    fn range(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// The greatest key of a table. `None` means that the table is empty.
    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError>;

    /// An empty digest with the store's key, to which a reader adds the records that it loads.
    /// `None` means that the engine keeps no digest.
    fn empty_digest(&self) -> Option<RecordDigest> {
        None
    }

    /// Compares the records that were loaded from this snapshot with the digest that was stored
    /// with the commit.
    ///
    /// # Errors
    /// Records are lost, or older versions of records came back. Nothing may be decided with them.
    fn verify_loaded(&self, _loaded: &RecordDigest) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A storage engine.
///
/// The contract, which one test suite checks for every engine (`keyward::testing` has it for the
/// engines of programs):
/// - A batch is written completely or not at all, and only if each of its expectations is met at
///   the time of the write ([`Expected::is_met_by`]).
/// - Batches are written one after another. The sequence grows by one with each batch.
/// - A batch with entries for the audit trail ([`Batch::audit`]) also has the writes that
///   [`audit_log::writes`] returns. The engine calls it after it has checked the expectations, with
///   the records as the batches before have left them, and no other batch comes in between. These
///   writes belong to the batch: they are written with it, and subscribers receive them. An engine
///   that leaves them out loses the audit trail, which the next verification reports.
/// - Records are bytes. The engine keeps each byte as it is, and never formats JSON anew: the audit
///   trail is a chain of digests of these bytes.
/// - All tables of [`Table::ALL`] are kept. [`Table::Meta`] holds the marks of the trail's
///   beginning and end, the fingerprint of the pepper, and the newest time.
/// - [`commit`](Store::commit) completes successfully only after the batch is durable (it survives
///   a power cut, if the engine keeps records on a disk) *and* every subscriber has received it.
///   Nobody sees a batch before it is durable: neither a reader nor a subscriber.
/// - Each record carries the sequence of the commit that last wrote it.
/// - After a write that failed half-way, the engine refuses further writes, and
///   [`fault`](Store::fault) says why.
/// - An engine may keep a [`RecordDigest`] with each commit, so that lost or older records are
///   found when they are loaded ([`Snapshot::verify_loaded`]) and by [`verify`](Store::verify).
///   Without a digest, only the audit trail is protected.
pub trait Store: Send + Sync + 'static {
    /// Reads one record. `None` means that it does not exist.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError>;

    /// Reads at most `limit` records of a table whose keys begin with `prefix` and are greater than
    /// `after`, in the order of the keys.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError>;

    /// Takes a snapshot of all tables.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// Writes a batch and returns its sequence. Dropping the future does not cancel the write: the
    /// engine may already have queued the batch.
    fn commit(&self, batch: Batch) -> CommitFuture<'_>;

    /// Registers a subscriber. It receives the past commits after `after` before this method
    /// returns, and each later commit before [`commit`](Store::commit) returns to that commit's
    /// writer.
    ///
    /// # Errors
    /// [`Lagged`] if the store no longer remembers all commits after `after`, or if `after` is
    /// greater than the last sequence. The subscriber is then not registered.
    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged>;

    /// Reads all records beside the commits, and compares them with the digest of the last commit.
    /// Blocks the thread, for up to a minute with a million users, and ends early when `cancelled`
    /// becomes true. If records are lost, or older versions of records came back, the store stops
    /// writing.
    ///
    /// # Errors
    /// The records are not those of the last commit, or cannot be read.
    fn verify(&self, _cancelled: &AtomicBool) -> Result<(), StoreError> {
        Ok(())
    }

    /// Why the store has stopped writing. `None` means that it accepts writes.
    fn fault(&self) -> Option<String>;

    /// The folder of the store. `None` means that the records are in memory only.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Whether the records outlive the process.
    fn keeps_records(&self) -> bool {
        true
    }
}
