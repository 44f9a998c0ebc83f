//! Counts denials that are failures of the client: wrong credentials, and requests that are too
//! large for a script.

use std::net::IpAddr;

use http::StatusCode;

use super::{Denial, Phase};
use crate::{
    limits::{Counters, RetryAfter},
    model::Mode,
};

/// Counts a denial if it is a failure of the client. Above the limit, every such denial becomes the
/// same 429, so that the client learns nothing about the credential.
pub(super) fn count(counters: &Counters, mode: Mode, client: IpAddr, denial: Denial) -> Denial {
    if !is_failure(&denial) || mode == Mode::DryRun {
        return denial;
    }
    match counters.count_failure(client) {
        None => denial,
        Some(retry_after) => {
            let message = denial.internal_message.as_deref().unwrap_or_default();
            let message =
                format!("too many failures from this address; {}: {message}", denial.code);
            too_many_failures(denial.phase, retry_after).with_internal_message(message)
        }
    }
}

/// Whether the denial means that a presented credential was wrong, or that the request was too
/// large for a script. A missing credential is not a failure. Any other denial of a script is a
/// failure only if its status is 401, because a script may deny a request for any reason.
fn is_failure(denial: &Denial) -> bool {
    if denial.is_failure {
        return true;
    }
    match denial.phase {
        Phase::Decode | Phase::Lookup | Phase::Verify => {
            denial.status == StatusCode::UNAUTHORIZED
                || ["USER_DOES_NOT_EXIST", "USER_BLOCKED"].contains(&&*denial.code)
        }
        Phase::Edge | Phase::Header | Phase::Permit | Phase::Handler => false,
    }
}

pub(super) fn too_many_failures(phase: Phase, RetryAfter(seconds): RetryAfter) -> Denial {
    let seconds = seconds.max(1);
    let message = format!("Too many failed attempts. Try again in {seconds} seconds.");
    Denial::new(phase, StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_FAILURES", message)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}
