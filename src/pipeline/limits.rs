//! The last step of phase 5: consumes one request from each limit that applies.
//!
//! This step runs only after all other checks have passed, so a request that is refused for another
//! reason consumes nothing.
//!
//! The response reports the limits in two header fields (draft-ietf-httpapi-ratelimit-headers).
//! `RateLimit-Policy` contains the limits. `RateLimit` contains the requests that each limit has
//! left.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Denial, Face, Identity, Phase, Request, RequestContext};
use crate::{
    directory::Rule,
    limits::{Bounds, LimitStatus},
    model::Mode,
};

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The kinds of records that have limits, in the order in which [`applicable_limits`] returns the
/// limits.
const OWNERS: [&str; 4] = ["key", "user", "application", "resource"];

/// The status of the limits that apply to a request. For most requests the list is empty.
#[derive(Debug, Clone, Default)]
pub struct Quota(Vec<OwnerStatus>);

/// The status of one limit, with the kind of record that has the limit.
#[derive(Debug, Clone, Copy)]
struct OwnerStatus {
    owner: &'static str,
    status: LimitStatus,
}

/// Consumes one request from each limit that applies, and counts the use of the key.
///
/// # Errors
/// A limit is used up. In this case nothing is consumed from the other limits.
pub(super) fn consume(
    context: &RequestContext,
    request: &Request<'_>,
    identity: &Identity<'_>,
    rule: Option<&Rule>,
) -> Result<Quota, Denial> {
    let quota = take_from_all(applicable_limits(identity, rule), context, request)?;
    if context.mode == Mode::Live {
        count_use(context, identity);
    }
    Ok(quota)
}

/// Consumes one request from the limit of a resource, for a request that has consumed one from the
/// limits of its key, user and application already.
///
/// # Errors
/// The limit is used up.
pub(super) fn consume_of_resource(
    context: &RequestContext,
    request: &Request<'_>,
    rule: Option<&Rule>,
) -> Result<Quota, Denial> {
    let bounds = rule.and_then(|rule| rule.bounds.as_ref());
    take_from_all([None, None, None, bounds], context, request)
}

/// Counts the use of the key and of the user's credits in memory. A background task writes the
/// counts to the store later.
fn count_use(context: &RequestContext, identity: &Identity<'_>) {
    // The operator (uid 0) is not in the store.
    let Some(uid) = identity.uid().filter(|uid| *uid != 0) else { return };
    if let Some(key) = identity.key() {
        context.counters().used(key);
    }
    if identity.bounds()[1].is_some_and(|bounds| bounds.credits().is_some()) {
        context.counters().spent(uid);
    }
}

fn take_from_all(
    bounds: [Option<&Arc<Bounds>>; 4],
    context: &RequestContext,
    request: &Request<'_>,
) -> Result<Quota, Denial> {
    // The admin API has no limits, so that a user can revoke a key whose limit is used up.
    if bounds.iter().all(Option::is_none) || request.face == Face::Admin {
        return Ok(Quota::default());
    }
    let now = context.counters().now();
    let mut statuses = Vec::new();
    for (index, bound) in bounds.iter().enumerate() {
        let Some(bound) = bound else { continue };
        let owner = OWNERS[index];
        if !bound.take(now, context.mode, |status| statuses.push(OwnerStatus { owner, status })) {
            if context.mode == Mode::Live {
                bounds[..index].iter().flatten().for_each(|taken| taken.give_back(now));
            }
            return Err(limit_reached(&statuses));
        }
    }
    Ok(Quota(statuses))
}

/// The limits that apply to a request: the limits of the key, the user, the application and the
/// resource, in this order.
fn applicable_limits<'a>(
    identity: &'a Identity<'_>,
    rule: Option<&'a Rule>,
) -> [Option<&'a Arc<Bounds>>; 4] {
    let [key, user] = identity.bounds();
    let application = identity.application().and_then(|application| application.bounds.as_ref());
    [key, user, application, rule.and_then(|rule| rule.bounds.as_ref())]
}

