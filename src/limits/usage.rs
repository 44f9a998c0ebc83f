//! Uses of keys since the last write to the store: the number of uses, and the time of the last
//! use. A decision counts a use in memory and writes nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::{Mutex, MutexGuard};

use crate::model::{KeyId, Timestamp};

/// The number of shards. Each thread counts in its own shard, so that no core waits for another
/// core even if all requests use one key. If there are more threads than shards, several threads
/// share a shard.
const SHARDS: usize = 64;

thread_local! {
    /// The index of this thread's shard.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

/// The uses that are not yet written to the store. A shard has one entry for each key that was used
/// since the last write.
pub(super) struct Usage {
    shards: Box<[Mutex<UsageShard>; SHARDS]>,
}

/// One shard. The alignment puts each shard into its own cache lines.
#[derive(Default)]
#[repr(align(128))]
struct UsageShard {
    /// The uses by key number. The server chooses the numbers, so no client can cause collisions.
    keys: HashMap<u64, Used, foldhash::fast::RandomState>,
    /// The uids of the users who have spent credits.
    users_with_spent_credits: HashSet<u64>,
}

/// The uses of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// The number of uses.
    pub times: u64,
    /// The time of the last use.
    pub last: Timestamp,
}

/// All uses that are not yet written to the store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// The keys that were used, each with its uses.
    pub keys: Vec<(KeyId, Used)>,
    /// The uids of the users who have spent credits.
    pub users_with_spent_credits: Vec<u64>,
}

impl Used {
    /// Combines the uses of two periods: the sum of the numbers, and the later one of the last
    /// uses.
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
        self.shard().users_with_spent_credits.insert(uid);
    }

    /// The uses of a key that are not yet written to the store.
    pub fn of(&self, key: KeyId) -> Used {
        let of_shard = |shard: &Mutex<UsageShard>| shard.lock().keys.get(&key.number()).copied();
        self.shards.iter().filter_map(of_shard).fold(Used::default(), Used::and)
    }

    /// Takes out all uses that are not yet written to the store.
    pub fn take(&self) -> Unwritten {
        let mut all = UsageShard::default();
        for shard in self.shards.iter() {
            let shard = std::mem::take(&mut *shard.lock());
            for (number, used) in shard.keys {
                all.add(number, used);
            }
            all.users_with_spent_credits.extend(shard.users_with_spent_credits);
        }
        let keys = all.keys.into_iter();
        Unwritten {
            keys: keys.map(|(number, used)| (KeyId::from_number(number), used)).collect(),
            users_with_spent_credits: all.users_with_spent_credits.into_iter().collect(),
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
                .map(|_| {
                    scope.spawn(|| (0..10_000).for_each(|time| usage.count(key, Timestamp(time))))
                })
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
        for time in 1..=3 {
            let count = || (usage.count(key, Timestamp(time)), usage.spent(3));
            thread::scope(|scope| drop(scope.spawn(count)));
        }
        let used = Used { times: 3, last: Timestamp(3) };
        assert_eq!(usage.of(key), used);
        assert_eq!(
            usage.take(),
            Unwritten { keys: vec![(key, used)], users_with_spent_credits: vec![3] }
        );
    }

    #[test]
    fn uses_that_were_taken_out_can_be_put_back() {
        let usage = Usage::new();
        usage.count(KeyId::from_number(1), Timestamp(5));
        usage.spent(3);
        let taken = usage.take();
        assert_eq!((taken.keys.len(), &taken.users_with_spent_credits), (1, &vec![3]));
        assert_eq!(usage.take(), Unwritten::default());
        let (key, used) = taken.keys[0];
        usage.count(key, Timestamp(9));
        usage.add(key, used);
        assert_eq!(usage.of(key), Used { times: 2, last: Timestamp(9) });
    }
}
