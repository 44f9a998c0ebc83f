//! The `[audit]` section: how many entries are kept, and which denied requests get an entry.

use super::{Check, file};
use crate::limits::{DenialLimits, DenialLogging};

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// The maximum number of entries in the audit trail.
    pub entries: u64,
    /// The denied requests that get an entry.
    pub denials: DenialLimits,
}

/// Denied requests get at most 1/`DENIAL_SHARE` of all entries per day. So denied requests need at
/// least `DENIAL_SHARE` days to push the entries of other actions out of the trail.
const DENIAL_SHARE: u64 = 10;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn audit(&mut self, raw: &file::AuditSection) -> AuditSettings {
        let interval = self.number("audit.denial_sample", raw.denial_sample, 1..=1_000_000);
        let choices = [
            ("none", DenialLogging::None),
            ("sampled", DenialLogging::Sampled(interval)),
            ("all", DenialLogging::All),
        ];
        let entries = self.number("audit.entries", raw.entries, 1000..=10_000_000);
        let per_day = self.number("audit.denial_entries", raw.denial_entries, 4..=1_000_000);
        let logging = self.choice("audit.denials", &raw.denials, choices);
        let per_day = per_day.min(entries / DENIAL_SHARE);
        AuditSettings { entries, denials: DenialLimits { logging, per_day } }
    }
}