fn limit_reached(statuses: &[OwnerStatus]) -> Denial {
    let reached = statuses.iter().filter(|entry| !entry.status.fits);
    let Some(last) = reached.max_by_key(|entry| entry.status.next) else {
        // Unreachable: this function is called only after a limit has refused the request.
        return too_many_requests("RATE_LIMITED", "Too many requests.".into(), 1);
    };
    let seconds = last.status.next.max(1);
    let denial = if last.status.is_credits {
        let message = format!("All credits are used up. They come back in {seconds} seconds.");
        too_many_requests("CREDITS_USED_UP", message, seconds)
    } else {
        let message = format!("Too many requests. Try again in {seconds} seconds.");
        too_many_requests("RATE_LIMITED", message, seconds)
    };
    let mut headers = HeaderMap::new();
    write_fields(statuses, &mut headers);
    denial
        .with_headers(headers)
        .with_internal_message(format!("the limit of the {} is reached", last.owner))
}

fn too_many_requests(code: &'static str, message: String, seconds: u64) -> Denial {
    Denial::new(Phase::Permit, StatusCode::TOO_MANY_REQUESTS, code, message)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}

impl Quota {
    /// Adds the header fields. Fields that the upstream application has set stay in the response,
    /// because the values of both fields are lists.
    pub fn write(&self, headers: &mut HeaderMap) {
        if !self.0.is_empty() {
            write_fields(&self.0, headers);
        }
    }

    /// Adds the limits from which a guard behind this one has consumed.
    pub(crate) fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Adds the limits to the header fields of a denial of Keyward, so that each field stays one
    /// list.
    pub(crate) fn write_into_denial(&self, headers: &mut HeaderMap) {
        if self.0.is_empty() {
            return;
        }
        let denied = [RATELIMIT_POLICY, RATELIMIT].map(|name| (headers.remove(&name), name));
        write_fields(&self.0, headers);
        for (value, name) in denied {
            let (Some(value), Some(own)) = (value, headers.get(&name)) else { continue };
            let joined = [own.as_bytes(), b", ", value.as_bytes()].concat();
            if let Ok(joined) = HeaderValue::try_from(joined) {
                headers.insert(name, joined);
            }
        }
    }

    /// The status of each limit in words, such as `key: 99 left; 100 in 60 s`.
    pub(super) fn describe(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|OwnerStatus { owner, status }| {
            let LimitStatus { left, quota, window, .. } = status;
            let unit = if status.is_credits { " credits" } else { "" };
            format!("{owner}: {left} left; {quota}{unit} in {window} s")
        })
    }
}

fn write_fields(statuses: &[OwnerStatus], headers: &mut HeaderMap) {
    let (mut policy, mut limit) = (String::new(), String::new());
    for OwnerStatus { owner, status } in statuses {
        let comma = if policy.is_empty() { "" } else { ", " };
        let suffix = if status.is_credits { "-credits" } else { "" };
        let LimitStatus { quota, window, left, next, .. } = status;
        // Writing to a `String` cannot fail.
        let _ = write!(policy, "{comma}\"{owner}{suffix}\";q={quota};w={window}");
        if let Some(burst) = status.burst {
            let _ = write!(policy, ";keyward-burst={burst}");
        }
        let _ = write!(limit, "{comma}\"{owner}{suffix}\";r={left};t={next}");
    }
    for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, limit)] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_an_application_behind_keyward_stay_in_the_header_fields() {
        const UPSTREAM: &str = "\"upstream\";r=1";
        let status = LimitStatus {
            is_credits: false,
            fits: true,
            quota: 100,
            window: 60,
            burst: Some(20),
            left: 19,
            next: 1,
        };
        let credits = LimitStatus { is_credits: true, burst: None, left: 7, next: 9, ..status };
        let quota = Quota(vec![
            OwnerStatus { owner: "key", status },
            OwnerStatus { owner: "user", status: credits },
        ]);
        let mut headers = HeaderMap::new();
        headers.insert(RATELIMIT, HeaderValue::from_static(UPSTREAM));
        Quota::default().write(&mut headers);
        quota.write(&mut headers);
        let all: Vec<_> = headers.get_all(RATELIMIT).iter().collect();
        assert_eq!(all, [UPSTREAM, "\"key\";r=19;t=1, \"user-credits\";r=7;t=9"]);
        assert_eq!(
            headers[RATELIMIT_POLICY],
            "\"key\";q=100;w=60;keyward-burst=20, \"user-credits\";q=100;w=60"
        );
    }
}
