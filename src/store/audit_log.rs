//! The audit trail: entries that nobody without the server's pepper can change, add, take out or cut off without it being found.
//!
//! Entry `n` lies in the table `audit` under its number, with its hash: a keyed BLAKE3 of the hash before it, its number and its text. So the
//! first entry that was tampered with is the first whose own hash is wrong. Where the trail ends and where it begins stand in `meta`, as marks.
//! The end's seal goes through every entry there ever was and is kept nowhere else, so a trail that was cut short cannot be given the end of
//! a shorter one. The beginning moves when the trail has as many entries as it may have; it is stamped.
//!
//! Whoever writes a batch with a [`AuditAppend`] gets both or neither: the engine calls [`writes`] where it knows the order of the batches.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, Stored, Table, Write, decode, encode};
use crate::model::{AuditKey, Digest};

/// The record in `meta` that says where the trail ends.
const END: &[u8] = b"audit-end";
/// The record in `meta` that says where the trail begins, when it does not begin with entry 1.
const BEGIN: &[u8] = b"audit-begin";
/// The most entries more than it brings that one batch takes off the trail's beginning, when it may have fewer than it has.
const MOST_DROPPED: u64 = 64;

/// What a batch leaves in the audit trail.
#[derive(Debug, Clone)]
pub struct AuditAppend {
    /// The entries, each as JSON, in their order.
    pub entries: Vec<Vec<u8>>,
    /// What the chain is keyed with.
    pub key: AuditKey,
    /// The most entries that the trail has.
    pub keep: u64,
}

/// A place in the trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The number of the entry; 0: before the first.
    pub number: u64,
    /// The entry's hash.
    pub hash: Digest,
    /// Through all entries up to here.
    seal: Digest,
}

/// Where the trail begins: behind this mark.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Beginning {
    mark: Mark,
    stamp: Digest,
}

/// An entry as it lies in the trail.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Digest,
    /// Its text, as JSON.
    pub json: Vec<u8>,
}

/// What the trail is found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it was written.
    Intact {
        /// The number of the first entry that is kept.
        first: u64,
        /// The end.
        end: Mark,
    },
    /// Not as it was written.
    Tampered {
        /// The number of the first entry that is not as it was written, or the one after which the trail is cut.
        number: u64,
        /// What is the matter with it, as a sentence.
        problem: &'static str,
    },
}

impl Mark {
    /// Before the first entry.
    fn start(key: &AuditKey) -> Self {
        Self { number: 0, hash: key.digest("start", &[]), seal: key.digest("seal", &[]) }
    }

    /// The mark of the entry behind this one.
    fn next(&self, key: &AuditKey, json: &[u8]) -> Self {
        self.with(key, self.link(key, json))
    }

    fn link(&self, key: &AuditKey, json: &[u8]) -> Digest {
        let number = (self.number + 1).to_le_bytes();
        key.digest("entry", &[self.hash.as_bytes(), &number, json])
    }

    /// The mark behind this one, of an entry with this hash.
    fn with(&self, key: &AuditKey, hash: Digest) -> Self {
        let number = self.number + 1;
        let parts: &[&[u8]] = &[self.seal.as_bytes(), &number.to_le_bytes(), hash.as_bytes()];
        Self { number, hash, seal: key.digest("seal", parts) }
    }

    fn stamp(&self, key: &AuditKey) -> Digest {
        let number = self.number.to_le_bytes();
        key.digest("beginning", &[&number, self.hash.as_bytes(), self.seal.as_bytes()])
    }
}

/// What must be written with a batch for its entry to stand in the trail.
pub(super) fn writes(
    trace: &AuditAppend,
    mut get: impl FnMut(Table, &[u8]) -> Result<Option<Stored>, StoreError>,
) -> Result<Vec<Write>, StoreError> {
    let key = &trace.key;
    let end = match get(Table::Meta, END)? {
        Some(stored) => stored.read(Table::Meta, END)?,
        None => Mark::start(key),
    };
    let mut new = end;
    let mut writes = Vec::with_capacity(trace.entries.len() + 1);
    for entry in &trace.entries {
        new = new.next(key, entry);
        writes.push(put(Table::Audit, &place(new.number), wrap(new.hash, entry)));
    }
    writes.push(put(Table::Meta, END, encode(&new)));
    let held: Option<Beginning> =
        get(Table::Meta, BEGIN)?.map(|stored| stored.read(Table::Meta, BEGIN)).transpose()?;
    let mut begin = held.map_or_else(|| Mark::start(key), |held| held.mark);
    // What was forged is left as it is: a new stamp would hide it.
    let is_ours = held.is_none_or(|held| held.stamp == begin.stamp(key));
    let before = begin.number;
    while is_ours
        && new.number.saturating_sub(begin.number) > trace.keep.max(1)
        && begin.number - before < MOST_DROPPED + trace.entries.len() as u64
    {
        let at = place(begin.number + 1);
        // Neither is a gap jumped over.
        let Some(stored) = get(Table::Audit, &at)? else { break };
        begin = begin.with(key, unwrap(&at, stored)?.hash);
        writes.push(Write { table: Table::Audit, key: at.to_vec(), json: None });
    }
    if begin.number > before {
        let beginning = Beginning { mark: begin, stamp: begin.stamp(key) };
        writes.push(put(Table::Meta, BEGIN, encode(&beginning)));
    }
    Ok(writes)
}

fn put(table: Table, key: &[u8], json: Vec<u8>) -> Write {
    Write { table, key: key.to_vec(), json: Some(json) }
}

