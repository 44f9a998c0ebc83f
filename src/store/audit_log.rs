//! The audit trail: a hash chain of entries. Without the server's pepper nobody can change, insert,
//! remove or truncate entries undetected.
//!
//! Entry `n` is in the table `audit` under its number, with its hash: a keyed BLAKE3 of the
//! previous hash, the number and the entry's JSON. So the first entry that was tampered with is the
//! first one whose own hash is wrong.
//!
//! Two records in `meta` tell where the trail ends and where it begins:
//! - The end contains a seal. The seal covers every entry that was ever written and is stored
//!   nowhere else, so a truncated trail cannot be given the end of a shorter trail.
//! - The beginning moves when the trail has reached its maximum number of entries and the oldest
//!   entries are removed. A keyed stamp authenticates it.
//!
//! A batch with an [`AuditAppend`] is written together with its entries or not at all: the engine
//! calls [`writes`] at the point where the order of the batches is fixed.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, Stored, Table, Write, encode, table};
use crate::model::{AuditKey, Digest};

/// The record in `meta` with the end of the trail, a [`ChainState`].
const END: &[u8] = b"audit-end";
/// The record in `meta` with the beginning of the trail, a [`Beginning`]. It is missing while the
/// trail begins with entry 1.
const BEGIN: &[u8] = b"audit-begin";
/// A batch removes at most this many old entries, plus one for each entry that it appends. So after
/// the maximum was lowered, the surplus is removed in small steps.
const MAX_EXTRA_REMOVED: u64 = 64;

/// The entries that a batch appends to the audit trail.
#[derive(Debug, Clone)]
pub struct AuditAppend {
    /// The entries as JSON, in order.
    pub entries: Vec<Vec<u8>>,
    /// The key of the hash chain.
    pub key: AuditKey,
    /// The maximum number of entries in the trail. The oldest entries above it are removed.
    pub keep: u64,
}

/// The state of the hash chain after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainState {
    /// The number of the entry. `0` means the state before the first entry.
    pub number: u64,
    /// The entry's hash.
    pub hash: Digest,
    /// A keyed hash over the hashes of all entries up to this one.
    seal: Digest,
}

/// The state before the trail's first remaining entry.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Beginning {
    #[serde(rename = "mark")]
    state: ChainState,
    /// A keyed hash of `state`.
    stamp: Digest,
}

/// An entry of the trail.
#[derive(Debug, Clone)]
pub struct ChainEntry {
    /// The entry's number.
    pub number: u64,
    /// The entry's hash.
    pub hash: Digest,
    /// The entry as JSON.
    pub json: Vec<u8>,
}

/// The result of a verification of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditVerdict {
    /// All entries are as they were written.
    Intact {
        /// The number of the first remaining entry.
        first: u64,
        /// The end of the trail.
        end: ChainState,
    },
    /// The trail was changed.
    Tampered {
        /// The number of the first entry that was changed, or of the entry after which the trail
        /// was truncated.
        number: u64,
        /// The finding, as a sentence.
        problem: &'static str,
    },
}

impl ChainState {
    /// The state before the first entry.
    fn start(key: &AuditKey) -> Self {
        Self { number: 0, hash: key.digest("start", &[]), seal: key.digest("seal", &[]) }
    }

    /// The hash of the next entry, if this is its JSON.
    fn next_hash(&self, key: &AuditKey, json: &[u8]) -> Digest {
        let number = (self.number + 1).to_le_bytes();
        key.digest("entry", &[self.hash.as_bytes(), &number, json])
    }

    /// The state after the next entry, which has this hash.
    fn advance(&self, key: &AuditKey, hash: Digest) -> Self {
        let number = self.number + 1;
        let parts: &[&[u8]] = &[self.seal.as_bytes(), &number.to_le_bytes(), hash.as_bytes()];
        Self { number, hash, seal: key.digest("seal", parts) }
    }

    fn stamp(&self, key: &AuditKey) -> Digest {
        let number = self.number.to_le_bytes();
        key.digest("beginning", &[&number, self.hash.as_bytes(), self.seal.as_bytes()])
    }
}

