//! Searching users, keys and other records: a page of those that match a filter, in a chosen order.
//!
//! A search runs on a thread of its own and only reads the store, so it never delays a decision.

pub(super) mod names;
mod order;
mod subject;
pub(super) mod trail;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::de::DeserializeOwned;

use self::order::Rank;
pub use self::{
    order::{Position, Sort, SortKey},
    trail::AuditFilter,
};
use super::{AccountError, Accounts, Versioned};
use crate::{
    model::fold,
    store::{Stored, Table, table},
};

/// The number of rows that a search in the order of the rows reads at most. The next page continues
/// after these rows.
const ROWS_PER_PAGE: usize = if cfg!(test) { 1000 } else { 50_000 };
/// The number of rows that are read from the store at once.
const ROWS_PER_READ: usize = 500;
/// The number of searches that run at the same time. Further searches wait.
const SEARCHES: usize = 2;

/// Selects records. An error ends the search.
pub type Filter<T> = Box<dyn Fn(&T) -> Result<bool, AccountError> + Send>;

/// A search.
pub struct Search<T> {
    /// The rows that are searched.
    pub rows: Rows,
    /// The filter.
    pub matches: Filter<T>,
    /// The order. `None` means the order of the rows. Any other order reads all rows for each page,
    /// and keeps only the records of the page in memory.
    pub sort: Option<Sort<T>>,
    /// The end of the previous page. `None` means the first page.
    pub after: Option<Position>,
    /// The maximum number of records in the page.
    pub limit: usize,
}

/// The rows that a search reads.
#[derive(Debug, Clone)]
pub enum Rows {
    /// No rows.
    None,
    /// All rows of a table.
    Table(Table),
    /// The users whose names begin with this text, by name.
    Names(String),
    /// The users whose mail addresses begin with this text, by address.
    Mails(String),
    /// One user.
    User(u64),
    /// The keys of one user.
    KeysOf(u64),
}

/// A page of a search.
#[derive(Debug)]
pub struct FoundRecords<T> {
    /// The records.
    pub items: Vec<Versioned<T>>,
    /// The end of this page, if more records may follow. A page can have fewer records than
    /// requested, and none at all, although more records follow.
    pub next: Option<Position>,
}

/// The turns of searches, of which only a few run at the same time.
#[derive(Clone)]
pub(super) struct SearchTurns(Arc<tokio::sync::Semaphore>);

impl Default for SearchTurns {
    fn default() -> Self {
        Self(Arc::new(tokio::sync::Semaphore::new(SEARCHES)))
    }
}

/// Cancels a search when the request that needs it is dropped.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Accounts {
    /// Finds records.
    ///
    /// # Errors
    /// The store failed, or the filter did.
    pub(crate) async fn search<T: DeserializeOwned + Send + 'static>(
        &self,
        search: Search<T>,
    ) -> Result<FoundRecords<T>, AccountError> {
        let accounts = self.clone();
        self.run_search(move |cancelled| match &search.sort {
            None => accounts.in_rows(&search, cancelled),
            Some(sort) => accounts.sorted(&search, sort, cancelled),
        })
        .await
    }

    /// Runs a search on a thread of its own, when it is its turn.
    async fn run_search<R: Send + 'static>(
        &self,
        run: impl FnOnce(&AtomicBool) -> Result<R, AccountError> + Send + 'static,
    ) -> Result<R, AccountError> {
        let turn = self.0.search_turns.0.clone().acquire_owned().await;
        let turn = turn.map_err(|_| aborted())?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let guard = CancelOnDrop(cancelled.clone());
        let running = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            run(&cancelled)
        });
        let found = running.await.map_err(|_| aborted())?;
        drop(guard);
        found
    }

    /// A page in the order of the rows, of at most [`ROWS_PER_PAGE`] rows.
    fn in_rows<T: DeserializeOwned>(
        &self,
        search: &Search<T>,
        cancelled: &AtomicBool,
    ) -> Result<FoundRecords<T>, AccountError> {
        let mut items: Vec<Versioned<T>> = Vec::new();
        let mut last_found = None;
        let mut reader = RowReader::new(self, &search.rows, search.after.as_ref());
        while let Some((row, stored)) = reader.next(cancelled)? {
            let Some(record) = self.record_of::<T>(&search.rows, &row, &stored)? else { continue };
            if (search.matches)(&record.record)? {
                if items.len() == search.limit {
                    return Ok(FoundRecords { items, next: last_found.map(Position::Row) });
                }
                items.push(record);
                last_found = Some(row.clone());
            }
            if reader.count == ROWS_PER_PAGE {
                return Ok(FoundRecords { items, next: Some(Position::Row(row)) });
            }
        }
        Ok(FoundRecords { items, next: None })
    }

    /// A page in another order. Reads all rows.
    fn sorted<T: DeserializeOwned>(
        &self,
        search: &Search<T>,
        sort: &Sort<T>,
        cancelled: &AtomicBool,
    ) -> Result<FoundRecords<T>, AccountError> {
        let after = match &search.after {
            Some(Position::Sorted(key, row)) => Some(Rank::new(key.clone(), row.clone(), sort)),
            _ => None,
        };
        // The records of the page and one more, which shows whether more records follow.
        let mut first: BTreeMap<Rank, Versioned<T>> = BTreeMap::new();
        let mut reader = RowReader::new(self, &search.rows, None);
        while let Some((row, stored)) = reader.next(cancelled)? {
            let Some(record) = self.record_of::<T>(&search.rows, &row, &stored)? else { continue };
            if !(search.matches)(&record.record)? {
                continue;
            }
            let rank = Rank::new((sort.key)(&record.record)?, row, sort);
            let is_full = first.len() > search.limit;
            let is_too_late =
                is_full && first.last_key_value().is_some_and(|(last, _)| rank > *last);
            if after.as_ref().is_some_and(|after| rank <= *after) || is_too_late {
                continue;
            }
            first.insert(rank, record);
            if first.len() > search.limit + 1 {
                first.pop_last();
            }
        }
        let has_more = first.len() > search.limit;
        if has_more {
            first.pop_last();
        }
        let next = first.last_key_value().filter(|_| has_more).map(|(rank, _)| rank.position());
        Ok(FoundRecords { items: first.into_values().collect(), next })
    }

    /// The record of a row. `None` means that the record was deleted after the row was read.
    fn record_of<T: DeserializeOwned>(
        &self,
        rows: &Rows,
        row: &[u8],
        stored: &Stored,
    ) -> Result<Option<Versioned<T>>, AccountError> {
        match rows {
            Rows::Names(_) => self.read(Table::Users, &uid_in(Table::Names, row, stored)?),
            Rows::Mails(_) => self.read(Table::Users, &uid_in(Table::Mails, row, stored)?),
            Rows::KeysOf(_) => match table::parse_owner(row) {
                Some((_, id)) => self.read(Table::Keys, &table::key(id)),
                None => Ok(None),
            },
            rows => {
                let (table, _) = rows.place();
                let record = stored.read(table, row)?;
                Ok(Some(Versioned { revision: stored.revision, record }))
            }
        }
    }
}

