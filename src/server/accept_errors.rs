//! Errors of `accept`: logs the first one at once, and then at most one line in ten seconds.

use std::{
    io,
    time::{Duration, Instant},
};

/// The time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// The errors of a listener since the last line.
#[derive(Debug, Default)]
pub(super) struct AcceptErrors {
    last_line: Option<Instant>,
    unlogged: u64,
}

impl AcceptErrors {
    /// Logs an error, or counts it for the next line.
    pub fn report(&mut self, problem: &io::Error) {
        let Some(errors) = self.count(Instant::now()) else { return };
        let is_out_of_descriptors =
            problem.raw_os_error().map(rustix::io::Errno::from_raw_os_error).is_some_and(|error| {
                [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].contains(&error)
            });
        let fix = if is_out_of_descriptors {
            ". Raise the limit of file descriptors (ulimit -n), or lower limits.connections"
        } else {
            ""
        };
        tracing::warn!(errors, "connections could not be accepted: {problem}{fix}");
    }

    /// The number of errors since the last line, if a line is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.last_line.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_logged_at_most_once_in_an_interval() {
        let (mut errors, start) = (AcceptErrors::default(), Instant::now());
        let lines: Vec<_> = (0..500_u64)
            .filter_map(|number| errors.count(start + Duration::from_millis(50 * number)))
            .collect();
        assert_eq!(lines, [1, 200, 200]);
    }
}
