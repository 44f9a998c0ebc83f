//! A sharded hash map for users and keys, tuned for memory.
//!
//! Each shard is a hash table behind its own lock. A reader holds the lock for one look-up, and a
//! writer for one change. If the shard has to grow, the writer moves the entries of this shard:
//! about a thousandth of all entries. Earlier versions used lock-free maps, which keep a box for
//! each entry and stay half empty. With those maps, the three maps of users and keys took 120 more
//! bytes for each user, and filling them took half of the start-up time.

use std::{hash::BuildHasher, sync::LazyLock};

use hashbrown::{HashTable, hash_table::Entry};
use parking_lot::RwLock;

/// The number of shards. With ten million entries, a shard that grows moves ten thousand pointers.
/// This takes half a millisecond, during which one reader in a thousand waits. An empty shard takes
/// 64 bytes.
const SHARDS: usize = 1024;
/// The share of the expected entries for which [`ShardedMap::reserve`] reserves memory. A table
/// never shrinks. If memory was reserved for all expected entries, and slightly fewer entries came,
/// some tables would stay twice as large as necessary.
const RESERVED_SHARE: f64 = 0.9;

/// An entry of a [`ShardedMap`], which contains its own key.
pub(in crate::directory) trait Keyed {
    /// The type of the key.
    type Key<'a>: Copy
    where
        Self: 'a;

    /// The key of this entry.
    fn key(&self) -> Self::Key<'_>;

    /// Whether this entry has this key.
    fn has_key(&self, key: Self::Key<'_>) -> bool;

    /// The hash of a key.
    fn hash_key(key: Self::Key<'_>, state: &impl BuildHasher) -> u64;
}

/// A hash map of entries that contain their keys.
pub(in crate::directory) struct ShardedMap<T, S> {
    shards: Box<[Shard<T>]>,
    state: S,
}

/// A shard in a cache line of its own, so that readers of neighbouring shards do not slow each
/// other down.
#[repr(align(64))]
struct Shard<T>(RwLock<HashTable<T>>);

impl<T: Keyed, S: BuildHasher + Default> ShardedMap<T, S> {
    pub fn new() -> Self {
        let shard = || Shard(RwLock::new(HashTable::new()));
        Self { shards: std::iter::repeat_with(shard).take(SHARDS).collect(), state: S::default() }
    }

    /// Looks up the entry with this key, and returns the result of `extract` for this entry.
    pub fn get<R>(&self, key: T::Key<'_>, extract: impl FnOnce(&T) -> R) -> Option<R> {
        let hash = T::hash_key(key, &self.state);
        self.shard(hash).read().find(hash, |entry| entry.has_key(key)).map(extract)
    }

    /// Inserts an entry. Returns the entry with the same key that was replaced.
    pub fn insert(&self, entry: T) -> Option<T> {
        let hash = self.hash(&entry);
        let mut table = self.shard(hash).write();
        match table.entry(hash, |other| other.has_key(entry.key()), |other| self.hash(other)) {
            Entry::Occupied(mut occupied) => Some(std::mem::replace(occupied.get_mut(), entry)),
            Entry::Vacant(vacant) => {
                vacant.insert(entry);
                None
            }
        }
    }

    /// Adds an entry to a buffer, and flushes the buffer if it is full.
    pub fn buffer(&self, buffer: &mut InsertBuffer<T>, entry: T) {
        buffer.0.push((self.hash(&entry), entry));
        if buffer.0.len() >= buffer.0.capacity() {
            self.flush(buffer);
        }
    }

    /// Inserts the entries of a buffer, shard by shard. Several insertions in a row then use the
    /// memory of one shard, which is in the processor's cache after the first insertion. In random
    /// order, every insertion would wait for memory that is in no cache.
    pub fn flush(&self, buffer: &mut InsertBuffer<T>) {
        buffer.0.sort_unstable_by_key(|(hash, _)| shard_bits(*hash));
        let mut entries = buffer.0.drain(..).peekable();
        while let Some((hash, entry)) = entries.next() {
            let index = shard_index(hash);
            let mut table = self.shards[index].0.write();
            let mut next = Some((hash, entry));
            while let Some((hash, entry)) = next {
                let has_same_key = |other: &T| other.has_key(entry.key());
                match table.entry(hash, has_same_key, |other| self.hash(other)) {
                    Entry::Occupied(mut occupied) => *occupied.get_mut() = entry,
                    Entry::Vacant(vacant) => drop(vacant.insert(entry)),
                }
                next = entries.next_if(|(hash, _)| shard_index(*hash) == index);
            }
        }
    }

    /// Removes the entry with this key, if the condition is true for this entry.
    pub fn remove_if(&self, key: T::Key<'_>, condition: impl Fn(&T) -> bool) -> Option<T> {
        let hash = T::hash_key(key, &self.state);
        let mut table = self.shard(hash).write();
        let found = table.find_entry(hash, |entry| entry.has_key(key) && condition(entry)).ok()?;
        Some(found.remove().0)
    }

    /// Removes the entry with this key.
    pub fn remove(&self, key: T::Key<'_>) -> Option<T> {
        self.remove_if(key, |_| true)
    }

    /// Reserves memory for an expected total, so that entries need not be moved while the map
    /// grows.
    pub fn reserve(&self, total: usize) {
        let share_before = |index: usize| (index as f64 / SHARDS as f64).exp2() - 1.0;
        for (index, shard) in self.shards.iter().enumerate() {
            let share = share_before(index + 1) - share_before(index);
            let expected = total as f64 * RESERVED_SHARE * share;
            let mut table = shard.0.write();
            #[allow(clippy::cast_possible_truncation, reason = "the value is at most `total`")]
            let additional = (expected as usize).saturating_sub(table.len());
            table.reserve(additional, |entry| self.hash(entry));
        }
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.read().len()).sum()
    }

    /// Calls `visit` with every entry. If an entry is inserted or removed during the call, `visit`
    /// may or may not get this entry.
    pub fn each(&self, mut visit: impl FnMut(&T)) {
        for shard in &self.shards {
            shard.0.read().iter().for_each(&mut visit);
        }
    }

    /// Whether the condition is true for any entry. Stops at the first such entry.
    pub fn any(&self, mut condition: impl FnMut(&T) -> bool) -> bool {
        self.shards.iter().any(|shard| shard.0.read().iter().any(&mut condition))
    }

    fn hash(&self, entry: &T) -> u64 {
        T::hash_key(entry.key(), &self.state)
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<T>> {
        &self.shards[shard_index(hash)].0
    }
}

/// Entries that are not inserted into a [`ShardedMap`] yet, each with its hash.
pub(in crate::directory) struct InsertBuffer<T>(Vec<(u64, T)>);

impl<T> InsertBuffer<T> {
    /// A buffer for at least this many entries.
    pub fn with_capacity(entries: usize) -> Self {
        Self(Vec::with_capacity(entries))
    }
}

/// The index of the shard for a hash. Each shard gets a few more entries than the shard before it,
/// and the last shard gets twice as many entries as the first. The reason is that a table doubles
/// its memory when it is full. Shards of equal size would all double their memory at the same time,
/// and the memory for each user would double at that moment.
fn shard_index(hash: u64) -> usize {
    let bits = shard_bits(hash);
    SHARD_ENDS.partition_point(|end| *end <= bits).min(SHARDS - 1)
}

/// The bits of a hash that choose the shard. Inside a shard, hashbrown uses other bits of the hash:
/// the low bits for the position of an entry, and the seven highest bits for the entry's tag.
fn shard_bits(hash: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "the value is less than 2^SHARD_BITS")]
    let bits = (hash >> 36 & ((1 << SHARD_BITS) - 1)) as u32;
    bits
}

