//! What becomes of those who are wrong too often. A right key is never kept out; passwords are, before they are looked at.

use crate::model::Mode;
use std::time::Duration;

use http::StatusCode;

use super::{Denial, Phase, Request, RequestContext};
use crate::limits::{Attempt, Wait};

/// Whether a password of this user may be looked at.
///
/// # Errors
/// There were too many wrong ones from the client's address.
pub fn attempt(
    scene: &RequestContext,
    request: &Request<'_>,
    user: &str,
) -> Result<Attempt, Denial> {
    scene.ledger().attempt(request.client, user).map_err(|wait| {
        let detail =
            "there were too many wrong passwords from this address: this one was not looked at";
        too_many(Phase::Lookup, wait).with_detail(detail)
    })
}

/// The password was wrong, or there is no such user: then without `uid`.
pub fn failed(scene: &RequestContext, attempt: Attempt, uid: Option<u64>) {
    if scene.mode == Mode::Live {
        scene.ledger().failed(attempt, uid);
    }
}

/// Counts a refusal that says that a credential is wrong. Where there were too many, all of them say so, and nothing else.
pub(super) fn counted(scene: &RequestContext, request: &Request<'_>, denial: Denial) -> Denial {
    if !is_failure(&denial) || scene.mode == Mode::DryRun {
        return denial;
    }
    match scene.ledger().count_failure(request.client) {
        None => denial,
        Some(wait) => {
            let detail = denial.detail.as_deref().unwrap_or_default();
            let detail = format!("too many failures from this address; {}: {detail}", denial.code);
            too_many(denial.room, wait).with_detail(detail)
        }
    }
}

/// Two turns of the runtime's clock are so far apart.
const TURN: Duration = Duration::from_millis(1);

/// Where no details are told, time is to tell none: a refusal waits for the clock to turn, one turn at least. What was done before it takes some tens of
/// nanoseconds more or less for one reason than for another, which whoever asks twenty thousand times could tell; the turn comes when it comes.
pub(super) async fn even_out(denial: &Denial) {
    if matches!(denial.room, Phase::Lookup | Phase::Verify) {
        tokio::time::sleep(TURN).await;
    }
}

/// A credential came, and it is nobody's who may come in. One that is missing is none, and a script may refuse for reasons of its own.
fn is_failure(denial: &Denial) -> bool {
    match denial.room {
        Phase::Decode | Phase::Lookup | Phase::Verify => {
            denial.status == StatusCode::UNAUTHORIZED
                || ["USER_DOES_NOT_EXIST", "USER_BLOCKED"].contains(&&*denial.code)
        }
        Phase::Edge | Phase::Header | Phase::Permit | Phase::Handler => false,
    }
}

fn too_many(room: Phase, Wait(seconds): Wait) -> Denial {
    let seconds = seconds.max(1);
    let text = format!("Too many failed attempts. Try again in {seconds} seconds.");
    Denial::new(room, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_FAILURES", text)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}
