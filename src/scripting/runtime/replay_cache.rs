//! The table behind `once`: remembers ids for a given time, and never forgets an id early.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use super::quota::{Owner, Quotas};

/// Ids that were seen, stored as digests.
pub(in crate::scripting) struct ReplayCache {
    seen: Mutex<SeenIds>,
}

struct SeenIds {
    ids: HashMap<[u8; 16], SeenId>,
    /// The ids in the order in which they expire.
    expiry: BTreeSet<(i64, [u8; 16])>,
    quotas: Quotas,
}

#[derive(Clone, Copy)]
struct SeenId {
    /// The first second in which the id is forgotten.
    until: i64,
    owner: Owner,
}

/// The result of looking an id up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum ReplayCheck {
    /// The id has not been seen.
    New,
    /// The id has been seen.
    Seen,
    /// The owner's share of the table is full of ids that must not be forgotten yet.
    Full,
}

impl ReplayCache {
    /// A table for so many ids.
    pub fn new(capacity: usize) -> Self {
        let (ids, expiry) = (HashMap::new(), BTreeSet::new());
        Self { seen: Mutex::new(SeenIds { ids, expiry, quotas: Quotas::new(capacity) }) }
    }

    /// Checks an id, and remembers a new one for `seconds` from `now`.
    pub fn once(&self, id: [u8; 16], seconds: i64, now: i64, owner: Owner) -> ReplayCheck {
        let mut seen = self.seen.lock();
        while let Some((until, expired)) = seen.expiry.first().copied()
            && until <= now
        {
            seen.forget(&expired);
        }
        if seen.ids.contains_key(&id) {
            return ReplayCheck::Seen;
        }
        if seen.quotas.is_full(owner) {
            return ReplayCheck::Full;
        }
        let until = now.saturating_add(seconds);
        seen.ids.insert(id, SeenId { until, owner });
        seen.expiry.insert((until, id));
        seen.quotas.add(owner);
        ReplayCheck::New
    }

    /// The result that [`ReplayCache::once`] would return, without remembering the id.
    pub fn peek(&self, id: [u8; 16], now: i64, owner: Owner) -> ReplayCheck {
        let seen = self.seen.lock();
        match seen.ids.get(&id) {
            Some(seen) if seen.until > now => ReplayCheck::Seen,
            Some(_) => ReplayCheck::New,
            None if !seen.quotas.is_full(owner) => ReplayCheck::New,
            // The share is full, but `once` would first remove the expired ids.
            None if seen.expiry.first().is_some_and(|(until, _)| *until <= now) => ReplayCheck::New,
            None => ReplayCheck::Full,
        }
    }

    /// Forgets an id, because the call that entered it has failed.
    pub fn take_back(&self, id: &[u8; 16]) {
        self.seen.lock().forget(id);
    }

    /// The number of ids.
    pub fn len(&self) -> usize {
        self.seen.lock().ids.len()
    }
}

impl SeenIds {
    fn forget(&mut self, id: &[u8; 16]) {
        if let Some(SeenId { until, owner }) = self.ids.remove(id) {
            self.expiry.remove(&(until, *id));
            self.quotas.remove(owner);
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

    fn once(cache: &ReplayCache, id: &str, seconds: i64, now: i64) -> ReplayCheck {
        cache.once(short_digest(id), seconds, now, Owner::default())
    }

    fn peek(cache: &ReplayCache, id: &str, now: i64) -> ReplayCheck {
        cache.peek(short_digest(id), now, Owner::default())
    }

    #[test]
    fn an_id_is_new_again_after_its_time() {
        let cache = ReplayCache::new(10);
        assert_eq!(once(&cache, "a", 60, 100), ReplayCheck::New);
        assert_eq!(once(&cache, "a", 60, 159), ReplayCheck::Seen);
        assert_eq!(once(&cache, "a", 60, 160), ReplayCheck::New);
    }

    #[test]
    fn peek_remembers_nothing() {
        let cache = ReplayCache::new(4);
        assert_eq!([peek(&cache, "a", 0), peek(&cache, "a", 0)], [ReplayCheck::New; 2]);
        once(&cache, "a", 60, 0);
        let after = [peek(&cache, "a", 59), peek(&cache, "b", 59)];
        assert_eq!(after, [ReplayCheck::Seen, ReplayCheck::Full]);
        assert_eq!([peek(&cache, "a", 60), peek(&cache, "b", 60)], [ReplayCheck::New; 2]);
    }

    #[test]
    fn full_share_rejects_new_ids_and_forgets_none() {
        let cache = ReplayCache::new(8);
        assert_eq!(once(&cache, "a", 60, 0), ReplayCheck::New);
        assert_eq!(once(&cache, "b", 10, 0), ReplayCheck::New);
        assert_eq!(once(&cache, "c", 60, 0), ReplayCheck::Full);
        assert_eq!(once(&cache, "a", 60, 5), ReplayCheck::Seen);
        assert_eq!(once(&cache, "c", 60, 10), ReplayCheck::New, "b has expired");
        assert_eq!(once(&cache, "a", 60, 10), ReplayCheck::Seen);
        let other = Owner { script: 7, client: None };
        assert_eq!(cache.once(short_digest("d"), 60, 10, other), ReplayCheck::New);
    }

    #[test]
    fn taken_back_ids_are_new_and_take_no_memory() {
        let cache = ReplayCache::new(8);
        for _ in 0..100 {
            assert_eq!(once(&cache, "a", 60, 0), ReplayCheck::New);
            cache.take_back(&short_digest("a"));
        }
        let seen = cache.seen.lock();
        assert_eq!((seen.ids.len(), seen.expiry.len()), (0, 0));
    }
}
