//! The planned change of one record.

use crate::{accounts::Versioned, store::Sequence};

/// A record before and after the plan.
#[derive(Debug)]
pub(super) struct PlannedChange<T> {
    /// The index of the record in its list of the document. `None` means that the document does not
    /// list the record.
    pub at: Option<usize>,
    /// The current record. `None` means that it is new.
    pub before: Option<Versioned<T>>,
    /// The planned record. `None` means that it is removed.
    pub after: Option<T>,
}

impl<T: PartialEq> PlannedChange<T> {
    /// Whether the record has to be written or deleted.
    pub fn has_effect(&self) -> bool {
        self.current() != self.after.as_ref()
    }
}

impl<T> PlannedChange<T> {
    /// The current record.
    pub fn current(&self) -> Option<&T> {
        self.before.as_ref().map(|before| &before.record)
    }

    /// The planned record, or the current one if the record is removed.
    pub fn any(&self) -> Option<&T> {
        self.after.as_ref().or(self.current())
    }

    /// The revision of the current record.
    pub fn revision(&self) -> Option<Sequence> {
        self.before.as_ref().map(|before| before.revision)
    }
}
