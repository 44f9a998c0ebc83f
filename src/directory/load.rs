//! Loads the Directory from a store when Keyward starts. All cores load users and keys.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::available_parallelism,
};

use parking_lot::Mutex;

use super::{
    CachedKey, Directory, PackedKey, PolicySources, RoleId, Snapshot, StoreError, Table,
    UserByName, UserByUid, UserFields, decode,
};
use crate::{
    directory::sharded_map::InsertBuffer,
    limits::Spent,
    model::KeyId,
    store::{RecordDigest, table},
};

/// The number of ranges of a table for each thread. Some ranges have more records than others. With
/// several ranges for each thread, all threads finish at about the same time.
const RANGES_PER_THREAD: usize = 8;
/// The number of entries of a map that all threads together can buffer. With two threads, each
/// thread buffers 128 entries for each shard.
const BUFFERED_ENTRIES: usize = 1 << 18;

/// Puts a record with this key and JSON into the Directory.
type PutRecord<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// The part of a table that one thread loads at a time.
#[derive(Debug, PartialEq)]
struct KeyRange {
    table: Table,
    /// The position of the range in its table, from 0.
    index: usize,
    from: Vec<u8>,
    to: Option<Vec<u8>>,
}

impl Directory {
    /// Loads the records of a snapshot, and verifies that they are those of its commit.
    pub(super) fn load(&self, snapshot: &dyn Snapshot) -> Result<(), StoreError> {
        let mut digest = snapshot.empty_digest();
        let mut each = |table, put: &mut PutRecord<'_>| {
            snapshot.each(table, &mut |key, record| {
                if let Some(digest) = &mut digest {
                    digest.add(table, key, record.revision, record.json);
                }
                put(key, record.json)
            })
        };
        each(Table::Meta, &mut |key, json| self.put_meta(key, json))?;
        let mut sources = self.sources.lock();
        for table in [Table::Roles, Table::Applications, Table::Resources] {
            each(table, &mut |key, json| sources.put(table, key, Some(json)))?;
        }
        drop(sources);
        let users_and_keys = self.load_users_and_keys(snapshot)?;
        self.policy.store(Arc::new(self.sources.lock().compile()));
        each(Table::Spent, &mut |key, json| self.put_spent(key, json))?;
        if let (Some(mut digest), Some(users_and_keys)) = (digest, users_and_keys) {
            digest.merge(&users_and_keys);
            snapshot.verify_loaded(&digest)?;
        }
        Ok(())
    }

    /// Loads the users and keys, and returns the digest of their records.
    fn load_users_and_keys(
        &self,
        snapshot: &dyn Snapshot,
    ) -> Result<Option<RecordDigest>, StoreError> {
        // There are at least two threads, so that one thread decodes while another thread reads.
        let threads = available_parallelism().map_or(2, usize::from).max(2);
        let range_count = threads * RANGES_PER_THREAD;
        let mut ranges = Vec::new();
        for table in [Table::Users, Table::Keys] {
            let last = snapshot.last_key(table)?;
            ranges.extend(split_table(table, last.as_deref(), range_count as u64));
        }
        let next = AtomicUsize::new(0);
        let estimate = Estimate::default();
        let total = Mutex::new(snapshot.empty_digest());
        let work = || {
            let mut digest = snapshot.empty_digest();
            let mut role_sets = RoleSetCache::new(&self.sources);
            let mut buffers = Buffers::with_capacity(BUFFERED_ENTRIES / threads);
            while let Some(range) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                let count =
                    self.load_range(snapshot, range, &mut role_sets, &mut buffers, &mut digest)?;
                if range.index < 2
                    && let Some(smaller) = estimate.smaller_of_two(range.table, count)
                {
                    self.reserve(range.table, smaller.saturating_mul(range_count));
                }
            }
            if let (Some(total), Some(digest)) = (&mut *total.lock(), &digest) {
                total.merge(digest);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let result = work();
            others.into_iter().try_for_each(|other| {
                other.join().expect("loading users and keys does not panic")
            })?;
            result
        })?;
        self.separate_colliding_names();
        Ok(total.into_inner())
    }

    fn reserve(&self, table: Table, total: usize) {
        if table == Table::Keys {
            return self.keys.reserve(total);
        }
        self.users.reserve(total);
        self.names.reserve(total);
    }

    /// Loads a range and returns the number of its records.
    fn load_range(
        &self,
        snapshot: &dyn Snapshot,
        KeyRange { table, from, to, .. }: &KeyRange,
        role_sets: &mut RoleSetCache<'_>,
        buffers: &mut Buffers,
        digest: &mut Option<RecordDigest>,
    ) -> Result<usize, StoreError> {
        let (mut count, mut last_uid) = (0, 0);
        // Each record is in the store only once, so no insertion replaces an entry.
        snapshot.range(*table, from, to.as_deref(), &mut |key, record| {
            count += 1;
            if let Some(digest) = digest {
                digest.add(*table, key, record.revision, record.json);
            }
            if *table == Table::Keys {
                let (number, key) = self.parse_key(key, record.json)?;
                self.keys.buffer(&mut buffers.keys, PackedKey::new(number, key));
                return Ok(());
            }
            let user: UserFields<'_> = decode(Table::Users, key, record.json)?;
            let roles = role_sets.number(&user.roles);
            let user = self.cached_user(user, roles);
            last_uid = last_uid.max(user.uid);
            self.slow_digests.add_password(&user);
            self.names.buffer(&mut buffers.names, UserByName(user.clone()));
            self.users.buffer(&mut buffers.users, UserByUid(user));
            Ok(())
        })?;
        self.last_uid.fetch_max(last_uid, Ordering::Relaxed);
        buffers.flush(self);
        Ok(count)
    }

    /// Restores the number of credits that a user or key spent before the start. After that,
    /// Keyward counts in memory and does not read the stored number again.
    fn put_spent(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let spent: Spent = decode(Table::Spent, key, json)?;
        let bounds = match table::parse_spent(key) {
            Some((Table::Users, uid)) => self.user(uid).and_then(|user| user.bounds().cloned()),
            Some((Table::Keys, number)) => {
                let key = self.key(KeyId::from_number(number));
                key.as_ref().and_then(CachedKey::bounds).cloned()
            }
            _ => None,
        };
        if let Some(bounds) = bounds {
            bounds.restore(spent);
        }
        Ok(())
    }
}

