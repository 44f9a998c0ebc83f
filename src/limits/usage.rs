//! How often keys were used, and when last: since it was last written down. A decision adds to it and writes nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::model::{KeyId, Timestamp};

/// Each thread counts in a part of its own, so that no core waits for another even where all requests use one key. More threads than parts share them.
const PARTS: usize = 64;

thread_local! {
    static PART: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PARTS
    };
}

/// What was used and is not written yet. A part holds an entry for each key that was used since, so at most one for each that there is.
pub(super) struct Usage {
    parts: Box<[Mutex<Part>; PARTS]>,
}

/// In cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
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
        self.part().add(key.number(), used);
    }

    /// Remembers a user who has spent credits.
    pub fn spent(&self, uid: u64) {
        self.part().spenders.insert(uid);
    }

    /// What is not written of a key's use.
    pub fn of(&self, key: KeyId) -> Used {
        let of_part = |part| lock(part).keys.get(&key.number()).copied();
        self.parts.iter().filter_map(of_part).fold(Used::default(), Used::and)
    }

    /// Takes out all that is to be written.
    pub fn take(&self) -> Unwritten {
        let mut all = Part::default();
        for part in self.parts.iter() {
            let part = std::mem::take(&mut *lock(part));
            for (number, used) in part.keys {
                all.add(number, used);
            }
            all.spenders.extend(part.spenders);
        }
        let keys = all.keys.into_iter();
        Unwritten {
            keys: keys.map(|(number, used)| (KeyId::from_number(number), used)).collect(),
            spenders: all.spenders.into_iter().collect(),
        }
    }

    fn part(&self) -> MutexGuard<'_, Part> {
        lock(&self.parts[PART.with(|part| *part)])
    }
}

impl Part {
    fn add(&mut self, number: u64, used: Used) {
        self.keys.entry(number).and_modify(|known| *known = known.and(used)).or_insert(used);
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
    fn what_several_threads_have_counted_is_written_once() {
        let (usage, key) = (Usage::new(), KeyId::from_number(7));
        for at in 1..=3 {
            let count = || (usage.count(key, Timestamp(at)), usage.spent(3));
            thread::scope(|scope| drop(scope.spawn(count)));
        }
        let used = Used { times: 3, last: Timestamp(3) };
        assert_eq!(usage.of(key), used);
        assert_eq!(usage.take(), Unwritten { keys: vec![(key, used)], spenders: vec![3] });
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
