//! The table behind `once`: remembers ids for a given time, and never forgets an id early.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use parking_lot::Mutex;

/// Ids that were seen, stored as digests.
pub(in crate::scripting) struct ReplayCache {
    /// The capacity, in ids.
    capacity: usize,
    seen: Mutex<SeenIds>,
}

#[derive(Default)]
struct SeenIds {
    /// The first second in which each id is forgotten.
    until: HashMap<[u8; 16], i64>,
    /// The ids in the order in which they expire.
    expiry: BinaryHeap<Reverse<(i64, [u8; 16])>>,
}

/// The result of looking an id up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum ReplayCheck {
    /// The id has not been seen.
    New,
    /// The id has been seen.
    Seen,
    /// The table is full of ids that must not be forgotten yet.
    Full,
}

impl ReplayCache {
    pub fn new(capacity: usize) -> Self {
        Self { capacity, seen: Mutex::default() }
    }

    /// Checks an id, and remembers a new one for `seconds` from `now`.
    pub fn once(&self, id: &str, seconds: i64, now: i64) -> ReplayCheck {
        let key = short_digest(id);
        let mut seen = self.seen.lock();
        while let Some(Reverse((until, expired))) = seen.expiry.peek().copied() {
            if until > now {
                break;
            }
            seen.expiry.pop();
            seen.until.remove(&expired);
        }
        if seen.until.contains_key(&key) {
            return ReplayCheck::Seen;
        }
        if seen.until.len() >= self.capacity {
            return ReplayCheck::Full;
        }
        let until = now.saturating_add(seconds);
        seen.until.insert(key, until);
        seen.expiry.push(Reverse((until, key)));
        ReplayCheck::New
    }

    /// The result that [`ReplayCache::once`] would return, without remembering the id.
    pub fn peek(&self, id: &str, now: i64) -> ReplayCheck {
        let seen = self.seen.lock();
        match seen.until.get(&short_digest(id)) {
            Some(until) if *until > now => ReplayCheck::Seen,
            Some(_) => ReplayCheck::New,
            None if seen.until.len() < self.capacity => ReplayCheck::New,
            // The table is full, but `once` would first remove the expired ids.
            None if seen.until.values().any(|until| *until <= now) => ReplayCheck::New,
            None => ReplayCheck::Full,
        }
    }
}

/// The first 16 bytes of the BLAKE3 digest: enough to prevent collisions, and a long text takes no
/// more memory than a short text.
pub(in crate::scripting) fn short_digest(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_again_after_its_time() {
        let cache = ReplayCache::new(10);
        assert_eq!(cache.once("a", 60, 100), ReplayCheck::New);
        assert_eq!(cache.once("a", 60, 159), ReplayCheck::Seen);
        assert_eq!(cache.once("a", 60, 160), ReplayCheck::New);
    }

    #[test]
    fn peek_remembers_nothing() {
        let cache = ReplayCache::new(1);
        assert_eq!([cache.peek("a", 0), cache.peek("a", 0)], [ReplayCheck::New; 2]);
        cache.once("a", 60, 0);
        let after = [cache.peek("a", 59), cache.peek("b", 59)];
        assert_eq!(after, [ReplayCheck::Seen, ReplayCheck::Full]);
        assert_eq!([cache.peek("a", 60), cache.peek("b", 60)], [ReplayCheck::New; 2]);
    }

    #[test]
    fn a_full_table_rejects_new_ids_and_forgets_none() {
        let cache = ReplayCache::new(2);
        assert_eq!(cache.once("a", 60, 0), ReplayCheck::New);
        assert_eq!(cache.once("b", 10, 0), ReplayCheck::New);
        assert_eq!(cache.once("c", 60, 0), ReplayCheck::Full);
        assert_eq!(cache.once("a", 60, 5), ReplayCheck::Seen);
        assert_eq!(cache.once("c", 60, 10), ReplayCheck::New, "b has expired");
        assert_eq!(cache.once("a", 60, 10), ReplayCheck::Seen);
    }
}