/// The number of bits of a hash that choose the shard.
const SHARD_BITS: u32 = 20;

/// For each shard, the exclusive upper bound of its [`shard_bits`] values. The bounds are computed
/// only once, because a floating-point function need not return the same result each
/// time, and an entry must be found in the shard into which it was inserted.
static SHARD_ENDS: LazyLock<[u32; SHARDS]> = LazyLock::new(|| {
    #[allow(clippy::cast_possible_truncation, reason = "the value is at most 2^SHARD_BITS")]
    std::array::from_fn(|index| {
        let end = ((index + 1) as f64 / SHARDS as f64).exp2() - 1.0;
        (end * f64::from(1 << SHARD_BITS)).round() as u32
    })
});

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        hash::RandomState,
        sync::atomic::{AtomicBool, Ordering},
    };

    use proptest::prelude::*;

    use super::*;

    /// An entry with a key, and a value that distinguishes it from other entries with the same key.
    #[derive(Debug, Clone, PartialEq)]
    struct TestEntry(u64, u32);

    impl Keyed for TestEntry {
        type Key<'a> = u64;

        fn key(&self) -> u64 {
            self.0
        }

        fn has_key(&self, key: u64) -> bool {
            self.0 == key
        }

        fn hash_key(key: u64, state: &impl BuildHasher) -> u64 {
            state.hash_one(key)
        }
    }

    /// Gives every key the same hash.
    #[derive(Default)]
    struct Colliding;

    impl BuildHasher for Colliding {
        type Hasher = ConstantHasher;

        fn build_hasher(&self) -> ConstantHasher {
            ConstantHasher
        }
    }

    struct ConstantHasher;

    impl std::hash::Hasher for ConstantHasher {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            0
        }
    }

    fn behaves_like_a_map<S: BuildHasher + Default>(steps: &[(bool, u64, u32)]) {
        let (sharded, mut map) = (ShardedMap::<TestEntry, S>::new(), BTreeMap::new());
        for &(is_insertion, key, value) in steps {
            let entry = TestEntry(key, value);
            if is_insertion {
                let replaced = map.insert(key, entry.clone());
                assert_eq!(sharded.insert(entry), replaced);
            } else {
                assert_eq!(sharded.remove_if(key, |entry| entry.1 == u32::MAX), None);
                assert_eq!(sharded.remove(key), map.remove(&key));
            }
            assert_eq!(sharded.get(key, TestEntry::clone), map.get(&key).cloned());
            assert_eq!(sharded.len(), map.len());
        }
        let mut seen = BTreeMap::new();
        sharded.each(|entry| {
            seen.insert(entry.0, entry.clone());
        });
        assert_eq!(seen, map);
        for key in 0..20 {
            assert_eq!(sharded.get(key, TestEntry::clone), map.get(&key).cloned());
            assert_eq!(sharded.any(|entry| entry.0 == key), map.contains_key(&key));
        }
    }

    /// Checks that all buffered entries are found after the flush. One of them replaces an entry
    /// that was inserted without the buffer.
    fn flushed_entries_are_found<S: BuildHasher + Default>(capacity: usize, count: u64) {
        let map = ShardedMap::<TestEntry, S>::new();
        let mut buffer = InsertBuffer::with_capacity(capacity);
        map.insert(TestEntry(3, 9));
        for key in 0..count {
            map.buffer(&mut buffer, TestEntry(key, 1));
        }
        assert!(buffer.0.len() <= buffer.0.capacity());
        map.flush(&mut buffer);
        assert!(buffer.0.is_empty());
        assert_eq!(map.len() as u64, count);
        assert!((0..count).all(|key| map.get(key, TestEntry::clone) == Some(TestEntry(key, 1))));
    }

    #[test]
    fn buffered_entries_are_found_after_the_flush() {
        for (capacity, count) in [(1, 10), (7, 6), (7, 7), (7, 8), (64, 3000), (0, 5)] {
            flushed_entries_are_found::<RandomState>(capacity, count);
            flushed_entries_are_found::<Colliding>(capacity, count);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn sharded_map_behaves_like_a_map(
            steps in prop::collection::vec((prop::bool::weighted(0.7), 0_u64..20, 0_u32..9), 1..60),
        ) {
            behaves_like_a_map::<RandomState>(&steps);
            behaves_like_a_map::<Colliding>(&steps);
        }
    }

    #[test]
    fn last_shard_is_twice_as_large_as_the_first() {
        let map = ShardedMap::<TestEntry, foldhash::quality::RandomState>::new();
        let total = SHARDS * 200;
        for key in 0..total as u64 {
            map.insert(TestEntry(key, 0));
        }
        assert_eq!(map.len(), total);
        let sizes: Vec<_> = map.shards.iter().map(|shard| shard.0.read().len()).collect();
        let group_size =
            |group: usize| sizes[group * 64..(group + 1) * 64].iter().sum::<usize>() as f64;
        for group in 0..SHARDS / 64 {
            let growth = (group as f64 * 64.0 / SHARDS as f64).exp2();
            let ratio = group_size(group) / (group_size(0) * growth);
            // The tolerance is six times the standard deviation.
            assert!((ratio - 1.0).abs() < 0.08, "{group}: {ratio}");
        }
        assert!(sizes.iter().all(|size| (60..400).contains(size)), "{sizes:?}");
    }

    #[test]
    fn reserved_map_takes_as_much_memory_as_a_grown_one() {
        let capacity = |map: &ShardedMap<TestEntry, RandomState>| {
            map.shards.iter().map(|shard| shard.0.read().capacity()).sum::<usize>()
        };
        let (reserved, grown) = (
            ShardedMap::<TestEntry, RandomState>::new(),
            ShardedMap::<TestEntry, RandomState>::new(),
        );
        let total = 200_000;
        for key in 0..total / 16 {
            reserved.insert(TestEntry(key, 1));
        }
        reserved.reserve(total as usize);
        assert!(capacity(&reserved) > total as usize);
        for key in 0..total {
            reserved.insert(TestEntry(key, 1));
            grown.insert(TestEntry(key, 1));
        }
        let ratio = capacity(&reserved) as f64 / capacity(&grown) as f64;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        assert_eq!(reserved.len() as u64, total);
        // The reservation moved the entries that were inserted before it, and they are still found.
        assert!((0..total).all(|key| reserved.get(key, |_| ()).is_some()));
    }

    #[test]
    fn entry_is_found_while_others_are_inserted_and_removed() {
        let map = ShardedMap::<TestEntry, Colliding>::new();
        let is_over = AtomicBool::new(false);
        map.insert(TestEntry(0, 7));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(map.get(0, TestEntry::clone), Some(TestEntry(0, 7)));
                    assert!(map.get(99_999, TestEntry::clone).is_none());
                }
            });
            for key in 1..400 {
                map.insert(TestEntry(key, 0));
            }
            for key in 1..400 {
                assert!(map.remove(key).is_some());
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(map.len(), 1);
    }
}
