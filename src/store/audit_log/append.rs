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
    /// The store has records, but no authentic end of its trail. The entries begin the lost
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
    let end = read_edge(store, key, Edge::End)?;
    match end.belonging_to(read_edge(store, key, Edge::Beginning)?) {
        Mark::Authentic { .. } => Ok(Generation::Current),
        Mark::Missing if is_unused(store)? => Ok(Generation::First(new_id())),
        Mark::Missing | Mark::Forged => Ok(Generation::Lost { after: last_row(store)? }),
    }
}

pub(super) fn read_edge(store: &dyn Store, key: &AuditKey, edge: Edge) -> Result<Mark, StoreError> {
    edge.read(key, store.get(Table::Meta, edge.key()))
}

/// Whether the store has no records: only then may a trail have no end.
pub(super) fn is_unused(store: &dyn Store) -> Result<bool, StoreError> {
    for record in [table::PEPPER, Edge::Beginning.key()] {
        if store.get(Table::Meta, record)?.is_some() {
            return Ok(false);
        }
    }
    // Other records in `meta` may be those of the engine.
    let mut tables = Table::ALL.into_iter().filter(|table| *table != Table::Meta);
    Ok(!tables.any(|table| has_rows(store, table)))
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
    let beginning = Edge::Beginning.read(key, get(Table::Meta, Edge::Beginning.key()))?;
    let end = Edge::End.read(key, get(Table::Meta, Edge::End.key()))?.belonging_to(beginning);
    let (mut state, mut begins) = match (end, append.generation) {
        (Mark::Authentic { state, .. }, Generation::Next(id)) => (state, Some(id)),
        (Mark::Authentic { state, .. }, _) => (state, None),
        (Mark::Missing, Generation::First(id)) => (ChainState::origin(key), Some(id)),
        (_, Generation::Lost { after }) => {
            let after = match beginning {
                Mark::Authentic { state, .. } => after.max(state.number),
                Mark::Missing | Mark::Forged => after,
            };
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
    let begin = match (beginning, end) {
        (Mark::Missing, _) => {
            remove_oldest(append, ChainState::origin(key), state, get, &mut writes)
        }
        (Mark::Authentic { state: begin, .. }, _) => {
            remove_oldest(append, begin, state, get, &mut writes)
        }
        // A forged beginning stays as it is: another one would hide it.
        (Mark::Forged, Mark::Authentic { begin, .. }) => begin,
        (Mark::Forged, _) => 0,
    };
    writes.push(put(Table::Meta, Edge::End.key(), Edge::End.write(key, state, begin)));
    Ok(writes)
}

/// Adds the writes that remove the oldest entries above the maximum. Returns the number of the new
/// beginning. A missing, unreadable or forged entry stays, because the new beginning would hide it.
fn remove_oldest(
    append: &AuditAppend,
    mut begin: ChainState,
    end: ChainState,
    mut get: impl FnMut(Table, &[u8]) -> Result<Option<Stored>, StoreError>,
    writes: &mut Vec<Write>,
) -> u64 {
    let key = &append.key;
    let before = begin.number;
    while end.number.saturating_sub(begin.number) > append.keep.max(1)
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
        let json = Edge::Beginning.write(key, begin, begin.number);
        writes.push(put(Table::Meta, Edge::Beginning.key(), json));
    }
    begin.number
}

fn put(table: Table, key: &[u8], json: Vec<u8>) -> Write {
    Write { table, key: key.to_vec(), json: Some(json) }
}