/// The entries that one thread has read from the store, but not inserted into the maps yet.
struct Buffers {
    names: InsertBuffer<UserByName>,
    users: InsertBuffer<UserByUid>,
    keys: InsertBuffer<Box<PackedKey>>,
}

impl Buffers {
    fn with_capacity(entries: usize) -> Self {
        Self {
            names: InsertBuffer::with_capacity(entries),
            users: InsertBuffer::with_capacity(entries),
            keys: InsertBuffer::with_capacity(entries),
        }
    }

    fn flush(&mut self, directory: &Directory) {
        directory.names.flush(&mut self.names);
        directory.users.flush(&mut self.users);
        directory.keys.flush(&mut self.keys);
    }
}

/// Splits a table into at most `count` ranges, which together contain every key. All ranges up to
/// the key `last` span equally many possible keys.
fn split_table(table: Table, last: Option<&[u8]>, count: u64) -> Vec<KeyRange> {
    let number = |key: &[u8]| key.first_chunk().copied().map_or(u64::MAX, u64::from_be_bytes);
    let width = (last.map_or(0, number) / count).saturating_add(1);
    let starts = (1..count).filter_map(|index| index.checked_mul(width));
    let mut starts: Vec<_> = starts.map(|start| start.to_be_bytes().to_vec()).collect();
    starts.insert(0, Vec::new());
    let ends = starts.iter().skip(1).cloned().map(Some).chain([None]);
    let ranges = starts.iter().cloned().zip(ends).enumerate();
    ranges.map(|(index, (from, to))| KeyRange { table, index, from, to }).collect()
}

