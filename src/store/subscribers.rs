//! Tells the followers of a store what was committed, in order, and remembers the last few changes for one that comes late.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Change, Lagged, Sequence, Subscriber};

/// How many changes are remembered.
const REMEMBERED: usize = 1024;
/// And how many bytes of them: an import of a million keys is a thousand changes.
const REMEMBERED_BYTES: usize = 1024 * 1024;

pub(super) struct Publisher(Mutex<State>);

struct State {
    sequence: Sequence,
    recent: VecDeque<Change>,
    /// The size of those.
    bytes: usize,
    sinks: Vec<Arc<dyn Subscriber>>,
}

impl Publisher {
    pub fn new(sequence: Sequence) -> Self {
        let (recent, sinks) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(State { sequence, recent, bytes: 0, sinks }))
    }

    pub fn sequence(&self) -> Sequence {
        self.lock().sequence
    }

    /// Hands a change to every sink. The caller has made it durable.
    pub fn publish(&self, change: Change) {
        let mut state = self.lock();
        debug_assert_eq!(change.sequence, state.sequence + 1);
        for sink in &state.sinks {
            sink.apply(&change);
        }
        state.sequence = change.sequence;
        state.bytes += size(&change);
        state.recent.push_back(change);
        while state.recent.len() > REMEMBERED || state.bytes > REMEMBERED_BYTES {
            let Some(oldest) = state.recent.pop_front() else { break };
            state.bytes -= size(&oldest);
        }
    }

    pub fn follow(&self, after: Sequence, sink: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        let mut state = self.lock();
        let known = state.sequence - state.recent.len() as u64;
        if after < known || after > state.sequence {
            return Err(Lagged);
        }
        for change in state.recent.iter().filter(|one| one.sequence > after) {
            sink.apply(change);
        }
        state.sinks.push(sink);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(change: &Change) -> usize {
    let writes = change.writes.iter();
    writes.map(|write| write.key.len() + write.json.as_ref().map_or(0, Vec::len)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Table, Write};

    #[test]
    fn what_is_remembered_is_bounded_in_bytes_too() {
        let publisher = Publisher::new(0);
        for sequence in 1..=20 {
            let write =
                Write { table: Table::Users, key: vec![7; 8], json: Some(vec![0; 200_000]) };
            publisher.publish(Change { sequence, writes: vec![write] });
        }
        let held =
            |state: &State| (state.recent.len(), state.recent.iter().map(size).sum::<usize>());
        let (count, bytes) = held(&publisher.lock());
        assert_eq!((count, bytes), (5, publisher.lock().bytes));
        // One that is larger than all that may be kept leaves nothing, and those that come late look at the store.
        let write =
            Write { table: Table::Users, key: vec![], json: Some(vec![0; 2 * REMEMBERED_BYTES]) };
        publisher.publish(Change { sequence: 21, writes: vec![write] });
        assert_eq!(held(&publisher.lock()), (0, 0));
        struct Nobody;
        impl Subscriber for Nobody {
            fn apply(&self, _: &Change) {}
        }
        assert!(publisher.follow(20, Arc::new(Nobody)).is_err());
        assert!(publisher.follow(21, Arc::new(Nobody)).is_ok());
    }
}
