//! Reading the trail in pages. Every entry is checked against the one before it, so a page never
//! leaves out an entry silently.

use super::{
    append::{is_unused, read_edge},
    chain::{ChainEntry, ChainState, Edge, Mark, lost_generation},
};
use crate::{
    model::{AuditKey, Digest},
    store::{Store, StoreError, Stored, Table, table},
};

/// A place where the trail is not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("The audit trail is broken at entry {number}. {problem}")]
pub struct TrailProblem {
    /// The number of the first entry that was changed, or of the entry after which the trail was
    /// truncated.
    pub number: u64,
    /// The finding, as a sentence.
    pub problem: &'static str,
}

/// Why the trail could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TrailError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The trail is not what was written.
    #[error(transparent)]
    Broken(#[from] TrailProblem),
}

/// A page of entries.
#[derive(Debug, Clone)]
pub struct ChainPage {
    /// The entries, in the order of the page.
    pub entries: Vec<ChainEntry>,
    /// Whether more entries follow in this order.
    pub has_more: bool,
}

pub(super) const FORGED: &str = "The entry is not what was written.";
pub(super) const MISSING: &str = "The entry is missing.";
pub(super) const UNREADABLE: &str = "The entry cannot be read.";
pub(super) const NOT_LISTED: &str =
    "The entry is missing in a listing of the store, although a look-up finds it.";
pub(super) const NOT_FOUND: &str =
    "The entry is missing in a look-up, although a listing of the store has it.";
pub(super) const FOREIGN_ROW: &str =
    "There is a row before this entry that is not an entry of the trail.";
pub(super) const ROW_BEFORE: &str = "There is a row before the trail's beginning.";
pub(super) const ROW_AFTER: &str =
    "There is a row after the trail's end: the end was set back, or the row was inserted.";
pub(super) const NO_END: &str = "The store has records, but no record of the trail's end: the trail \
                                 was removed, completely or in part.";
pub(super) const FORGED_END: &str = "The record of the trail's end is not what was written: \
                                     entries after this one may have been removed.";
pub(super) const FORGED_BEGINNING: &str =
    "The record of the trail's beginning is not what was written.";
pub(super) const END_SET_BACK: &str =
    "The trail's end does not belong to its beginning: one of them is an old one.";
pub(super) const LOST: &str = "When this entry was written, the store had records, but no authentic \
                               record of the trail's end: the entries before it were removed or \
                               replaced.";

/// How often a read is repeated because the trail grows or loses its oldest entries meanwhile.
const ATTEMPTS: u32 = 5;

/// Whether entries are also compared with what a look-up finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LookUps {
    /// Listings only.
    Skip,
    /// Each listed entry is looked up, too.
    Compare,
}

/// The states before the first and after the last entry. They are equal if the store is new.
pub(super) fn bounds(
    store: &dyn Store,
    key: &AuditKey,
) -> Result<(ChainState, ChainState), TrailError> {
    let mut attempts = 0;
    loop {
        let end = read_edge(store, key, Edge::End)?;
        let begin = beginning(store, key);
        let problem = match end {
            Mark::Authentic { state: end, begin: number } => {
                let begin = begin?;
                // Each entry moves the beginning of a full trail. The last entry always stays.
                if begin.number == number && begin.number < end.number {
                    return Ok((begin, end));
                }
                let number = begin.number.min(end.number) + 1;
                TrailProblem { number, problem: END_SET_BACK }
            }
            Mark::Missing if is_unused(store)? => {
                let origin = ChainState::origin(key);
                return Ok((origin, origin));
            }
            Mark::Missing => TrailProblem { number: first_number(&begin), problem: NO_END },
            Mark::Forged => TrailProblem { number: first_number(&begin), problem: FORGED_END },
        };
        // The trail may have grown between the reads. Only attempts without growth count.
        attempts += u32::from(read_edge(store, key, Edge::End)? == end);
        if attempts == ATTEMPTS {
            return Err(problem.into());
        }
    }
}

fn first_number(begin: &Result<ChainState, TrailError>) -> u64 {
    begin.as_ref().map_or(1, |begin| begin.number + 1)
}

fn beginning(store: &dyn Store, key: &AuditKey) -> Result<ChainState, TrailError> {
    match read_edge(store, key, Edge::Beginning)? {
        Mark::Missing => Ok(ChainState::origin(key)),
        Mark::Authentic { state, .. } => Ok(state),
        Mark::Forged => Err(TrailProblem { number: 1, problem: FORGED_BEGINNING }.into()),
    }
}

