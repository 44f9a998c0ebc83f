//! Circuit breaker: switches off a script that keeps exceeding its budget, so that the script
//! cannot slow down other requests.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Counts how often one script exceeds its budget ("strikes").
pub(in crate::scripting) struct Breaker {
    max_strikes: usize,
    window: Duration,
    cool_down: Duration,
    /// Mirrors `Strikes::off_until.is_some()`, so that calls of a well-behaved script take no lock.
    is_off: AtomicBool,
    strikes: Mutex<Strikes>,
}

#[derive(Default)]
struct Strikes {
    recent: VecDeque<Instant>,
    off_until: Option<Instant>,
}

impl Breaker {
    pub fn new(max_strikes: usize, window: Duration, cool_down: Duration) -> Self {
        let (is_off, strikes) = (AtomicBool::new(false), Mutex::default());
        Self { max_strikes: max_strikes.max(1), window, cool_down, is_off, strikes }
    }

    /// [`Breaker::is_off`] at this moment. Reads the clock only while the script is switched off.
    pub fn is_off_now(&self) -> bool {
        self.is_off.load(Ordering::Relaxed) && self.is_off(Instant::now())
    }

    /// Whether calls are rejected. Calls are accepted again after the cool-down, but then a single
    /// strike switches the script off again.
    pub fn is_off(&self, now: Instant) -> bool {
        if !self.is_off.load(Ordering::Relaxed) {
            return false;
        }
        let mut strikes = self.strikes.lock();
        match strikes.off_until {
            Some(off_until) if now < off_until => true,
            Some(_) => {
                strikes.off_until = None;
                strikes.recent = std::iter::repeat_n(now, self.max_strikes - 1).collect();
                self.is_off.store(false, Ordering::Relaxed);
                false
            }
            None => false,
        }
    }

    /// Records that the script exceeded its budget. Returns true if this strike switches the script
    /// off.
    pub fn strike(&self, now: Instant) -> bool {
        let mut strikes = self.strikes.lock();
        let window_start = now.checked_sub(self.window);
        strikes.recent.retain(|strike| window_start.is_none_or(|start| *strike > start));
        strikes.recent.push_back(now);
        if strikes.recent.len() < self.max_strikes || strikes.off_until.is_some() {
            return false;
        }
        strikes.recent.clear();
        strikes.off_until = Some(now + self.cool_down);
        self.is_off.store(true, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn strikes_within_the_window_switch_the_script_off_until_the_cool_down_ends() {
        let breaker = Breaker::new(3, MINUTE, MINUTE);
        let start = Instant::now();
        assert!(!breaker.strike(start));
        assert!(!breaker.strike(start));
        assert!(!breaker.is_off(start));
        assert!(breaker.strike(start));
        assert!(breaker.is_off(start));
        assert!(breaker.is_off(start + MINUTE / 2));
        assert!(!breaker.is_off(start + MINUTE));
        assert!(breaker.strike(start + MINUTE), "after the cool-down one strike is enough");
        assert!(breaker.is_off(start + MINUTE));
    }

    #[test]
    fn strikes_outside_the_window_do_not_switch_the_script_off() {
        let breaker = Breaker::new(2, MINUTE, MINUTE);
        let start = Instant::now();
        for minute in 0..10 {
            assert!(!breaker.strike(start + 2 * minute * MINUTE));
        }
    }
}
