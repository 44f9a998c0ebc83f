//! Failure limits for clients that present too many wrong credentials.
//!
//! Above the limit, correct keys are still accepted, except keys whose digests are slow to check.
//! A request with such a key or with a password is denied without a check.

use std::time::Duration;

use super::{Denial, Phase, Request, RequestContext, failure_count::too_many_failures};
use crate::{limits::PasswordAttempt, model::Mode};

/// Registers an attempt to authenticate with a password of this user.
///
/// # Errors
/// The client's address has presented too many wrong passwords. The caller must not check the
/// password of this request.
pub fn attempt(
    context: &RequestContext,
    request: &Request<'_>,
    user: &str,
) -> Result<PasswordAttempt, Denial> {
    context.counters().attempt(request.client, user).map_err(|retry_after| {
        let message = "too many wrong passwords from this address; this password was not checked";
        too_many_failures(Phase::Lookup, retry_after).with_internal_message(message)
    })
}

/// Counts a wrong password before its check, when its turn has come.
///
/// # Errors
/// Other passwords of this client that are being checked use up the limit.
pub fn begin(context: &RequestContext, attempt: PasswordAttempt) -> Result<(), Denial> {
    if context.mode == Mode::DryRun {
        return Ok(());
    }
    context.counters().begin(attempt).map_err(|retry_after| {
        let message = "too many wrong passwords from this address; this password was not checked";
        too_many_failures(Phase::Verify, retry_after).with_internal_message(message)
    })
}

/// Counts a password of a user who does not exist, so that it needs no check.
pub fn unknown_user(context: &RequestContext, attempt: PasswordAttempt) {
    if context.mode == Mode::Live && context.counters().begin(attempt).is_ok() {
        context.counters().was_wrong(attempt, None);
    }
}

/// The end of an attempt to authenticate with a password.
#[derive(Debug, Clone, Copy)]
pub enum PasswordOutcome {
    /// The password was right, or it could not be checked.
    NotWrong,
    /// The password was wrong. The user is `None` if no user has the presented name.
    Wrong(Option<u64>),
}

/// Ends an attempt that [`begin`] has counted: only a wrong password stays counted.
pub fn end(context: &RequestContext, attempt: PasswordAttempt, outcome: PasswordOutcome) {
    match outcome {
        _ if context.mode == Mode::DryRun => {}
        PasswordOutcome::NotWrong => context.counters().was_right(attempt),
        PasswordOutcome::Wrong(uid) => context.counters().was_wrong(attempt, uid),
    }
}

/// The resolution of the runtime's timer.
const TIMER_TICK: Duration = Duration::from_millis(1);

/// Hides how long a denial took, for applications that give clients no details.
///
/// The time before a denial differs by some tens of nanoseconds depending on the reason. A client
/// could measure this difference with twenty thousand requests. So Keyward waits for at least one
/// full tick of the timer. The wait always ends on a tick, so the time of the response does not
/// depend on the reason.
pub(super) async fn delay_uniform_denial(denial: &Denial) {
    if matches!(denial.phase, Phase::Lookup | Phase::Verify) {
        tokio::time::sleep(TIMER_TICK).await;
    }
}
