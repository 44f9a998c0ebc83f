//! Where the many lie: users and keys, in as little memory as there may be.
//!
//! A shelf is a hash table in parts, each behind a lock of its own. A reader holds a part's lock for one look-up; a writer for one change, and a
//! thousandth of the whole is moved where a part grows. A table that is read without locks keeps a box for each entry and stays half empty: the
//! three that were here took 120 bytes more a user, and half of the time of a start.

use std::{
    hash::BuildHasher,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hashbrown::{HashTable, hash_table::Entry};

/// A power of two. With ten million entries a part that grows moves ten thousand pointers: half a millisecond, in which one reader of a thousand
/// waits. Each part takes 64 bytes while it is empty.
const PARTS: usize = 1024;

/// What lies on a shelf, and what it is found by.
pub(super) trait Filed {
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
pub(super) struct Shelf<T, S> {
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

impl<T: Filed, S: BuildHasher + Default> Shelf<T, S> {
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

    /// The tables take the place of an entry from the low bits of a hash, and its mark from the seven highest.
    fn part(&self, hash: u64) -> &Part<T> {
        #[allow(clippy::cast_possible_truncation, reason = "the bits that are wanted are kept")]
        let at = (hash >> 40) as usize % PARTS;
        &self.parts[at]
    }
}

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

    impl Filed for Item {
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
        let (shelf, mut map) = (Shelf::<Item, S>::new(), BTreeMap::new());
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
        shelf.each(|item| drop(seen.insert(item.0, item.clone())));
        assert_eq!(seen, map);
        for number in 0..20 {
            assert_eq!(shelf.get(number, Item::clone), map.get(&number).cloned());
            assert_eq!(shelf.any(|item| item.0 == number), map.contains_key(&number));
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
    fn the_parts_are_filled_alike() {
        let shelf = Shelf::<Item, foldhash::quality::RandomState>::new();
        let each = 100;
        for number in 0..PARTS as u64 * each {
            shelf.put(Item(number, 0));
        }
        let sizes = shelf.parts.iter().map(|part| part.read().len() as u64);
        // Six times the standard deviation, which is ten.
        assert!(sizes.clone().all(|size| size.abs_diff(each) < 60), "{:?}", sizes.max());
        assert_eq!(shelf.len() as u64, PARTS as u64 * each);
    }

    #[test]
    fn what_stays_is_found_while_others_come_and_go() {
        let shelf = Shelf::<Item, Same>::new();
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