/// Finds a row before the first entry. Rows are removed together with the move of the beginning, so
/// there is never one.
pub(super) fn check_first_row(store: &dyn Store, begin: &ChainState) -> Result<(), TrailError> {
    let Ok(rows) = store.scan(Table::Audit, &[], None, 1) else { return Ok(()) };
    let Some((row, _)) = rows.first() else { return Ok(()) };
    match table::parse_number(row) {
        Some(number) if number > begin.number => Ok(()),
        Some(number) => Err(TrailProblem { number, problem: ROW_BEFORE }.into()),
        // A row that sorts after the first entry is found where it is.
        None if row.as_slice() > &table::audit(begin.number + 1)[..] => Ok(()),
        None => Err(TrailProblem { number: begin.number + 1, problem: FOREIGN_ROW }.into()),
    }
}

/// Whether the trail has grown since it had this end.
///
/// # Errors
/// There is a row after the end, but the trail has not grown.
pub(super) fn has_grown(
    store: &dyn Store,
    key: &AuditKey,
    end: &ChainState,
) -> Result<bool, TrailError> {
    let after = table::audit(end.number);
    let found = store.scan(Table::Audit, &[], Some(&after), 1);
    let row = match found {
        Ok(rows) => match rows.into_iter().next() {
            Some((row, _)) => table::parse_number(&row),
            None => return Ok(false),
        },
        Err(StoreError::Damaged { .. }) => None,
        Err(problem) => return Err(problem.into()),
    };
    // The trail may have grown between the two reads.
    let (_, now) = bounds(store, key)?;
    if now.number > end.number {
        return Ok(true);
    }
    let number = row.unwrap_or(end.number + 1);
    Err(TrailProblem { number, problem: ROW_AFTER }.into())
}

/// Entries that follow the entry with the number `after`, the oldest first. The page ends before
/// the first entry that is not what was written.
///
/// # Errors
/// The first entry of the page, the beginning or the end of the trail is not what was written; or
/// there is a row after the end, and `after` is the end.
pub fn oldest_first(
    store: &dyn Store,
    key: &AuditKey,
    after: Option<u64>,
    limit: usize,
) -> Result<ChainPage, TrailError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (begin, end) = bounds(store, key)?;
        let from = after.unwrap_or(0).max(begin.number);
        if from == begin.number {
            check_first_row(store, &begin)?;
        }
        if from >= end.number {
            if from == end.number && has_grown(store, key, &end)? {
                continue;
            }
            return Ok(ChainPage { entries: Vec::new(), has_more: false });
        }
        let until = from.saturating_add(limit as u64).min(end.number);
        let span = Span { begin: &begin, end: &end, after: from, until };
        let mut found = span.read(store, key, previous_hash(store, from), LookUps::Skip)?;
        let bad = found.iter().position(Result::is_err);
        match bad {
            Some(0) if attempts < ATTEMPTS && has_moved(store, key, from)? => continue,
            Some(0) => return Err(found.remove(0).expect_err("its position was found").into()),
            _ => {}
        }
        found.truncate(bad.unwrap_or(found.len()));
        let entries: Vec<_> = found.into_iter().flatten().collect();
        let last = entries.last().map_or(from, |entry| entry.number);
        // At the end, one more page finds rows after the end.
        let has_more = last < end.number || !matches!(has_grown(store, key, &end), Ok(false));
        return Ok(ChainPage { entries, has_more });
    }
}

/// Entries before the entry with the number `before`, the newest first. The page ends before the
/// first entry that is not what was written, and after the first entry of the lost generation.
///
/// # Errors
/// The first entry of the page, the beginning or the end of the trail is not what was written; or
/// `before` is the first entry of the lost generation.
pub fn newest_first(
    store: &dyn Store,
    key: &AuditKey,
    before: Option<u64>,
    limit: usize,
) -> Result<ChainPage, TrailError> {
    let (begin, end) = bounds(store, key)?;
    if let Some(number) = before
        && lost_entry(store, key, number).is_some()
    {
        return Err(TrailProblem { number, problem: LOST }.into());
    }
    let until = before.map_or(end.number, |before| before.saturating_sub(1).min(end.number));
    if until <= begin.number {
        check_first_row(store, &begin)?;
        return Ok(ChainPage { entries: Vec::new(), has_more: false });
    }
    let from = until.saturating_sub(limit as u64).max(begin.number);
    let span = Span { begin: &begin, end: &end, after: from, until };
    let mut found = span.read(store, key, previous_hash(store, from), LookUps::Skip)?;
    found.reverse();
    let bad = found.iter().position(Result::is_err);
    let lost = bad.and_then(|at| lost_entry(store, key, until - at as u64));
    if bad == Some(0) && lost.is_none() {
        if has_moved(store, key, until - 1)? {
            return Ok(ChainPage { entries: Vec::new(), has_more: false });
        }
        return Err(found.remove(0).expect_err("its position was found").into());
    }
    found.truncate(bad.unwrap_or(found.len()));
    let has_lost = lost.is_some();
    let entries: Vec<_> = found.into_iter().flatten().chain(lost).collect();
    let first = entries.last().map_or(until, |entry| entry.number - 1);
    let has_more = first > begin.number || has_lost || check_first_row(store, &begin).is_err();
    Ok(ChainPage { entries, has_more })
}

