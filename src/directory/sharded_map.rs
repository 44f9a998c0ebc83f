//! Where the many lie: users and keys, in as little memory as there may be.
//!
//! A shelf is a hash table in parts, each behind a lock of its own. A reader holds a part's lock for one look-up; a writer for one change, and a
//! thousandth of the whole is moved where a part grows. A table that is read without locks keeps a box for each entry and stays half empty: the
//! three that were here took 120 bytes more a user, and half of the time of a start.

use std::{
    hash::BuildHasher,
    sync::{LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hashbrown::{HashTable, hash_table::Entry};

/// With ten million entries a part that grows moves ten thousand pointers: half a millisecond, in which one reader of a thousand waits. Each part
/// takes 64 bytes while it is empty.
const PARTS: usize = 1024;
/// How much of what is expected is made room for. Where fewer come, a table that is twice as large as it must be would stay so.
const CAUTION: f64 = 0.9;

/// What lies on a shelf, and what it is found by.
pub(in crate::directory) trait Keyed {
    /// What it is found by.
    type By<'a>: Copy
    where
        Self: 'a;

    /// What this one is found by.
    fn by(&self) -> Self::By<'_>;

    /// Whether this is the one.
    fn is(&self, by: Self::By<'_>) -> bool;

    /// The hash of what it is found by.
    fn hash(by: Self::By<'_>, state: &impl BuildHasher) -> u64;
}

/// Entries, each found by one thing.
pub(in crate::directory) struct ShardedMap<T, S> {
    parts: Box<[Part<T>]>,
    state: S,
}

/// On a cache line of its own, so that readers of neighbours do not slow each other.
#[repr(align(64))]
struct Part<T>(RwLock<HashTable<T>>);

impl<T> Part<T> {
    /// What panics while it holds the lock is a reader, and leaves the table whole.
    fn read(&self) -> RwLockReadGuard<'_, HashTable<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<T>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Keyed, S: BuildHasher + Default> ShardedMap<T, S> {
    pub fn new() -> Self {
        let part = || Part(RwLock::new(HashTable::new()));
        Self { parts: std::iter::repeat_with(part).take(PARTS).collect(), state: S::default() }
    }

    /// What `take` takes from the entry that is found by this.
    pub fn get<R>(&self, by: T::By<'_>, take: impl FnOnce(&T) -> R) -> Option<R> {
        let hash = T::hash(by, &self.state);
        self.part(hash).read().find(hash, |entry| entry.is(by)).map(take)
    }

    /// Puts an entry in the place of the one that is found by the same.
    pub fn put(&self, entry: T) -> Option<T> {
        let hash = T::hash(entry.by(), &self.state);
        let mut table = self.part(hash).write();
        let of = |held: &T| T::hash(held.by(), &self.state);
        match table.entry(hash, |held| held.is(entry.by()), of) {
            Entry::Occupied(mut held) => Some(std::mem::replace(held.get_mut(), entry)),
            Entry::Vacant(place) => {
                place.insert(entry);
                None
            }
        }
    }

    /// Lays an entry on a tray, and puts what lies there when it is full.
    pub fn lay(&self, tray: &mut InsertBuffer<T>, entry: T) {
        tray.0.push((T::hash(entry.by(), &self.state), entry));
        if tray.0.len() >= tray.0.capacity() {
            self.put_all(tray);
        }
    }

    /// Puts what lies on a tray: part by part, because a part's places are near each other, and each is met several times. One by one in any order, every
    /// entry waits for memory that no cache holds.
    pub fn put_all(&self, tray: &mut InsertBuffer<T>) {
        tray.0.sort_unstable_by_key(|(hash, _)| fraction(*hash));
        let of = |held: &T| T::hash(held.by(), &self.state);
        let mut entries = tray.0.drain(..).peekable();
        while let Some((hash, entry)) = entries.next() {
            let at = place(hash);
            let mut table = self.parts[at].write();
            let mut next = Some((hash, entry));
            while let Some((hash, entry)) = next {
                match table.entry(hash, |held| held.is(entry.by()), of) {
                    Entry::Occupied(mut held) => *held.get_mut() = entry,
                    Entry::Vacant(place) => drop(place.insert(entry)),
                }
                next = entries.next_if(|(hash, _)| place(*hash) == at);
            }
        }
    }

    /// Takes the entry away that is found by this, if it is the one that is meant.
    pub fn take_if(&self, by: T::By<'_>, is_meant: impl Fn(&T) -> bool) -> Option<T> {
        let hash = T::hash(by, &self.state);
        let mut table = self.part(hash).write();
        let held = table.find_entry(hash, |entry| entry.is(by) && is_meant(entry)).ok()?;
        Some(held.remove().0)
    }

    /// Takes the entry away that is found by this.
    pub fn take(&self, by: T::By<'_>) -> Option<T> {
        self.take_if(by, |_| true)
    }

    /// Makes room for so many, so that what comes need not be moved on the way.
    pub fn expect(&self, total: usize) {
        let upto = |at: usize| (at as f64 / PARTS as f64).exp2() - 1.0;
        for (at, part) in self.parts.iter().enumerate() {
            let share = total as f64 * CAUTION * (upto(at + 1) - upto(at));
            let mut table = part.write();
            #[allow(clippy::cast_possible_truncation, reason = "it is bounded by the total")]
            let more = (share as usize).saturating_sub(table.len());
            table.reserve(more, |held| T::hash(held.by(), &self.state));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.read().len()).sum()
    }

    /// Looks at every entry. What comes and goes meanwhile may be seen or not.
    pub fn each(&self, mut look: impl FnMut(&T)) {
        for part in &self.parts {
            part.read().iter().for_each(&mut look);
        }
    }

    /// Whether there is such an entry. Looks at every one until it is found.
    pub fn any(&self, mut is_it: impl FnMut(&T) -> bool) -> bool {
        self.parts.iter().any(|part| part.read().iter().any(&mut is_it))
    }

    fn part(&self, hash: u64) -> &Part<T> {
        &self.parts[place(hash)]
    }
}

/// Entries on their way to a shelf.
pub(in crate::directory) struct InsertBuffer<T>(Vec<(u64, T)>);

impl<T> InsertBuffer<T> {
    /// One that is full with so many, or a few more.
    pub fn with_room(entries: usize) -> Self {
        Self(Vec::with_capacity(entries))
    }
}

/// The part that an entry lies in. The last one is twice as large as the first, and those between grow evenly. A table doubles when it is full: parts of
/// one size would all do so at the same time, and a user would cost twice as much just after as just before.
fn place(hash: u64) -> usize {
    let fraction = fraction(hash);
    ENDS.partition_point(|end| *end <= fraction).min(PARTS - 1)
}

/// The bits of a hash that choose the part: the tables take the place of an entry from the low ones, and its mark from the seven highest.
fn fraction(hash: u64) -> u32 {
    #[allow(clippy::cast_possible_truncation, reason = "it is less than 2^BITS")]
    let fraction = (hash >> 36 & ((1 << BITS) - 1)) as u32;
    fraction
}

/// How many bits of a hash choose the part.
const BITS: u32 = 20;

/// Where each part ends. Made once, because a logarithm need not come out the same each time, and an entry has to be found where it was put.
static ENDS: LazyLock<[u32; PARTS]> = LazyLock::new(|| {
    #[allow(clippy::cast_possible_truncation, reason = "it is at most 2^BITS")]
    std::array::from_fn(|at| {
        let end = ((at + 1) as f64 / PARTS as f64).exp2() - 1.0;
        (end * f64::from(1 << BITS)).round() as u32
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

    /// A number with something to tell it from others of the same number.
    #[derive(Debug, Clone, PartialEq)]
    struct Item(u64, u32);

    impl Keyed for Item {
        type By<'a> = u64;

        fn by(&self) -> u64 {
            self.0
        }

        fn is(&self, by: u64) -> bool {
            self.0 == by
        }

        fn hash(by: u64, state: &impl BuildHasher) -> u64 {
            state.hash_one(by)
        }
    }

    /// All in one part and one place.
    #[derive(Default)]
    struct Same;

    impl BuildHasher for Same {
        type Hasher = Nothing;

        fn build_hasher(&self) -> Nothing {
            Nothing
        }
    }

    struct Nothing;

    impl std::hash::Hasher for Nothing {
        fn write(&mut self, _: &[u8]) {}

        fn finish(&self) -> u64 {
            0
        }
    }

    fn holds_what_a_map_holds<S: BuildHasher + Default>(steps: &[(bool, u64, u32)]) {
        let (shelf, mut map) = (ShardedMap::<Item, S>::new(), BTreeMap::new());
        for &(is_put, number, mark) in steps {
            let item = Item(number, mark);
            if is_put {
                let before = map.insert(number, item.clone());
                assert_eq!(shelf.put(item), before);
            } else {
                assert_eq!(shelf.take_if(number, |held| held.1 == u32::MAX), None);
                assert_eq!(shelf.take(number), map.remove(&number));
            }
            assert_eq!(shelf.get(number, Item::clone), map.get(&number).cloned());
            assert_eq!(shelf.len(), map.len());
        }
        let mut seen = BTreeMap::new();
        shelf.each(|item| {
            seen.insert(item.0, item.clone());
        });
        assert_eq!(seen, map);
        for number in 0..20 {
            assert_eq!(shelf.get(number, Item::clone), map.get(&number).cloned());
            assert_eq!(shelf.any(|item| item.0 == number), map.contains_key(&number));
        }
    }

    /// What lies on a tray comes later than what is put meanwhile, and in any order.
    fn trays_bring_what_was_laid_on_them<S: BuildHasher + Default>(room: usize, count: u64) {
        let shelf = ShardedMap::<Item, S>::new();
        let mut tray = InsertBuffer::with_room(room);
        shelf.put(Item(3, 9));
        for number in 0..count {
            shelf.lay(&mut tray, Item(number, 1));
        }
        assert!(tray.0.len() <= tray.0.capacity());
        shelf.put_all(&mut tray);
        assert!(tray.0.is_empty());
        assert_eq!(shelf.len() as u64, count);
        assert!((0..count).all(|number| shelf.get(number, Item::clone) == Some(Item(number, 1))));
    }

    #[test]
    fn what_was_laid_on_a_tray_is_found() {
        for (room, count) in [(1, 10), (7, 6), (7, 7), (7, 8), (64, 3000), (0, 5)] {
            trays_bring_what_was_laid_on_them::<RandomState>(room, count);
            trays_bring_what_was_laid_on_them::<Same>(room, count);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shelf_holds_what_a_map_holds(
            steps in prop::collection::vec((prop::bool::weighted(0.7), 0_u64..20, 0_u32..9), 1..60),
        ) {
            holds_what_a_map_holds::<RandomState>(&steps);
            holds_what_a_map_holds::<Same>(&steps);
        }
    }

    #[test]
    fn the_last_part_is_twice_as_large_as_the_first() {
        let shelf = ShardedMap::<Item, foldhash::quality::RandomState>::new();
        let total = PARTS * 200;
        for number in 0..total as u64 {
            shelf.put(Item(number, 0));
        }
        assert_eq!(shelf.len(), total);
        let sizes: Vec<_> = shelf.parts.iter().map(|part| part.read().len()).collect();
        let sum = |at: usize| sizes[at * 64..(at + 1) * 64].iter().sum::<usize>() as f64;
        for eighth in 0..PARTS / 64 {
            let grown = (eighth as f64 * 64.0 / PARTS as f64).exp2();
            let ratio = sum(eighth) / (sum(0) * grown);
            // Six times the standard deviation.
            assert!((ratio - 1.0).abs() < 0.08, "{eighth}: {ratio}");
        }
        assert!(sizes.iter().all(|size| (60..400).contains(size)), "{sizes:?}");
    }

    #[test]
    fn what_was_expected_needs_no_more_room_and_no_less() {
        let room = |shelf: &ShardedMap<Item, RandomState>| {
            shelf.parts.iter().map(|part| part.read().capacity()).sum::<usize>()
        };
        let (expected, grown) =
            (ShardedMap::<Item, RandomState>::new(), ShardedMap::<Item, RandomState>::new());
        let total = 200_000;
        for number in 0..total / 16 {
            expected.put(Item(number, 1));
        }
        expected.expect(total as usize);
        assert!(room(&expected) > total as usize);
        for number in 0..total {
            expected.put(Item(number, 1));
            grown.put(Item(number, 1));
        }
        let ratio = room(&expected) as f64 / room(&grown) as f64;
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
        assert_eq!(expected.len() as u64, total);
        // What has been is found where it was moved to.
        assert!((0..total).all(|number| expected.get(number, |_| ()).is_some()));
    }

    #[test]
    fn what_stays_is_found_while_others_come_and_go() {
        let shelf = ShardedMap::<Item, Same>::new();
        let is_over = AtomicBool::new(false);
        shelf.put(Item(0, 7));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(shelf.get(0, Item::clone), Some(Item(0, 7)));
                    assert!(shelf.get(99_999, Item::clone).is_none());
                }
            });
            for number in 1..400 {
                shelf.put(Item(number, 0));
            }
            for number in 1..400 {
                assert!(shelf.take(number).is_some());
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(shelf.len(), 1);
    }
}
