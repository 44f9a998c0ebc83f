//! The generic cell rate algorithm (ITU-T I.371, annex A): a leaky bucket whose whole state is one
//! number, the theoretical arrival time.

/// A rate with a burst. All times have the same unit, which the caller chooses (ns or µs).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gcra {
    /// The time after which one more event becomes available.
    pub interval: u64,
    /// The time after which a full burst is available again.
    pub window: u64,
}

/// The outcome of one more event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conformance {
    /// The event is within the rate. The value is the new theoretical arrival time.
    Conforms(u64),
    /// The event exceeds the rate. The value is the time until one more event is available.
    Exceeds(u64),
}

impl Gcra {
    /// A rate of one event per `interval`, after a burst of `burst` events.
    pub fn new(interval: u64, burst: u64) -> Self {
        Self { interval, window: interval.saturating_mul(burst) }
    }

    /// Whether one more event conforms at `now`. `arrival` is the theoretical arrival time before
    /// this event. An arrival time in the past means that the full burst is available.
    pub fn check(self, arrival: u64, now: u64) -> Conformance {
        let next = self.next(arrival, now);
        let used = next - now;
        if used <= self.window {
            Conformance::Conforms(next)
        } else {
            Conformance::Exceeds(used - self.window)
        }
    }

    /// The theoretical arrival time after one more event, no matter whether this event conforms.
    pub fn next(self, arrival: u64, now: u64) -> u64 {
        arrival.max(now).saturating_add(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_conforms_at_once_and_then_one_event_per_interval() {
        let gcra = Gcra::new(10, 3);
        let mut arrival = 0;
        for _ in 0..3 {
            let Conformance::Conforms(next) = gcra.check(arrival, 100) else { panic!() };
            arrival = next;
        }
        assert_eq!(arrival, 130);
        assert_eq!(gcra.check(arrival, 100), Conformance::Exceeds(10));
        assert_eq!(gcra.check(arrival, 109), Conformance::Exceeds(1));
        assert_eq!(gcra.check(arrival, 110), Conformance::Conforms(140));
    }

    #[test]
    fn largest_arrival_time_does_not_overflow() {
        let gcra = Gcra::new(u64::MAX / 2, 4);
        assert_eq!(gcra.next(u64::MAX, 5), u64::MAX);
        assert_eq!(gcra.check(u64::MAX, u64::MAX), Conformance::Conforms(u64::MAX));
    }
}