/// The writes that append entries to the trail and remove old ones. The engine adds them to the
/// batch.
pub(super) fn writes(
    append: &AuditAppend,
    mut get: impl FnMut(Table, &[u8]) -> Result<Option<Stored>, StoreError>,
) -> Result<Vec<Write>, StoreError> {
    let key = &append.key;
    let mut end = match get(Table::Meta, END)? {
        Some(stored) => stored.read(Table::Meta, END)?,
        None => ChainState::start(key),
    };
    let mut writes = Vec::with_capacity(append.entries.len() + 1);
    for entry in &append.entries {
        end = end.advance(key, end.next_hash(key, entry));
        writes.push(put(Table::Audit, &table::audit(end.number), entry_json(end.hash, entry)));
    }
    writes.push(put(Table::Meta, END, encode(&end)));
    let stored: Option<Beginning> =
        get(Table::Meta, BEGIN)?.map(|stored| stored.read(Table::Meta, BEGIN)).transpose()?;
    let mut begin = stored.map_or_else(|| ChainState::start(key), |stored| stored.state);
    // A forged beginning stays as it is: a new stamp would hide the forgery.
    let is_authentic = stored.is_none_or(|stored| stored.stamp == begin.stamp(key));
    let before = begin.number;
    while is_authentic
        && end.number.saturating_sub(begin.number) > append.keep.max(1)
        && begin.number - before < MAX_EXTRA_REMOVED + append.entries.len() as u64
    {
        let oldest = table::audit(begin.number + 1);
        // A gap stays too: moving the beginning past it would hide it.
        let Some(stored) = get(Table::Audit, &oldest)? else { break };
        begin = begin.advance(key, parse_entry(&oldest, stored)?.hash);
        writes.push(Write { table: Table::Audit, key: oldest.to_vec(), json: None });
    }
    if begin.number > before {
        let beginning = Beginning { state: begin, stamp: begin.stamp(key) };
        writes.push(put(Table::Meta, BEGIN, encode(&beginning)));
    }
    Ok(writes)
}

fn put(table: Table, key: &[u8], json: Vec<u8>) -> Write {
    Write { table, key: key.to_vec(), json: Some(json) }
}

const OPENING: &[u8] = b"{\"hash\":\"";
const MIDDLE: &[u8] = b"\",\"entry\":";
const HASH_LENGTH: usize = 64;

/// The stored form of an entry: JSON in which the entry keeps its exact bytes, because the hash
/// covers them.
fn entry_json(hash: Digest, entry: &[u8]) -> Vec<u8> {
    [OPENING, hash.to_hex().as_bytes(), MIDDLE, entry, b"}"].concat()
}

fn parse_entry(key: &[u8], stored: Stored) -> Result<ChainEntry, StoreError> {
    let parts = || {
        let rest = stored.json.strip_prefix(OPENING)?;
        let (hex, rest) = rest.split_at_checked(HASH_LENGTH)?;
        let json = rest.strip_prefix(MIDDLE)?.strip_suffix(b"}")?;
        // Only one spelling of a hash is accepted, so that every changed byte is detected.
        let hash = Digest::from_hex(hex).filter(|hash| hash.to_hex().as_bytes() == hex)?;
        Some((hash, json.to_vec()))
    };
    let number = table::parse_number(key).unwrap_or_default();
    let damaged = || StoreError::Damaged {
        table: Table::Audit.name(),
        key: number.to_string(),
        problem: "it is not an audit entry".into(),
    };
    let (hash, json) = parts().ok_or_else(damaged)?;
    Ok(ChainEntry { number, hash, json })
}

/// The numbers of the first and the last entry. The first is greater than the last if the trail is
/// empty.
pub fn first_and_last(store: &dyn Store) -> Result<(u64, u64), StoreError> {
    let begin: Option<Beginning> = read(store, BEGIN)?;
    Ok((begin.map_or(1, |begin| begin.state.number + 1), last_number(store)?))
}

