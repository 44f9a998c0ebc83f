//! Errors of reading and changing records.

use crate::{
    model::Violation,
    scripting::Fault,
    store::{
        CommitError, Sequence, StoreError,
        audit_log::{TrailError, TrailProblem},
    },
};

/// The reason why a change was not made. Nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// The record does not exist.
    #[error("there is no {what} {id}")]
    NotFound {
        /// The kind of record.
        what: &'static str,
        /// The requested id.
        id: String,
    },
    /// The record breaks rules.
    #[error("{}", list(.0))]
    Invalid(Vec<Violation>),
    /// Another writer has changed the record since the caller read it.
    #[error("another writer changed the record after it was read (its revision is now {current})")]
    Stale {
        /// The current revision of the record.
        current: Sequence,
    },
    /// The record is valid, but the change is not possible in the current state of the store.
    #[error("{message} {fix}")]
    Refused {
        /// The reason.
        message: String,
        /// The suggested remedy.
        fix: String,
    },
    /// The change concerns an administrator's account, role or key, and the actor is not an
    /// administrator.
    #[error("Only an administrator can change an account, role or key of an administrator.")]
    AdminOnly,
    /// A rule keeps the actor from making more of itself than it is.
    #[error("{rule}")]
    Forbidden {
        /// The rule, as a sentence.
        rule: String,
    },
    /// The operator's event script denied the change, or failed.
    #[error("{}", script_message(.0))]
    Script(Fault),
    /// Too many passwords are being checked.
    #[error("too many passwords are being checked; try again in a moment")]
    Busy,
    /// The audit trail is not what was written, so it cannot be read to its end.
    #[error(transparent)]
    AuditTrail(TrailProblem),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<TrailError> for AccountError {
    fn from(problem: TrailError) -> Self {
        match problem {
            TrailError::Broken(problem) => Self::AuditTrail(problem),
            TrailError::Store(problem) => problem.into(),
        }
    }
}

impl From<StoreError> for AccountError {
    fn from(problem: StoreError) -> Self {
        match problem {
            // Each field is within its own limit, but the whole record is too large, so the client
            // has to shorten the record.
            StoreError::TooLarge { .. } => Self::Invalid(vec![Violation::new(
                "",
                format!("The record is too large: {problem}."),
                "Shorten its lists and texts.",
            )]),
            other => Self::Store(other),
        }
    }
}

/// Converts a conflict of a commit that is not retried. [`Writer::update`](super::Writer::update)
/// retries its commits, so it does not use this conversion for conflicts.
impl From<CommitError> for AccountError {
    fn from(problem: CommitError) -> Self {
        match problem {
            CommitError::Store(problem) => problem.into(),
            CommitError::Conflict(_) => Self::contended(),
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

    /// The error for a change that other writers made impossible at every attempt.
    pub(super) fn contended() -> Self {
        Self::refused("Other writers keep changing this record.", "Try again in a moment.")
    }
}

/// The message for the client. The details of a failed script are written to the log only.
fn script_message(fault: &Fault) -> String {
    match fault {
        Fault::Refused(refusal) => refusal.description.clone(),
        Fault::Failed { .. } | Fault::TooLarge { .. } | Fault::ShutOut { .. } => {
            "the event script failed; the server's log has the reason".into()
        }
    }
}

fn list(violations: &[Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
    lines.join("; ")
}
