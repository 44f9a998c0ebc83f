//! The subscribers of a store: delivers each commit to them in order, and remembers recent commits
//! for subscribers that register later.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::{Commit, Lagged, Sequence, Subscriber};

/// The most commits that are remembered.
const MAX_COMMITS: usize = 1024;
/// The most bytes of keys and JSON that are remembered: the import of a million keys is a thousand
/// commits.
const MAX_BYTES: usize = 1024 * 1024;

pub(super) struct Publisher(Mutex<PublisherState>);

struct PublisherState {
    /// The last published commit.
    sequence: Sequence,
    /// The last commits, without a gap up to `sequence`.
    recent: VecDeque<Commit>,
    /// The size of `recent` in bytes.
    bytes: usize,
    subscribers: Vec<Arc<dyn Subscriber>>,
}

impl Publisher {
    pub fn new(sequence: Sequence) -> Self {
        let (recent, subscribers) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(PublisherState { sequence, recent, bytes: 0, subscribers }))
    }

    pub fn sequence(&self) -> Sequence {
        self.0.lock().sequence
    }

    /// Delivers a commit to every subscriber. The caller has made the commit durable.
    pub fn publish(&self, commit: Commit) {
        let mut state = self.0.lock();
        debug_assert_eq!(commit.sequence, state.sequence + 1);
        for subscriber in &state.subscribers {
            subscriber.apply(&commit);
        }
        state.sequence = commit.sequence;
        state.bytes += size(&commit);
        state.recent.push_back(commit);
        while state.recent.len() > MAX_COMMITS || state.bytes > MAX_BYTES {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.bytes -= size(&oldest);
        }
    }

    pub fn subscribe(
        &self,
        after: Sequence,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<(), Lagged> {
        let mut state = self.0.lock();
        let before_recent = state.sequence - state.recent.len() as u64;
        if after < before_recent || after > state.sequence {
            return Err(Lagged);
        }
        for commit in state.recent.iter().filter(|commit| commit.sequence > after) {
            subscriber.apply(commit);
        }
        state.subscribers.push(subscriber);
        Ok(())
    }
}

fn size(commit: &Commit) -> usize {
    let writes = commit.writes.iter();
    writes.map(|write| write.key.len() + write.json.as_ref().map_or(0, Vec::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Table, Write};

    #[test]
    fn remembered_commits_are_bounded_in_bytes_too() {
        let publisher = Publisher::new(0);
        for sequence in 1..=20 {
            let write =
                Write { table: Table::Users, key: vec![7; 8], json: Some(vec![0; 200_000]) };
            publisher.publish(Commit { sequence, writes: vec![write] });
        }
        let remembered = || {
            let state = publisher.0.lock();
            (state.recent.len(), state.recent.iter().map(size).sum::<usize>(), state.bytes)
        };
        let (count, bytes, counted) = remembered();
        assert_eq!((count, bytes), (5, counted));
        // A commit above the limit empties the memory; later subscribers must take a snapshot.
        let write = Write { table: Table::Users, key: vec![], json: Some(vec![0; 2 * MAX_BYTES]) };
        publisher.publish(Commit { sequence: 21, writes: vec![write] });
        assert_eq!(remembered(), (0, 0, 0));
        struct Ignore;
        impl Subscriber for Ignore {
            fn apply(&self, _: &Commit) {}
        }
        assert!(publisher.subscribe(20, Arc::new(Ignore)).is_err());
        assert!(publisher.subscribe(21, Arc::new(Ignore)).is_ok());
    }
}
