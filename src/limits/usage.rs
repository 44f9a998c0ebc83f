//! How often keys were used, and when last: since it was last written down. A decision adds to it and writes nothing.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::model::{KeyId, Timestamp};

/// Whoever counts waits only for those who count in the same part at this moment.
const PARTS: usize = 64;

/// What was used and is not written yet. It holds an entry for each key that was used since, so at most one for each that there is.
pub(super) struct Usage {
    parts: Box<[Mutex<Part>; PARTS]>,
}

#[derive(Default)]
struct Part {
    /// By number. We give the numbers ourselves, so nobody can choose them to collide.
    keys: HashMap<u64, Used, foldhash::fast::RandomState>,
    spenders: HashSet<u64>,
}

/// The use of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// How often.
    pub times: u64,
    /// When last.
    pub last: Timestamp,
}

/// All that is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// The keys that were used.
    pub keys: Vec<(KeyId, Used)>,
    /// The users who have spent credits.
    pub spenders: Vec<u64>,
}

impl Used {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { times: self.times.saturating_add(other.times), last: self.last.max(other.last) }
    }
}

impl Usage {
    pub fn new() -> Self {
        Self { parts: Box::new(std::array::from_fn(|_| Mutex::default())) }
    }

    /// Counts a use.
    pub fn count(&self, key: KeyId, now: Timestamp) {
        self.add(key, Used { times: 1, last: now });
    }

    /// Adds uses; those that could not be written come back.
    pub fn add(&self, key: KeyId, used: Used) {
        let mut part = self.part(key.number());
        match part.keys.entry(key.number()) {
            Entry::Occupied(mut known) => *known.get_mut() = known.get().and(used),
            Entry::Vacant(place) => drop(place.insert(used)),
        }
    }

    /// Remembers a user who has spent credits.
    pub fn spent(&self, uid: u64) {
        self.part(uid).spenders.insert(uid);
    }

    /// What is not written of a key's use.
    pub fn of(&self, key: KeyId) -> Used {
        self.part(key.number()).keys.get(&key.number()).copied().unwrap_or_default()
    }

    /// Takes out all that is to be written.
    pub fn take(&self) -> Unwritten {
        let mut all = Unwritten::default();
        for part in self.parts.iter() {
            let part = std::mem::take(&mut *lock(part));
            let keys = part.keys.into_iter();
            all.keys.extend(keys.map(|(number, used)| (KeyId::from_number(number), used)));
            all.spenders.extend(part.spenders);
        }
        all
    }

    fn part(&self, number: u64) -> MutexGuard<'_, Part> {
        // Ids are drawn at random, and users' numbers follow one another: either spreads.
        lock(&self.parts[number as usize % PARTS])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn nothing_is_lost_while_it_is_taken_out() {
        let (usage, key) = (Usage::new(), KeyId::from_number(7));
        let mut written = Used::default();
        thread::scope(|scope| {
            let counting: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..10_000).for_each(|at| usage.count(key, Timestamp(at)))))
                .collect();
            while !counting.iter().all(thread::ScopedJoinHandle::is_finished) {
                for (_, used) in usage.take().keys {
                    written = written.and(used);
                }
            }
        });
        assert_eq!(written.and(usage.of(key)), Used { times: 40_000, last: Timestamp(9_999) });
    }

    #[test]
    fn what_was_taken_out_is_gone_and_can_come_back() {
        let usage = Usage::new();
        usage.count(KeyId::from_number(1), Timestamp(5));
        usage.spent(3);
        let taken = usage.take();
        assert_eq!((taken.keys.len(), &taken.spenders), (1, &vec![3]));
        assert_eq!(usage.take(), Unwritten::default());
        let (key, used) = taken.keys[0];
        usage.count(key, Timestamp(9));
        usage.add(key, used);
        assert_eq!(usage.of(key), Used { times: 2, last: Timestamp(9) });
    }
}
