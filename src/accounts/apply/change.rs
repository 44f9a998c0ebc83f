//! The planned change of one record.

use crate::{accounts::Versioned, store::Sequence};

/// A record before and after the plan.
#[derive(Debug)]
pub(super) struct PlannedChange<T> {
    /// The record's index in the document's list of records of this kind. `None` means that the
    /// document does not list the record.
    pub at: Option<usize>,
    /// The record that is in the store now. `None` means that the plan creates the record.
    pub before: Option<Versioned<T>>,
    /// The record as the plan writes it. `None` means that the plan deletes the record.
    pub after: Option<T>,
}

impl<T: PartialEq> PlannedChange<T> {
    /// Whether the plan writes or deletes the record.
    pub fn has_effect(&self) -> bool {
        self.current() != self.after.as_ref()
    }
}

impl<T> PlannedChange<T> {
    /// The record that is in the store now. `None` means that the plan creates the record.
    pub fn current(&self) -> Option<&T> {
        self.before.as_ref().map(|before| &before.record)
    }

    /// The planned record, or the current record if the plan deletes it.
    pub fn any(&self) -> Option<&T> {
        self.after.as_ref().or(self.current())
    }

    /// The revision of the record that is in the store now.
    pub fn revision(&self) -> Option<Sequence> {
        self.before.as_ref().map(|before| before.revision)
    }
}