/// The key of the user that a row of an index names.
fn uid_in(index: Table, row: &[u8], stored: &Stored) -> Result<[u8; 8], AccountError> {
    Ok(table::user(stored.read::<u64>(index, row)?))
}

impl Rows {
    /// The table of the rows, and the prefix of their keys.
    fn place(&self) -> (Table, Vec<u8>) {
        match self {
            Self::None => (Table::Meta, b"no such row".to_vec()),
            Self::Table(table) => (*table, Vec::new()),
            Self::Names(prefix) => (Table::Names, index_prefix(prefix)),
            Self::Mails(prefix) => (Table::Mails, index_prefix(prefix)),
            Self::User(uid) => (Table::Users, table::user(*uid).to_vec()),
            Self::KeysOf(uid) => (Table::Owners, table::user(*uid).to_vec()),
        }
    }
}

/// The prefix of the keys of an index whose texts begin with `text`. The prefix ends before a Greek
/// sigma, because its lower case depends on the letter that follows it.
fn index_prefix(text: &str) -> Vec<u8> {
    let folded = fold(text);
    let stable = folded.split(['σ', 'ς']).next().unwrap_or_default();
    stable.as_bytes().to_vec()
}

/// Reads the rows of a search in parts.
struct RowReader<'a> {
    accounts: &'a Accounts,
    table: Table,
    prefix: Vec<u8>,
    after: Option<Vec<u8>>,
    part: std::vec::IntoIter<(Vec<u8>, Stored)>,
    is_last_part: bool,
    /// The number of rows that were read.
    count: usize,
}

impl<'a> RowReader<'a> {
    fn new(accounts: &'a Accounts, rows: &Rows, after: Option<&Position>) -> Self {
        let (table, prefix) = rows.place();
        let after = match after {
            Some(Position::Row(row)) => Some(row.clone()),
            _ => None,
        };
        let is_last_part = matches!(rows, Rows::None);
        let part = Vec::new().into_iter();
        Self { accounts, table, prefix, after, part, is_last_part, count: 0 }
    }

    fn next(&mut self, cancelled: &AtomicBool) -> Result<Option<(Vec<u8>, Stored)>, AccountError> {
        if self.part.len() == 0 && !self.is_last_part {
            if cancelled.load(Ordering::Relaxed) {
                return Err(aborted());
            }
            let store = self.accounts.store();
            let part =
                store.scan(self.table, &self.prefix, self.after.as_deref(), ROWS_PER_READ)?;
            self.is_last_part = part.len() < ROWS_PER_READ;
            self.after = part.last().map(|(row, _)| row.clone()).or(self.after.take());
            self.part = part.into_iter();
        }
        let next = self.part.next();
        self.count += usize::from(next.is_some());
        Ok(next)
    }
}

fn aborted() -> AccountError {
    AccountError::refused("The search was aborted.", "Try again in a moment.")
}
