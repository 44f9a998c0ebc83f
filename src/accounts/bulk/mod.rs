//! Changes of many users or keys: those that a selection names, part by part.
//!
//! Each part is one commit beside other writers, with one entry of the audit trail for each record.
//! A run that was interrupted is run again: records that have the wanted values stay unchanged.

mod keys;
mod selection;
mod users;

pub use keys::RevokeMany;
pub use selection::{KeySelection, UserSelection};
pub use users::{ChangeMany, ManyUsers, UserEdit};

/// The records that a part looks at, at most.
const MOST_READ: usize = 2_000;
/// The records that a part changes, at most. A part with more is ended after this many.
const MOST_CHANGED: usize = 1_000;
/// A part ends after this many writes of rows: a user can have thousands of keys.
const MOST_WRITES: usize = 10_000;
/// The records that a part names.
const MOST_NAMED: usize = 5;

/// The result of one part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartOfMany {
    /// The selected records of this part.
    pub matched: usize,
    /// The records that were changed, or that a dry run would change.
    pub changed: usize,
    /// The records that have the wanted values already.
    pub unchanged: usize,
    /// The records that were left out.
    pub left_out: SkippedRecords,
    /// The ids and names of the first changed records.
    pub first: Vec<(String, String)>,
    /// The id of the last record that this part has looked at. The next part begins after it.
    /// `None` means that this part was the last one.
    pub next: Option<u64>,
}

/// The number of records that were left out, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct SkippedRecords {
    /// The actor may not change the record: it belongs to an administrator, or the actor's
    /// credential is bound.
    pub forbidden: usize,
    /// The change breaks a rule, for example that an administrator always remains.
    pub refused: usize,
}

impl PartOfMany {
    fn count_changed(&mut self, id: impl ToString, name: &str) {
        self.changed += 1;
        if self.first.len() < MOST_NAMED {
            self.first.push((id.to_string(), name.to_owned()));
        }
    }
}
