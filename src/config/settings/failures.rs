//! How often a client may bring a wrong credential.

use ipnet::IpNet;

use super::{Check, file};

/// How often a client may bring a wrong credential; zero: as often as it likes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureSettings {
    /// The time in which they are counted, in seconds.
    pub seconds: u32,
    /// Wrong passwords of one user name from one address.
    pub passwords: u32,
    /// Wrong passwords from one address.
    pub passwords_per_address: u32,
    /// Wrong credentials of any kind from one address.
    pub per_address: u32,
    /// The networks whose failures are not counted.
    pub exempt: Vec<IpNet>,
    /// The most that is remembered.
    pub entries: usize,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn failures(&mut self, raw: &file::Limits) -> FailureSettings {
        const MOST: u32 = 1_000_000;
        let mut number =
            |key, raw, range| u32::try_from(self.number(key, raw, range)).unwrap_or(u32::MAX);
        FailureSettings {
            seconds: number("limits.failure_seconds", raw.failure_seconds, 1..=86_400),
            passwords: number("limits.password_failures", raw.password_failures, 0..=MOST),
            passwords_per_address: number(
                "limits.password_failures_per_address",
                raw.password_failures_per_address,
                0..=MOST,
            ),
            per_address: number("limits.failures_per_address", raw.failures_per_address, 0..=MOST),
            exempt: self.networks("limits.failure_exempt", &raw.failure_exempt),
            entries: self.size("limits.failure_entries", raw.failure_entries, 16..=16_777_216),
        }
    }
}
