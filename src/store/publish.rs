//! Tells the followers of a store what was committed, in order, and remembers the last few changes for one that comes late.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Change, Missed, Sequence, Sink};

/// How many changes are remembered.
const REMEMBERED: usize = 1024;

pub(super) struct Publisher(Mutex<State>);

struct State {
    sequence: Sequence,
    recent: VecDeque<Change>,
    sinks: Vec<Arc<dyn Sink>>,
}

impl Publisher {
    pub fn new(sequence: Sequence) -> Self {
        Self(Mutex::new(State { sequence, recent: VecDeque::new(), sinks: Vec::new() }))
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
        if state.recent.len() == REMEMBERED {
            state.recent.pop_front();
        }
        state.recent.push_back(change);
    }

    pub fn follow(&self, after: Sequence, sink: Arc<dyn Sink>) -> Result<(), Missed> {
        let mut state = self.lock();
        let known = state.sequence - state.recent.len() as u64;
        if after < known || after > state.sequence {
            return Err(Missed);
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
