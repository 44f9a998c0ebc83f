//! The last question of the fifth room: whether there is anything left of what they may take. Asked only of requests that may pass, so that what is
//! refused for another reason costs nobody anything.
//!
//! The answer is told in header fields (draft-ietf-httpapi-ratelimit-headers): `RateLimit-Policy`, what there is, and `RateLimit`, what is left.

use crate::model::Mode;
use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Denial, Face, Identity, Phase, Request, RequestContext};
use crate::{
    directory::Rule,
    limits::{Bounds, Reading},
};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Whose limits, by their place in [`bounds`].
const NAMES: [&str; 4] = ["key", "user", "application", "resource"];

/// What the limits of a request say of it. Most requests have none.
#[derive(Debug, Clone, Default)]
pub struct Quota(Vec<Said>);

/// What one limit says.
#[derive(Debug, Clone, Copy)]
struct Said {
    whose: &'static str,
    reading: Reading,
}

/// Takes one of each limit that a request is under, and counts the use of its key.
///
/// # Errors
/// One of them has none left. Then nothing is taken of the others.
pub(super) fn within(
    scene: &RequestContext,
    request: &Request<'_>,
    identity: &Identity<'_>,
    rule: Option<&Rule>,
) -> Result<Quota, Denial> {
    let taken = match scene.mode {
        Mode::Live => Mode::Live,
        Mode::DryRun => Mode::DryRun,
    };
    let quota = taken_of(bounds(identity, rule), scene, request, taken)?;
    if taken == Mode::Live {
        note(scene, identity);
    }
    Ok(quota)
}

/// Notes for later what was used: nothing is written now.
fn note(scene: &RequestContext, identity: &Identity<'_>) {
    // The person at the machine is in no store.
    let Some(uid) = identity.uid().filter(|uid| *uid != 0) else { return };
    if let Some(key) = identity.key() {
        scene.ledger().used(key);
    }
    if identity.bounds()[1].is_some_and(|bounds| bounds.credits().is_some()) {
        scene.ledger().spent(uid);
    }
}

fn taken_of(
    bounds: [Option<&Arc<Bounds>>; 4],
    scene: &RequestContext,
    request: &Request<'_>,
    taken: Mode,
) -> Result<Quota, Denial> {
    // Who has used up what a key may take can still revoke it.
    if bounds.iter().all(Option::is_none) || request.face == Face::Admin {
        return Ok(Quota::default());
    }
    let now = scene.ledger().now();
    let mut said = Vec::new();
    for (at, one) in bounds.iter().enumerate() {
        let Some(one) = one else { continue };
        let whose = NAMES[at];
        if !one.take(now, taken, |reading| said.push(Said { whose, reading })) {
            if taken == Mode::Live {
                bounds[..at].iter().flatten().for_each(|one| one.give_back(now));
            }
            return Err(denial(&said));
        }
    }
    Ok(Quota(said))
}

/// The limits that a request is under, the narrowest first.
fn bounds<'a>(identity: &'a Identity<'_>, rule: Option<&'a Rule>) -> [Option<&'a Arc<Bounds>>; 4] {
    let [key, user] = identity.bounds();
    let application = identity.application().and_then(|one| one.bounds.as_ref());
    [key, user, application, rule.and_then(|rule| rule.bounds.as_ref())]
}

fn denial(said: &[Said]) -> Denial {
    let spent = said.iter().filter(|one| !one.reading.fits);
    let Some(last) = spent.max_by_key(|one| one.reading.next) else {
        // Not reached: somebody has refused.
        return refused("RATE_LIMITED", "Too many requests.".into(), 1);
    };
    let seconds = last.reading.next.max(1);
    let denial = match last.reading.is_credits {
        true => {
            let text = format!("All credits are used up. They come back in {seconds} seconds.");
            refused("CREDITS_USED_UP", text, seconds)
        }
        false => {
            let text = format!("Too many requests. Try again in {seconds} seconds.");
            refused("RATE_LIMITED", text, seconds)
        }
    };
    let mut headers = HeaderMap::new();
    write(said, &mut headers);
    denial.with_headers(headers).with_detail(format!("the limit of the {} is reached", last.whose))
}

fn refused(code: &'static str, text: String, seconds: u64) -> Denial {
    Denial::new(Phase::Permit, StatusCode::TOO_MANY_REQUESTS, code, text)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}

impl Quota {
    /// Adds the header fields that tell it. Those that are there already, of an application behind, stay: both are lists.
    pub fn write(&self, headers: &mut HeaderMap) {
        if !self.0.is_empty() {
            write(&self.0, headers);
        }
    }

    /// What each limit says: `key: 99 of 100 in 60 s are left`.
    pub(super) fn told(&self) -> Vec<String> {
        let told = |Said { whose, reading }: &Said| {
            let Reading { left, quota, window, .. } = reading;
            let what = if reading.is_credits { " credits" } else { "" };
            format!("{whose}: {left} are left; {quota}{what} in {window} s")
        };
        self.0.iter().map(told).collect()
    }
}

fn write(said: &[Said], headers: &mut HeaderMap) {
    let (mut policy, mut limit) = (String::new(), String::new());
    for Said { whose, reading } in said {
        let comma = if policy.is_empty() { "" } else { ", " };
        let kind = if reading.is_credits { "-credits" } else { "" };
        let Reading { quota, window, left, next, .. } = reading;
        // Writing into text does not fail.
        let _ = write!(policy, "{comma}\"{whose}{kind}\";q={quota};w={window}");
        if let Some(burst) = reading.burst {
            let _ = write!(policy, ";keyward-burst={burst}");
        }
        let _ = write!(limit, "{comma}\"{whose}{kind}\";r={left};t={next}");
    }
    for (name, text) in [(POLICY, policy), (LIMIT, limit)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_application_behind_says_of_its_own_limits_stays() {
        let reading = Reading {
            is_credits: false,
            fits: true,
            quota: 100,
            window: 60,
            burst: Some(20),
            left: 19,
            next: 1,
        };
        let credits = Reading { is_credits: true, burst: None, left: 7, next: 9, ..reading };
        let quota =
            Quota(vec![Said { whose: "key", reading }, Said { whose: "user", reading: credits }]);
        let mut headers = HeaderMap::new();
        headers.insert(LIMIT, HeaderValue::from_static("\"own\";r=1"));
        Quota::default().write(&mut headers);
        quota.write(&mut headers);
        let all: Vec<_> = headers.get_all(LIMIT).iter().collect();
        assert_eq!(all, ["\"own\";r=1", "\"key\";r=19;t=1, \"user-credits\";r=7;t=9"]);
        assert_eq!(
            headers[POLICY],
            "\"key\";q=100;w=60;keyward-burst=20, \"user-credits\";q=100;w=60"
        );
    }
}
