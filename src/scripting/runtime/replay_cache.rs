//! `once`: which ids were seen, for as long as they must be remembered. Nothing is forgotten early.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Mutex, PoisonError},
};

/// Ids, by a digest.
pub(in crate::scripting) struct Replays {
    most: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The first second in which an id is forgotten.
    until: HashMap<[u8; 16], i64>,
    order: BinaryHeap<Reverse<(i64, [u8; 16])>>,
}

/// What became of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum Once {
    /// It is new, and from now on it is not.
    New,
    /// It was seen.
    Seen,
    /// The table is full of ids that must not be forgotten yet.
    Full,
}

impl Replays {
    pub fn new(most: usize) -> Self {
        Self { most, seen: Mutex::default() }
    }

    /// Notes an id for `seconds` from `now`.
    pub fn once(&self, id: &str, seconds: i64, now: i64) -> Once {
        let key = short_digest(id);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Reverse((until, old))) = seen.order.peek().copied() {
            if until > now {
                break;
            }
            seen.order.pop();
            seen.until.remove(&old);
        }
        if seen.until.contains_key(&key) {
            return Once::Seen;
        }
        if seen.until.len() >= self.most {
            return Once::Full;
        }
        let until = now.saturating_add(seconds);
        seen.until.insert(key, until);
        seen.order.push(Reverse((until, key)));
        Once::New
    }

    /// What [`Replays::once`] would say. Nothing is noted.
    pub fn look(&self, id: &str, now: i64) -> Once {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.until.get(&short_digest(id)) {
            Some(until) if *until > now => Once::Seen,
            Some(_) => Once::New,
            None if seen.until.len() < self.most => Once::New,
            // Those whose time is over have not been cleared away yet.
            None if seen.until.values().any(|until| *until <= now) => Once::New,
            None => Once::Full,
        }
    }
}

/// Sixteen bytes of BLAKE3: nobody finds two texts with the same, and a long text takes no more room than a short one.
pub(in crate::scripting) fn short_digest(text: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_until_its_time_is_over() {
        let replays = Replays::new(10);
        assert_eq!(replays.once("a", 60, 100), Once::New);
        assert_eq!(replays.once("a", 60, 159), Once::Seen);
        assert_eq!(replays.once("a", 60, 160), Once::New);
    }

    #[test]
    fn a_look_notes_nothing() {
        let replays = Replays::new(1);
        assert_eq!([replays.look("a", 0), replays.look("a", 0)], [Once::New; 2]);
        replays.once("a", 60, 0);
        assert_eq!([replays.look("a", 59), replays.look("b", 59)], [Once::Seen, Once::Full]);
        assert_eq!([replays.look("a", 60), replays.look("b", 60)], [Once::New; 2]);
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing() {
        let replays = Replays::new(2);
        assert_eq!(replays.once("a", 60, 0), Once::New);
        assert_eq!(replays.once("b", 10, 0), Once::New);
        assert_eq!(replays.once("c", 60, 0), Once::Full);
        assert_eq!(replays.once("a", 60, 5), Once::Seen);
        assert_eq!(replays.once("c", 60, 10), Once::New, "b's time is over");
        assert_eq!(replays.once("a", 60, 10), Once::Seen);
    }
}
