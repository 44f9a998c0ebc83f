//! Failure limits for clients that present too many wrong credentials.
//!
//! Above the limit, correct keys are still accepted, except keys whose digests are slow to check.
//! A request with such a key or with a password is denied without a check.

use std::{net::IpAddr, time::Duration};

use http::StatusCode;

use super::{Denial, Phase, Request, RequestContext};
use crate::{
    limits::{PasswordAttempt, RetryAfter},
    model::Mode,
};

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

/// Counts a wrong password. `None` for `uid` means that the user does not exist.
pub fn failed(context: &RequestContext, attempt: PasswordAttempt, uid: Option<u64>) {
    if context.mode == Mode::Live {
        context.counters().failed(attempt, uid);
    }
}

/// Counts a denial if the credential was wrong, or the request too large for a script. Above the limit, every such denial becomes the same
/// 429, so that the client learns nothing about the credential.
pub(super) fn count(context: &RequestContext, client: IpAddr, denial: Denial) -> Denial {
    if !is_failure(&denial) || context.mode == Mode::DryRun {
        return denial;
    }
    match context.counters().count_failure(client) {
        None => denial,
        Some(retry_after) => {
            let message = denial.internal_message.as_deref().unwrap_or_default();
            let message =
                format!("too many failures from this address; {}: {message}", denial.code);
            too_many_failures(denial.phase, retry_after).with_internal_message(message)
        }
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

/// Whether the denial means that a presented credential was wrong. A missing credential is not a
/// failure. A script's denial is a failure only if its status is 401, because a script may deny a
/// request for any reason.
fn is_failure(denial: &Denial) -> bool {
    match denial.phase {
        _ if denial.is_failure => true,
        Phase::Decode | Phase::Lookup | Phase::Verify => {
            denial.status == StatusCode::UNAUTHORIZED
                || ["USER_DOES_NOT_EXIST", "USER_BLOCKED"].contains(&&*denial.code)
        }
        Phase::Edge | Phase::Header | Phase::Permit | Phase::Handler => false,
    }
}

fn too_many_failures(phase: Phase, RetryAfter(seconds): RetryAfter) -> Denial {
    let seconds = seconds.max(1);
    let message = format!("Too many failed attempts. Try again in {seconds} seconds.");
    Denial::new(phase, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_FAILURES", message)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}
