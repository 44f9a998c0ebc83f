//! The keys of `[limits]` about failed authentications.

use super::{Check, file};
use crate::limits::FailureLimits;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn failures(&mut self, raw: &file::LimitsSection) -> FailureLimits {
        const MAX: u32 = 1_000_000;
        let mut number =
            |key, raw, range| u32::try_from(self.number(key, raw, range)).unwrap_or(u32::MAX);
        FailureLimits {
            seconds: number("limits.failure_seconds", raw.failure_seconds, 1..=86_400),
            passwords: number("limits.password_failures", raw.password_failures, 0..=MAX),
            passwords_per_address: number(
                "limits.password_failures_per_address",
                raw.password_failures_per_address,
                0..=MAX,
            ),
            per_address: number("limits.failures_per_address", raw.failures_per_address, 0..=MAX),
            exempt: self.networks("limits.failure_exempt", &raw.failure_exempt),
            entries: self.size("limits.failure_entries", raw.failure_entries, 16..=16_777_216),
        }
    }
}