/// Estimates the size of a table from the smaller one of its first two ranges. The larger range is
/// no good estimate: if the numbers of the records are not consecutive, it may contain all records.
#[derive(Default)]
struct Estimate(Mutex<HashMap<Table, usize>>);

impl Estimate {
    /// Adds the size of one range. Returns the smaller size when the sizes of both ranges are
    /// known.
    fn smaller_of_two(&self, table: Table, count: usize) -> Option<usize> {
        self.0.lock().insert(table, count).map(|other| other.min(count))
    }
}

/// One thread's cache of the numbers of role combinations. Users have few different combinations,
/// and without the cache every thread would lock the sources for each user.
struct RoleSetCache<'s> {
    sources: &'s Mutex<PolicySources>,
    /// The number of each combination, by its role ids with a line feed after each id.
    known: HashMap<String, u32>,
    /// A reused buffer for a key of `known`.
    lines: String,
}

impl<'s> RoleSetCache<'s> {
    fn new(sources: &'s Mutex<PolicySources>) -> Self {
        Self { sources, known: HashMap::new(), lines: String::new() }
    }

    fn number(&mut self, roles: &[RoleId<'_>]) -> u32 {
        self.lines.clear();
        for role in roles {
            self.lines.push_str(&role.0);
            self.lines.push('\n');
        }
        if let Some(number) = self.known.get(&self.lines) {
            return *number;
        }
        let (number, _) = self.sources.lock().role_set_number(roles);
        self.known.insert(self.lines.clone(), number);
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_no_gaps_and_no_overlaps() {
        let key = |number: u64| Some(number.to_be_bytes().to_vec());
        for last in
            [None, key(0), key(1), key(15), key(16), key(1_000_003), key(u64::MAX), Some(vec![7])]
        {
            for count in [1, 2, 16] {
                let ranges = split_table(Table::Users, last.as_deref(), count);
                assert!(ranges.len() as u64 <= count, "{last:?}");
                assert!(ranges[0].from.is_empty(), "{last:?}");
                assert!(ranges[ranges.len() - 1].to.is_none(), "{last:?}");
                for pair in ranges.windows(2) {
                    assert_eq!(pair[0].to.as_ref(), Some(&pair[1].from), "{last:?}");
                    assert!(pair[0].from < pair[1].from, "{last:?}");
                }
            }
        }
        // The ranges span equally many numbers.
        let ranges = split_table(Table::Keys, key(999).as_deref(), 4);
        let starts: Vec<_> = ranges.into_iter().map(|range| range.from).collect();
        assert_eq!(starts[1..], [250, 500, 750].map(|start: u64| start.to_be_bytes().to_vec()));
    }

    #[test]
    fn estimate_is_the_smaller_of_two_ranges() {
        let estimate = Estimate::default();
        assert_eq!(estimate.smaller_of_two(Table::Users, 1_000_000), None);
        assert_eq!(estimate.smaller_of_two(Table::Keys, 7), None);
        assert_eq!(estimate.smaller_of_two(Table::Users, 0), Some(0));
        assert_eq!(estimate.smaller_of_two(Table::Keys, 9), Some(7));
    }

    #[test]
    fn role_set_numbers_are_equal_in_all_threads() {
        let sources = Mutex::new(PolicySources::new());
        let roles =
            |ids: &[&'static str]| ids.iter().map(|id| RoleId((*id).into())).collect::<Vec<_>>();
        let (mut first, mut second) = (RoleSetCache::new(&sources), RoleSetCache::new(&sources));
        assert_eq!(first.number(&[]), 0);
        let both = first.number(&roles(&["a", "b"]));
        for _ in 0..2 {
            assert_eq!(second.number(&roles(&["b", "a"])), both);
            assert_eq!(second.number(&roles(&["a", "b"])), both);
            assert_ne!(second.number(&roles(&["ab"])), both);
            assert_ne!(second.number(&roles(&["a"])), both);
            assert_eq!(second.number(&[]), 0);
        }
    }
}
