//! Why something could not be done to the records.

use crate::{
    model::Violation,
    scripting::Fault,
    store::{Sequence, StoreError},
};

/// Why a change was not made. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// There is no such record.
    #[error("there is no {what} {id}")]
    NotFound {
        /// The kind of record.
        what: &'static str,
        /// The id that was asked for.
        id: String,
    },
    /// The record is not in order.
    #[error("{}", list(.0))]
    Invalid(Vec<Violation>),
    /// The record was changed by somebody else since it was read.
    #[error("the record was changed meanwhile (its revision is {current})")]
    Stale {
        /// The revision that it has now.
        current: Sequence,
    },
    /// The record is in order and the change is still not possible.
    #[error("{message} {fix}")]
    Refused {
        /// Why.
        message: String,
        /// What to do instead.
        fix: String,
    },
    /// The operator's script of events refused, or failed.
    #[error("{}", said(.0))]
    Script(Fault),
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for AccountError {
    fn from(problem: StoreError) -> Self {
        match problem {
            // Each field is within its bounds, and all of them together are not: that is for the sender to mend.
            StoreError::TooLarge { .. } => Self::Invalid(vec![Violation::new(
                "",
                format!("The whole is too large: {problem}."),
                "Shorten its lists and texts.",
            )]),
            other => Self::Store(other),
        }
    }
}

impl AccountError {
    pub(super) fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    pub(super) fn refused(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), fix: fix.into() }
    }

    /// What is returned when a record is changed by others again and again.
    pub(super) fn contended() -> Self {
        Self::refused(
            "The record is being changed by others all the time.",
            "Try again in a moment.",
        )
    }
}

/// What a script's fault is for people. What the operator's log is told is not here.
fn said(fault: &Fault) -> String {
    match fault {
        Fault::Refused(refusal) => refusal.description.clone(),
        Fault::Broken { .. } => "the script of events failed; the log says why".into(),
    }
}

fn list(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    lines.join("; ")
}
