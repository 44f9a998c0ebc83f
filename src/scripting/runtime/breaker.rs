//! Switches a script off that keeps running out of its budget, so that its trouble stays its own.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// One script's strikes.
pub(in crate::scripting) struct Breaker {
    strikes: usize,
    window: Duration,
    cool_down: Duration,
    /// Whether the lock need be taken at all: it is false in every call of a script that behaves.
    is_off: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    recent: VecDeque<Instant>,
    until: Option<Instant>,
}

impl Breaker {
    pub fn new(strikes: usize, window: Duration, cool_down: Duration) -> Self {
        let is_off = AtomicBool::new(false);
        Self { strikes: strikes.max(1), window, cool_down, is_off, state: Mutex::default() }
    }

    /// [`Breaker::is_off`], without a look at the clock where there is nothing to cool down.
    pub fn is_off_now(&self) -> bool {
        self.is_off.load(Ordering::Relaxed) && self.is_off(Instant::now())
    }

    /// Whether calls are refused. After the cool-down they are not, but one more strike is then enough.
    pub fn is_off(&self, now: Instant) -> bool {
        if !self.is_off.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.lock();
        match state.until {
            Some(until) if now < until => true,
            Some(_) => {
                state.until = None;
                state.recent = std::iter::repeat_n(now, self.strikes - 1).collect();
                self.is_off.store(false, Ordering::Relaxed);
                false
            }
            None => false,
        }
    }

    /// Notes that the script ran out of its budget. True: it is switched off by this.
    pub fn strike(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let oldest = now.checked_sub(self.window);
        state.recent.retain(|at| oldest.is_none_or(|oldest| *at > oldest));
        state.recent.push_back(now);
        if state.recent.len() < self.strikes || state.until.is_some() {
            return false;
        }
        state.recent.clear();
        state.until = Some(now + self.cool_down);
        self.is_off.store(true, Ordering::Relaxed);
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn strikes_within_the_window_switch_it_off_until_it_has_cooled_down() {
        let breaker = Breaker::new(3, MINUTE, MINUTE);
        let start = Instant::now();
        assert!(!breaker.strike(start));
        assert!(!breaker.strike(start));
        assert!(!breaker.is_off(start));
        assert!(breaker.strike(start));
        assert!(breaker.is_off(start));
        assert!(breaker.is_off(start + MINUTE / 2));
        assert!(!breaker.is_off(start + MINUTE));
        assert!(breaker.strike(start + MINUTE), "after the cool-down one is enough");
        assert!(breaker.is_off(start + MINUTE));
    }

    #[test]
    fn strikes_that_are_far_apart_do_not() {
        let breaker = Breaker::new(2, MINUTE, MINUTE);
        let start = Instant::now();
        for minute in 0..10 {
            assert!(!breaker.strike(start + 2 * minute * MINUTE));
        }
    }
}
