//! The order of a search, and positions in it.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::accounts::AccountError;

/// A value by which records are sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SortKey {
    /// A number or a time.
    Number(i64),
    /// A text.
    Text(String),
}

/// Returns the value by which a record is sorted.
pub type SortKeyOf<T> = Box<dyn Fn(&T) -> Result<SortKey, AccountError> + Send>;

/// An order of records. Records with equal values are in the order of their rows.
pub struct Sort<T> {
    /// The value by which a record is sorted.
    pub key: SortKeyOf<T>,
    /// Whether the greatest value comes first.
    pub descending: bool,
}

/// The end of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The last row that was read.
    Row(Vec<u8>),
    /// The sort value and the row of the last record.
    Sorted(SortKey, Vec<u8>),
}

/// The place of a record in an order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rank {
    key: SortKey,
    row: Vec<u8>,
    descending: bool,
}

impl Rank {
    pub fn new<T>(key: SortKey, row: Vec<u8>, sort: &Sort<T>) -> Self {
        Self { key, row, descending: sort.descending }
    }

    pub fn position(&self) -> Position {
        Position::Sorted(self.key.clone(), self.row.clone())
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.key.cmp(&other.key).then_with(|| self.row.cmp(&other.row));
        if self.descending { order.reverse() } else { order }
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
