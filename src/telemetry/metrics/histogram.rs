//! A histogram of durations.

use std::time::Duration;

/// The upper bounds of `http.server.request.duration`, in nanoseconds, as OpenTelemetry's semantic
/// conventions for HTTP metrics give them.
pub(super) const HTTP_BOUNDS: [u64; 14] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    75_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    750_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    7_500_000_000,
    10_000_000_000,
];

/// Powers of two from 1 µs to 1.05 s: nearly all decisions take less than the first bound of
/// [`HTTP_BOUNDS`].
pub(super) const DECISION_BOUNDS: [u64; 21] = {
    let mut bounds = [1000; 21];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = 2 * bounds[index - 1];
        index += 1;
    }
    bounds
};

/// The number of durations up to each bound, and their sum. `N` is the number of bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram<const N: usize> {
    counts: [u64; N],
    /// The durations above the last bound.
    above: u64,
    sum_nanos: u64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], above: 0, sum_nanos: 0 }
    }
}

impl<const N: usize> Histogram<N> {
    pub fn add(&mut self, duration: Duration, bounds: &[u64; N]) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match bounds.iter().position(|bound| nanos <= *bound) {
            Some(index) => self.counts[index] += 1,
            None => self.above += 1,
        }
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.above += other.above;
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.above
    }

    pub fn sum_seconds(&self) -> f64 {
        seconds(self.sum_nanos)
    }

    /// The bounds in seconds, each with the number of durations between the bound before and this
    /// one. The last bound is infinite.
    pub fn buckets(&self, bounds: &[u64; N]) -> Vec<(f64, u64)> {
        let finite = bounds.iter().map(|bound| seconds(*bound)).zip(self.counts);
        finite.chain([(f64::INFINITY, self.above)]).collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 15 digits")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_is_counted_below_the_first_bound_that_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for micros in [0, 1, 2, 3, 2_000_000] {
            histogram.add(Duration::from_micros(micros), &DECISION_BOUNDS);
        }
        let buckets = histogram.buckets(&DECISION_BOUNDS);
        assert_eq!(buckets[..3], [(1e-6, 2), (2e-6, 1), (4e-6, 1)]);
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(histogram.count(), 5);
        assert!((histogram.sum_seconds() - 2.000_006).abs() < 1e-9);
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!(twice.count(), 10);
    }

    #[test]
    fn bounds_rise() {
        assert!(HTTP_BOUNDS.is_sorted() && DECISION_BOUNDS.is_sorted());
        assert_eq!(DECISION_BOUNDS[20], 1_048_576_000);
    }
}
