//! Use of keys since the last write: how often, and when last. A decision only adds to it in
//! memory.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use crate::model::{KeyId, Timestamp};

/// Each thread counts in a shard of its own, so that no core waits for another even if all requests
/// use one key. With more threads than shards, threads share them.
const SHARDS: usize = 64;

thread_local! {
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

/// The use that is not written yet. A shard has one entry for each key used since the last write.
pub(super) struct Usage {
    shards: Box<[Mutex<UsageShard>; SHARDS]>,
}

/// Aligned to cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct UsageShard {
    /// By key number. The numbers are chosen by the server, so no client can cause collisions.
    keys: HashMap<u64, Used, foldhash::fast::RandomState>,
    spenders: HashSet<u64>,
}

/// The use of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// The number of uses.
    pub times: u64,
    /// The last use.
    pub last: Timestamp,
}

/// Everything that is not written yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// The keys that were used.
    pub keys: Vec<(KeyId, Used)>,
    /// The users who have spent credits.
    pub spenders: Vec<u64>,
}

impl Used {
    /// The sum of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { times: self.times.saturating_add(other.times), last: self.last.max(other.last) }
    }
}

impl Usage {
    pub fn new() -> Self {
        Self { shards: Box::new(std::array::from_fn(|_| Mutex::default())) }
    }

    /// Counts a use.
    pub fn count(&self, key: KeyId, now: Timestamp) {
        self.add(key, Used { times: 1, last: now });
    }

    /// Adds uses, for example those that could not be written.
    pub fn add(&self, key: KeyId, used: Used) {
        self.shard().add(key.number(), used);
    }

    /// Remembers a user who has spent credits.
    pub fn spent(&self, uid: u64) {
        self.shard().spenders.insert(uid);
    }

    /// The use of a key that is not written yet.
    pub fn of(&self, key: KeyId) -> Used {
        let of_shard = |shard: &Mutex<UsageShard>| shard.lock().keys.get(&key.number()).copied();
        self.shards.iter().filter_map(of_shard).fold(Used::default(), Used::and)
    }

    /// Takes out everything that is not written yet.
    pub fn take(&self) -> Unwritten {
        let mut all = UsageShard::default();
        for shard in self.shards.iter() {
            let shard = std::mem::take(&mut *shard.lock());
            for (number, used) in shard.keys {
                all.add(number, used);
            }
            all.spenders.extend(shard.spenders);
        }
        let keys = all.keys.into_iter();
        Unwritten {
            keys: keys.map(|(number, used)| (KeyId::from_number(number), used)).collect(),
            spenders: all.spenders.into_iter().collect(),
        }
    }

    fn shard(&self) -> MutexGuard<'_, UsageShard> {
        self.shards[SHARD.with(|shard| *shard)].lock()
    }
}

impl UsageShard {
    fn add(&mut self, number: u64, used: Used) {
        self.keys.entry(number).and_modify(|known| *known = known.and(used)).or_insert(used);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn no_use_is_lost_while_uses_are_taken_out() {
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
    fn uses_of_several_threads_are_summed() {
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
    fn uses_that_were_taken_out_can_be_put_back() {
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