/// At most `limit` entries after number `after`, in order.
pub fn entries(store: &dyn Store, after: u64, limit: usize) -> Result<Vec<ChainEntry>, StoreError> {
    let found = store.scan(Table::Audit, &[], Some(&table::audit(after)), limit)?;
    found.into_iter().map(|(key, stored)| parse_entry(&key, stored)).collect()
}

fn read<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    name: &[u8],
) -> Result<Option<T>, StoreError> {
    let Some(stored) = store.get(Table::Meta, name)? else { return Ok(None) };
    stored.read(Table::Meta, name).map(Some)
}

/// The number of the last entry. `0` means that nothing was ever appended.
fn last_number(store: &dyn Store) -> Result<u64, StoreError> {
    Ok(read::<ChainState>(store, END)?.map_or(0, |end| end.number))
}

/// Verifies the whole trail. Appends at the same time do not disturb the verification.
pub fn verify(store: &dyn Store, key: &AuditKey) -> Result<AuditVerdict, StoreError> {
    // The end is read first: entries that are appended from now on are not verified.
    let end: ChainState = read(store, END)?.unwrap_or_else(|| ChainState::start(key));
    let mut state = match beginning(store, key)? {
        Ok(state) => state,
        Err(verdict) => return Ok(verdict),
    };
    let mut first = state.number + 1;
    while state.number < end.number {
        let number = state.number + 1;
        let problem = match readable_entry(store, number) {
            Some(entry) if state.next_hash(key, &entry.json) == entry.hash => {
                state = state.advance(key, entry.hash);
                continue;
            }
            Some(_) => "The entry is not what was written.",
            None => "The entry is missing or cannot be read.",
        };
        // The entry may have been removed in the meantime because the trail is full.
        match beginning(store, key)? {
            Ok(begin) if begin.number >= number => {
                state = begin;
                first = begin.number + 1;
            }
            Ok(_) => return Ok(AuditVerdict::Tampered { number, problem }),
            Err(verdict) => return Ok(verdict),
        }
    }
    if state != end && state.number == end.number {
        let problem = "The record of the trail's end is not what was written: \
                       entries after this one may have been removed.";
        return Ok(AuditVerdict::Tampered { number: end.number, problem });
    }
    if let Some(number) = entry_after_end(store)? {
        let problem =
            "The entry is after the trail's end: the end was set back, or the entry was inserted.";
        return Ok(AuditVerdict::Tampered { number, problem });
    }
    Ok(AuditVerdict::Intact { first, end })
}

/// The state before the first remaining entry, or the verdict that its record was forged.
fn beginning(
    store: &dyn Store,
    key: &AuditKey,
) -> Result<Result<ChainState, AuditVerdict>, StoreError> {
    let Some(begin) = read::<Beginning>(store, BEGIN)? else {
        return Ok(Ok(ChainState::start(key)));
    };
    if begin.stamp == begin.state.stamp(key) {
        return Ok(Ok(begin.state));
    }
    let number = begin.state.number.saturating_add(1);
    let problem = "The record of the trail's beginning is not what was written.";
    Ok(Err(AuditVerdict::Tampered { number, problem }))
}

/// The entry with this number. `None` means that it is missing or cannot be read: the verification
/// reports both by number.
fn readable_entry(store: &dyn Store, number: u64) -> Option<ChainEntry> {
    let key = table::audit(number);
    let stored = store.get(Table::Audit, &key).ok()??;
    parse_entry(&key, stored).ok()
}

/// The number of the first entry after the trail's end.
fn entry_after_end(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    let end = last_number(store)?;
    let found = store.scan(Table::Audit, &[], Some(&table::audit(end)), 1)?;
    let Some((key, _)) = found.into_iter().next() else { return Ok(None) };
    let number = table::parse_number(&key).unwrap_or_default();
    // The trail may have grown between the two reads.
    let end: Option<ChainState> = read(store, END)?;
    let has_grown = end.is_some_and(|end| end.number >= number);
    Ok((!has_grown).then_some(number))
}
