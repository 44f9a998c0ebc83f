//! Appending to the trail, and removing its oldest entries.

use super::chain::{ChainEntry, ChainState, Edge, Mark, lost_generation};
use crate::{
    model::{AuditKey, Digest},
    store::{Store, StoreError, Stored, Table, Write, table},
};

/// A batch removes at most this many old entries, plus one for each entry that it appends. So after
/// the maximum was lowered, the surplus is removed in small steps.
const MAX_EXTRA_REMOVED: u64 = 64;
/// The largest number of an entry after which a lost generation begins. A forged row with a greater
/// number must not use up the numbers.
const MAX_LOST_NUMBER: u64 = 1 << 62;

/// The entries that a batch appends to the audit trail.
#[derive(Debug, Clone)]
pub struct AuditAppend {
    /// The entries as JSON, in order.
    pub entries: Vec<Vec<u8>>,
    /// The key of the hash chain.
    pub key: AuditKey,
    /// The maximum number of entries in the trail. The oldest entries above it are removed.
    pub keep: u64,
    /// The generation of the entries.
    pub generation: Generation,
}

/// The generation of appended entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// The generation of the last entry.
    Current,
    /// The first generation of a new store, with this id. If another batch has begun it already,
    /// the entries continue that one.
    First(Digest),
    /// A new generation of an existing trail, with this id.
    Next(Digest),
    /// The store has users, but no authentic end of its trail. The entries begin the lost
    /// generation, or continue it if another batch has begun it.
    Lost {
        /// The entries follow this number: that of the last row in the table.
        after: u64,
    },
}

/// The generation of the next entries: the current one, or another one if the trail has no end.
/// `new_id` makes the id of the first generation.
pub fn generation_for_append(
    store: &dyn Store,
    key: &AuditKey,
    new_id: impl FnOnce() -> Digest,
) -> Result<Generation, StoreError> {
    match read_edge(store, key, Edge::End)? {
        Mark::Authentic(_) => Ok(Generation::Current),
        Mark::Missing if is_unused(store)? => Ok(Generation::First(new_id())),
        Mark::Missing | Mark::Forged => Ok(Generation::Lost { after: last_row(store)? }),
    }
}

pub(super) fn read_edge(store: &dyn Store, key: &AuditKey, edge: Edge) -> Result<Mark, StoreError> {
    edge.read(key, store.get(Table::Meta, edge.key()))
}

/// Whether the store was never filled: no first start, no user, no key and no audit entry. Only
/// then may a trail have no end.
pub(super) fn is_unused(store: &dyn Store) -> Result<bool, StoreError> {
    for record in [table::PEPPER, Edge::Beginning.key()] {
        if store.get(Table::Meta, record)?.is_some() {
            return Ok(false);
        }
    }
    for table in [Table::Users, Table::Keys, Table::Audit] {
        if has_rows(store, table) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a table has rows. A row that cannot be read is a row.
fn has_rows(store: &dyn Store, table: Table) -> bool {
    store.scan(table, &[], None, 1).map_or(true, |rows| !rows.is_empty())
}

/// The number of the last row in the table of entries.
fn last_row(store: &dyn Store) -> Result<u64, StoreError> {
    if !has_rows(store, Table::Audit) {
        return Ok(0);
    }
    let last = store.snapshot()?.last_key(Table::Audit)?.unwrap_or_default();
    let mut number = [0; 8];
    let length = last.len().min(number.len());
    number[..length].copy_from_slice(&last[..length]);
    Ok(u64::from_be_bytes(number).min(MAX_LOST_NUMBER))
}

/// The writes that append entries to the trail and remove old ones. An engine adds them to the
/// batch, after it has checked the batch's expectations. `get` reads the records as the batches
/// before this one have left them.
///
/// # Errors
/// A record cannot be read, or the trail has no authentic end and the batch was made when it had
/// one. Then the batch must not be written.
pub fn writes(
    append: &AuditAppend,
    mut get: impl FnMut(Table, &[u8]) -> Result<Option<Stored>, StoreError>,
) -> Result<Vec<Write>, StoreError> {
    let key = &append.key;
    let end = Edge::End.read(key, get(Table::Meta, Edge::End.key()))?;
    let (mut state, mut begins) = match (end, append.generation) {
        (Mark::Authentic(end), Generation::Next(id)) => (end, Some(id)),
        (Mark::Authentic(end), _) => (end, None),
        (Mark::Missing, Generation::First(id)) => (ChainState::origin(key), Some(id)),
        (_, Generation::Lost { after }) => {
            (ChainState::origin(key).renumbered(after), Some(lost_generation(key)))
        }
        _ => {
            return Err(StoreError::Damaged {
                table: Table::Meta.name(),
                key: Edge::End.key().escape_ascii().to_string(),
                problem: "the record of the audit trail's end is not what was written".into(),
            });
        }
    };
    let mut writes = Vec::with_capacity(append.entries.len() + 1);
    for json in &append.entries {
        let entry = state.next_entry(key, begins.take(), json.clone());
        state = state.advance(key, &entry);
        writes.push(put(Table::Audit, &entry.key(), entry.encode()));
    }
    writes.push(put(Table::Meta, Edge::End.key(), Edge::End.write(key, state)));
    writes.extend(remove_oldest(append, state.number, get)?);
    Ok(writes)
}

/// The writes that remove the oldest entries above the maximum. Everything that was tampered with
/// stays, because the new beginning would hide it: a forged beginning, and a missing, unreadable or
/// forged entry.
fn remove_oldest(
    append: &AuditAppend,
    end: u64,
    mut get: impl FnMut(Table, &[u8]) -> Result<Option<Stored>, StoreError>,
) -> Result<Vec<Write>, StoreError> {
    let key = &append.key;
    let mut writes = Vec::new();
    let mark = Edge::Beginning.read(key, get(Table::Meta, Edge::Beginning.key()))?;
    let mut begin = match mark {
        Mark::Missing => ChainState::origin(key),
        Mark::Authentic(begin) => begin,
        Mark::Forged => return Ok(writes),
    };
    let before = begin.number;
    while end.saturating_sub(begin.number) > append.keep.max(1)
        && begin.number - before < MAX_EXTRA_REMOVED + append.entries.len() as u64
    {
        let number = begin.number + 1;
        let Ok(Some(stored)) = get(Table::Audit, &table::audit(number)) else { break };
        let Some(oldest) = ChainEntry::decode(number, &stored.json) else { break };
        let is_authentic = oldest.hash == oldest.hash_after(key, begin.hash)
            && oldest.generation != Some(lost_generation(key));
        if !is_authentic {
            break;
        }
        begin = begin.advance(key, &oldest);
        writes.push(Write { table: Table::Audit, key: oldest.key().to_vec(), json: None });
    }
    if begin.number > before {
        let json = Edge::Beginning.write(key, begin);
        writes.push(put(Table::Meta, Edge::Beginning.key(), json));
    }
    Ok(writes)
}

fn put(table: Table, key: &[u8], json: Vec<u8>) -> Write {
    Write { table, key: key.to_vec(), json: Some(json) }
}