fn place(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

const OPENING: &[u8] = b"{\"hash\":\"";
const MIDDLE: &[u8] = b"\",\"entry\":";
const HASH: usize = 64;

/// The value of an entry: JSON whose inner text keeps its bytes, because they are what the hash is of.
fn wrap(hash: Digest, entry: &[u8]) -> Vec<u8> {
    [OPENING, hash.to_hex().as_bytes(), MIDDLE, entry, b"}"].concat()
}

fn unwrap(key: &[u8], stored: Stored) -> Result<Entry, StoreError> {
    let parts = || {
        let rest = stored.json.strip_prefix(OPENING)?;
        let (hash, rest) = rest.split_at_checked(HASH)?;
        let json = rest.strip_prefix(MIDDLE)?.strip_suffix(b"}")?;
        // One way to write a hash, so that no byte can be changed unseen.
        let digest = Digest::from_hex(hash).filter(|one| one.to_hex().as_bytes() == hash)?;
        Some((digest, json.to_vec()))
    };
    let number = u64::from_be_bytes(key.try_into().unwrap_or_default());
    let damaged = || StoreError::Damaged {
        table: Table::Audit.name(),
        key: number.to_string(),
        problem: "it is not an entry's".into(),
    };
    let (hash, json) = parts().ok_or_else(damaged)?;
    Ok(Entry { number, hash, json })
}

/// The numbers of the first and the last entry; the first is larger when there are none.
pub fn extent(store: &dyn Store) -> Result<(u64, u64), StoreError> {
    let end: Option<Mark> = read(store, END)?;
    let begin: Option<Beginning> = read(store, BEGIN)?;
    Ok((begin.map_or(1, |begin| begin.mark.number + 1), end.map_or(0, |end| end.number)))
}

/// At most `limit` entries behind number `after`, in their order.
pub fn entries(store: &dyn Store, after: u64, limit: usize) -> Result<Vec<Entry>, StoreError> {
    let found = store.scan(Table::Audit, &[], Some(&place(after)), limit)?;
    found.into_iter().map(|(key, stored)| unwrap(&key, stored)).collect()
}

fn read<T: serde::de::DeserializeOwned>(
    store: &dyn Store,
    name: &[u8],
) -> Result<Option<T>, StoreError> {
    let Some(stored) = store.get(Table::Meta, name)? else { return Ok(None) };
    decode(Table::Meta, name, &stored.json).map(Some)
}

/// Goes through the whole trail. What is written meanwhile does not disturb it.
pub fn verify(store: &dyn Store, key: &AuditKey) -> Result<Verdict, StoreError> {
    // The end first: what comes behind it while we read is for the next time.
    let end: Mark = read(store, END)?.unwrap_or_else(|| Mark::start(key));
    let mut at = match beginning(store, key)? {
        Ok(mark) => mark,
        Err(verdict) => return Ok(verdict),
    };
    let mut first = at.number + 1;
    while at.number < end.number {
        let number = at.number + 1;
        let problem = match one(store, number) {
            Some(entry) if at.link(key, &entry.json) == entry.hash => {
                at = at.with(key, entry.hash);
                continue;
            }
            Some(_) => "It is not what was written.",
            None => "It is missing, or cannot be read.",
        };
        // It may just have been taken off the beginning.
        match beginning(store, key)? {
            Ok(mark) if mark.number >= number => {
                at = mark;
                first = mark.number + 1;
            }
            Ok(_) => return Ok(Verdict::Tampered { number, problem }),
            Err(verdict) => return Ok(verdict),
        }
    }
    if at != end && at.number == end.number {
        let problem = "The mark of the trail's end is not what was written: entries behind it may have been taken away.";
        return Ok(Verdict::Tampered { number: end.number, problem });
    }
    if let Some(number) = behind_the_end(store)? {
        let problem =
            "It lies behind the trail's end: the end was set back, or the entry was put there.";
        return Ok(Verdict::Tampered { number, problem });
    }
    Ok(Verdict::Intact { first, end })
}

/// The mark behind which the trail begins.
fn beginning(store: &dyn Store, key: &AuditKey) -> Result<Result<Mark, Verdict>, StoreError> {
    let Some(begin) = read::<Beginning>(store, BEGIN)? else { return Ok(Ok(Mark::start(key))) };
    if begin.stamp == begin.mark.stamp(key) {
        return Ok(Ok(begin.mark));
    }
    let problem = "The mark of the trail's beginning is not what was written.";
    Ok(Err(Verdict::Tampered { number: begin.mark.number.saturating_add(1), problem }))
}

/// One entry. What cannot be read is as good as missing: its number is what counts.
fn one(store: &dyn Store, number: u64) -> Option<Entry> {
    let key = place(number);
    let stored = store.get(Table::Audit, &key).ok()??;
    unwrap(&key, stored).ok()
}

fn behind_the_end(store: &dyn Store) -> Result<Option<u64>, StoreError> {
    let end: Option<Mark> = read(store, END)?;
    let end = end.map_or(0, |end| end.number);
    let found = store.scan(Table::Audit, &[], Some(&place(end)), 1)?;
    let Some((key, _)) = found.into_iter().next() else { return Ok(None) };
    // Unless the trail has grown since.
    let now: Option<Mark> = read(store, END)?;
    let number = u64::from_be_bytes(key.as_slice().try_into().unwrap_or_default());
    let has_grown = now.is_some_and(|now| now.number >= number);
    Ok((!has_grown).then_some(number))
}
