//! The committed state of sled's buckets.
//!
//! sled shows a write to its readers before the write is durable, and still shows it after a sync
//! has failed. So the writer thread keeps the values from before its write as [`HiddenWrite`] until
//! the write is durable, and readers get those values. After a failed write they stay hidden until
//! the program ends.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use sled::IVec;

use super::failed;
use crate::store::StoreError;

/// The values of sled's keys from before a write that is not durable. `None` means that the key did
/// not exist.
pub(super) type HiddenWrite = BTreeMap<Vec<u8>, Option<IVec>>;

type Entry = (IVec, IVec);

/// Reads sled's keys and values without the write that is not durable.
#[derive(Clone)]
pub(super) struct CommittedView<'d> {
    db: &'d sled::Db,
    hidden: Option<Arc<HiddenWrite>>,
}

impl<'d> CommittedView<'d> {
    pub fn new(db: &'d sled::Db, hidden: Option<Arc<HiddenWrite>>) -> Self {
        Self { db, hidden }
    }

    /// The entry with the greatest key from `first` to `end`.
    pub fn last_entry(&self, first: &[u8], end: Bound<&[u8]>) -> Result<Option<Entry>, StoreError> {
        let bounds = (Bound::Included(first), end);
        let mut entries = self.db.range::<&[u8], _>(bounds);
        let Some(hidden) = &self.hidden else {
            return entries.next_back().transpose().map_err(failed);
        };
        let unchanged = loop {
            match entries.next_back().transpose().map_err(failed)? {
                Some((key, _)) if hidden.contains_key(key.as_ref()) => {}
                found => break found,
            }
        };
        let changed = hidden.range::<[u8], _>(bounds).rev().find_map(as_entry);
        Ok(unchanged.into_iter().chain(changed).max())
    }

    /// The entry with the smallest key greater than `key`.
    pub fn entry_after(&self, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        self.entries((Bound::Excluded(key), Bound::Unbounded)).next().transpose()
    }

    /// The entries whose keys are `from` or greater, in the order of their keys.
    pub fn entries_from<'s>(
        &'s self,
        from: &'s [u8],
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + 's {
        self.entries((Bound::Included(from), Bound::Unbounded))
    }

    fn entries<'s>(
        &'s self,
        bounds: (Bound<&'s [u8]>, Bound<&'s [u8]>),
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + 's {
        let hidden = self.hidden.as_deref();
        let is_shown =
            move |key: &IVec| hidden.is_none_or(|write| !write.contains_key(key.as_ref()));
        let unchanged = self.db.range::<&[u8], _>(bounds).map(|entry| entry.map_err(failed));
        let unchanged = unchanged
            .filter(move |entry| entry.as_ref().map_or(true, |(key, _)| is_shown(key)))
            .peekable();
        let changed = hidden.map(|write| write.range::<[u8], _>(bounds).filter_map(as_entry));
        Merged { unchanged, changed: changed.into_iter().flatten().peekable() }
    }

    /// Reads a key again, so that sled's cache records the read.
    pub fn touch(&self, key: &[u8]) -> Result<(), StoreError> {
        self.db.contains_key(key).map(drop).map_err(failed)
    }
}

fn as_entry((key, value): (&Vec<u8>, &Option<IVec>)) -> Option<Entry> {
    value.as_ref().map(|value| (IVec::from(key.as_slice()), value.clone()))
}

/// Merges two sequences of entries, each in the order of its keys. An error comes first.
struct Merged<U: Iterator, C: Iterator> {
    unchanged: std::iter::Peekable<U>,
    changed: std::iter::Peekable<C>,
}

impl<U, C> Iterator for Merged<U, C>
where
    U: Iterator<Item = Result<Entry, StoreError>>,
    C: Iterator<Item = Entry>,
{
    type Item = Result<Entry, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_changed_next = match (self.unchanged.peek(), self.changed.peek()) {
            (Some(Ok((unchanged, _))), Some((changed, _))) => changed < unchanged,
            (Some(_), _) => false,
            (None, _) => true,
        };
        if is_changed_next { self.changed.next().map(Ok) } else { self.unchanged.next() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All entries, read from the first to the last and by each of the other methods.
    fn entries(view: &CommittedView<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all: Vec<_> = view
            .entries_from(&[])
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap())
            .collect();
        for (index, (key, _)) in all.iter().enumerate() {
            let found = |entry: Option<Entry>| entry.map(|(key, _)| key.to_vec());
            let at = |index: usize| all.get(index).map(|(key, _)| key.clone());
            assert_eq!(found(view.entry_after(key).unwrap()), at(index + 1));
            assert_eq!(found(view.last_entry(&[], Bound::Included(key)).unwrap()), at(index));
            assert_eq!(found(view.last_entry(&[], Bound::Unbounded).unwrap()), at(all.len() - 1));
            let before = index.checked_sub(1).and_then(at);
            assert_eq!(found(view.last_entry(&[], Bound::Excluded(key)).unwrap()), before);
        }
        all
    }

    #[test]
    fn hidden_write_is_not_seen() {
        let db = sled::Config::new().temporary(true).open().unwrap();
        for key in [b"b", b"d", b"f", b"h"] {
            db.insert(key, b"committed").unwrap();
        }
        let committed = entries(&CommittedView::new(&db, None));
        assert_eq!(committed.len(), 4);
        // The write adds keys at the beginning, in the middle and at the end, and changes and
        // removes others.
        let mut hidden = HiddenWrite::new();
        for key in [b"a", b"b", b"c", b"d", b"h", b"i"] {
            hidden.insert(key.to_vec(), db.get(key).unwrap());
        }
        for key in [b"a", b"b", b"c", b"i"] {
            db.insert(key, b"not durable").unwrap();
        }
        for key in [b"d", b"h"] {
            db.remove(key).unwrap();
        }
        assert_ne!(entries(&CommittedView::new(&db, None)), committed);
        assert_eq!(entries(&CommittedView::new(&db, Some(Arc::new(hidden)))), committed);
    }
}