/// Whether the beginning has moved past this number since it was read.
pub(super) fn has_moved(
    store: &dyn Store,
    key: &AuditKey,
    number: u64,
) -> Result<bool, TrailError> {
    Ok(beginning(store, key)?.number > number)
}

/// The hash of the entry with this number, as it is stored. `None` means that it cannot be read.
fn previous_hash(store: &dyn Store, number: u64) -> Option<Digest> {
    look_up(store, number).ok().map(|entry| entry.hash)
}

/// The entry with this number, if the lost generation begins with it.
fn lost_entry(store: &dyn Store, key: &AuditKey, number: u64) -> Option<ChainEntry> {
    let entry = look_up(store, number).ok()?;
    (entry.generation == Some(lost_generation(key))).then_some(entry)
}

/// Looks an entry up by its number.
fn look_up(store: &dyn Store, number: u64) -> Result<ChainEntry, &'static str> {
    match store.get(Table::Audit, &table::audit(number)) {
        Ok(Some(stored)) => ChainEntry::decode(number, &stored.json).ok_or(UNREADABLE),
        Ok(None) => Err(MISSING),
        Err(_) => Err(UNREADABLE),
    }
}

/// The entries after one number, up to and including another one.
pub(super) struct Span<'a> {
    pub begin: &'a ChainState,
    pub end: &'a ChainState,
    pub after: u64,
    pub until: u64,
}

impl Span<'_> {
    /// The entries in order: one result for each number. `previous` is the hash of the entry before
    /// them; `None` means that it is unknown, and the first entry is not compared with it.
    ///
    /// # Errors
    /// The store failed. Damaged rows are results.
    pub fn read(
        &self,
        store: &dyn Store,
        key: &AuditKey,
        previous: Option<Digest>,
        look_ups: LookUps,
    ) -> Result<Vec<Result<ChainEntry, TrailProblem>>, StoreError> {
        let is_first = self.after == self.begin.number;
        let mut previous = if is_first { Some(self.begin.hash) } else { previous };
        let lost = lost_generation(key);
        let listed = self.list(store)?;
        Ok(listed
            .into_iter()
            .zip(self.after + 1..=self.until)
            .map(|(listed, number)| {
                let checked = listed.and_then(|entry| {
                    let is_next =
                        previous.is_none_or(|hash| entry.hash_after(key, hash) == entry.hash);
                    let is_end = number != self.end.number || entry.hash == self.end.hash;
                    match entry.generation {
                        Some(id) if id == lost => Err(LOST),
                        _ if !is_next => Err(FORGED),
                        _ if !is_end => Err(FORGED_END),
                        _ if look_ups == LookUps::Compare => compare(store, entry),
                        _ => Ok(entry),
                    }
                });
                previous = checked.as_ref().ok().map(|entry| entry.hash);
                checked.map_err(|problem| TrailProblem { number, problem })
            })
            .collect())
    }

    /// Lists the rows: one result for each number.
    fn list(&self, store: &dyn Store) -> Result<Vec<Result<ChainEntry, &'static str>>, StoreError> {
        let mut numbers = self.after + 1..=self.until;
        let count = usize::try_from(self.until - self.after).unwrap_or(usize::MAX);
        let mut found = Vec::with_capacity(count);
        let after = table::audit(self.after);
        let rows = match store.scan(Table::Audit, &[], Some(&after), count) {
            Ok(rows) => rows,
            // A damaged row hides the other rows of the listing: look each entry up.
            Err(StoreError::Damaged { .. }) => {
                return Ok(numbers.map(|number| look_up(store, number)).collect());
            }
            Err(problem) => return Err(problem),
        };
        for (row, stored) in rows {
            let Some(number) = table::parse_number(&row) else {
                // All later numbers are missing in the listing, because this row took a place.
                found.extend(numbers.next().map(|_| Err(FOREIGN_ROW)));
                break;
            };
            for next in numbers.by_ref() {
                if next == number {
                    found.push(decode(number, &stored));
                    break;
                }
                found.push(Err(not_listed(store, next)));
            }
        }
        found.extend(numbers.map(|number| Err(not_listed(store, number))));
        Ok(found)
    }
}

fn decode(number: u64, stored: &Stored) -> Result<ChainEntry, &'static str> {
    ChainEntry::decode(number, &stored.json).ok_or(UNREADABLE)
}

/// The problem of an entry that a listing does not contain.
fn not_listed(store: &dyn Store, number: u64) -> &'static str {
    look_up(store, number).err().unwrap_or(NOT_LISTED)
}

fn compare(store: &dyn Store, entry: ChainEntry) -> Result<ChainEntry, &'static str> {
    match look_up(store, entry.number) {
        Ok(found) if found == entry => Ok(entry),
        Ok(_) => Err(FORGED),
        Err(MISSING) => Err(NOT_FOUND),
        Err(problem) => Err(problem),
    }
}
