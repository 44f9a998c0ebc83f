//! The audit trail: what stands in it, and for how long.

use super::{Check, file};

/// The audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// Entries that are kept.
    pub entries: u64,
    /// Which refused requests get one.
    pub denials: Denials,
    /// The entries that these get in a day.
    pub denial_entries: u64,
}

/// Which refused requests get an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denials {
    /// None.
    None,
    /// Of those that are alike the first in a minute, and then each after so many.
    Sampled(u64),
    /// Each.
    All,
}

/// Of so many entries denials get one in a day at most: it takes as many days to push out of the trail what others have done.
const SHARE: u64 = 10;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn audit(&mut self, raw: &file::Audit) -> AuditSettings {
        let sample = self.number("audit.denial_sample", raw.denial_sample, 1..=1_000_000);
        let choices =
            [("none", Denials::None), ("sampled", Denials::Sampled(sample)), ("all", Denials::All)];
        let entries = self.number("audit.entries", raw.entries, 1000..=10_000_000);
        let in_a_day = self.number("audit.denial_entries", raw.denial_entries, 4..=1_000_000);
        AuditSettings {
            entries,
            denials: self.choice("audit.denials", &raw.denials, choices),
            denial_entries: in_a_day.min(entries / SHARE),
        }
    }
}
