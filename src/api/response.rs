//! The API's answers: JSON with its revision, and what the accounts refuse as problems.

use ::http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
};
use serde_json::Value;

use crate::{
    accounts::AccountError,
    handlers::{Payload, PayloadResponse},
    pipeline::{Denial, Phase, script_denial},
    store::Sequence,
};

/// What cannot be done, as a closure in the accounts returns it.
pub(super) struct Refusal(pub Denial);

impl From<AccountError> for Refusal {
    fn from(problem: AccountError) -> Self {
        Self(denial(problem))
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self(denial)
    }
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        refusal.0
    }
}

pub(super) fn json(status: StatusCode, body: &Value) -> PayloadResponse {
    let mut reply = Response::new(Payload::from(body.to_string()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// A record, with its revision as a strong validator (RFC 9110, section 8.8.3).
pub(super) fn record(status: StatusCode, body: &Value, revision: Sequence) -> PayloadResponse {
    let mut reply = json(status, body);
    if let Ok(etag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        reply.headers_mut().insert(ETAG, etag);
    }
    reply
}

/// A record that was made, and where it lies.
pub(super) fn made(body: &Value, revision: Sequence, location: &str) -> PayloadResponse {
    let mut reply = record(StatusCode::CREATED, body, revision);
    if let Ok(location) = HeaderValue::try_from(location) {
        reply.headers_mut().insert(LOCATION, location);
    }
    reply
}

pub(super) fn nothing() -> PayloadResponse {
    let mut reply = Response::new(Payload::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

/// Reads `If-Match`. `current` says what there is, for a field that names several revisions.
pub(super) fn expected(
    headers: &HeaderMap,
    current: impl FnOnce() -> Option<Sequence>,
) -> Result<Option<Sequence>, Denial> {
    let fields: Result<Vec<&str>, _> =
        headers.get_all(IF_MATCH).iter().map(HeaderValue::to_str).collect();
    let fields = fields.map_err(|_| malformed())?.join(",");
    let tags: Vec<&str> = fields.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
    if tags.is_empty() || tags == ["*"] {
        return Ok(None);
    }
    let quoted = |tag: &&str| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag.len() >= 2 && tag.starts_with('"') && tag.ends_with('"')
    };
    if !tags.iter().all(quoted) {
        return Err(malformed());
    }
    // Weak ones never match (RFC 9110, section 8.8.3.2), and what is not one of ours names no revision that ever was.
    let revision = |tag: &&str| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    let named: Vec<Sequence> = tags.iter().filter_map(revision).collect();
    Ok(Some(match named.as_slice() {
        [one] => *one,
        several => current().filter(|current| several.contains(current)).unwrap_or(Sequence::MAX),
    }))
}

fn malformed() -> Denial {
    let said = "If-Match must hold the ETag of the record, in its quotation marks, or *.";
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_IF_MATCH", said)
}

pub(super) fn forbidden(said: &'static str) -> Denial {
    Denial::message(Phase::Handler, StatusCode::FORBIDDEN, "ACCESS_DENIED", said)
}

pub(super) fn not_found(what: &str, id: impl std::fmt::Display) -> Denial {
    let said = format!("There is no {what} {id}.");
    Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "NOT_FOUND", said)
}

/// What the accounts refuse.
pub(super) fn denial(problem: AccountError) -> Denial {
    let of = |status, code, said: String| Denial::message(Phase::Handler, status, code, said);
    match problem {
        AccountError::NotFound { what, id } => not_found(what, id),
        AccountError::Invalid(violations) => invalid(violations),
        AccountError::Stale { current } => of(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            format!("The record was changed meanwhile: its ETag is \"{current}\". Get it again."),
        ),
        AccountError::Refused { message, fix } => {
            of(StatusCode::CONFLICT, "CONFLICT", format!("{message} {fix}"))
        }
        AccountError::AdminOnly => {
            of(StatusCode::FORBIDDEN, "ACCESS_DENIED", AccountError::AdminOnly.to_string())
        }
        AccountError::Script(fault) => script_denial(fault),
        AccountError::Busy => of(
            StatusCode::SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "Too many passwords are being checked. Try again in a moment.".into(),
        )
        .with_retry_after(1),
        AccountError::Store(problem) => of(
            StatusCode::SERVICE_UNAVAILABLE,
            "STORE_UNAVAILABLE",
            "The store cannot be read or written at the moment. The server's log says why.".into(),
        )
        .with_internal_message(problem.to_string())
        .with_retry_after(5),
    }
}

/// A record that is not in order, field by field.
pub(super) fn invalid(violations: Vec<crate::model::Violation>) -> Denial {
    let said = match violations.len() {
        1 => "The record is not in order.".to_owned(),
        count => format!("The record is not in order in {count} places."),
    };
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID", said)
        .with_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[&str], current: Option<Sequence>) -> Result<Option<Sequence>, u16> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(IF_MATCH, HeaderValue::from_str(field).unwrap());
        }
        expected(&headers, || current).map_err(|denial| denial.status.as_u16())
    }

    #[test]
    fn if_match_names_a_revision() {
        assert_eq!(of(&[], None), Ok(None));
        assert_eq!(of(&["*"], None), Ok(None));
        assert_eq!(of(&["\"7\""], None), Ok(Some(7)));
        assert_eq!(of(&["\"6\", \"7\""], Some(7)), Ok(Some(7)));
        assert_eq!(of(&["\"6\"", "\"7\""], Some(7)), Ok(Some(7)));
        assert_eq!(of(&["\"6\", \"7\""], Some(8)), Ok(Some(Sequence::MAX)));
        // None of these is the revision of anything.
        for field in ["W/\"7\"", "\"x\"", "\"\"", "\"-7\""] {
            assert_eq!(of(&[field], Some(7)), Ok(Some(Sequence::MAX)), "{field}");
        }
        for field in ["7", "\"7", "\"", "7\"", "*, \"7\""] {
            assert_eq!(of(&[field], Some(7)), Err(400), "{field}");
        }
    }
}
