//! The responses of the API: JSON with an `ETag`, and denials for errors of reading or changing
//! records.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION},
};
use serde_json::Value;

use crate::{
    accounts::AccountError,
    directory::OpenedGuard,
    handlers::{Payload, PayloadResponse},
    model::Violation,
    pipeline::{Denial, Phase, script_denial},
    store::{Sequence, StoreError},
};

/// The header field of a response with advice about the change, in UTF-8.
pub const WARNING_FIELD: HeaderName = HeaderName::from_static("keyward-warning");
/// The maximum number of these fields in a response.
const MAX_WARNINGS: usize = 16;

/// The error type of a closure that edits a record. The type wraps a denial, and can be converted
/// from an [`AccountError`], as the methods of [`Writer`](crate::accounts::Writer) require.
pub(super) struct ChangeDenial(pub Denial);

impl From<AccountError> for ChangeDenial {
    fn from(problem: AccountError) -> Self {
        Self(denial(problem))
    }
}

impl From<Denial> for ChangeDenial {
    fn from(denial: Denial) -> Self {
        Self(denial)
    }
}

impl From<ChangeDenial> for Denial {
    fn from(refusal: ChangeDenial) -> Self {
        refusal.0
    }
}

pub(super) fn json(status: StatusCode, body: &Value) -> PayloadResponse {
    let mut response = Response::new(Payload::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A response with a record. Its `ETag` is the record's revision, which is a strong validator
/// (RFC 9110, section 8.8.3).
pub(super) fn record(status: StatusCode, body: &Value, revision: Sequence) -> PayloadResponse {
    let mut response = json(status, body);
    if let Ok(etag) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}

/// A response with a new record. Its `Location` is the path of the record.
pub(super) fn created(body: &Value, revision: Sequence, location: &str) -> PayloadResponse {
    let mut response = record(StatusCode::CREATED, body, revision);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Adds the advice about a change, one header field for each sentence. The body stays the record,
/// so that clients can send it back.
pub(super) fn with_warnings(mut response: PayloadResponse, advice: &[String]) -> PayloadResponse {
    for sentence in advice.iter().take(MAX_WARNINGS) {
        if let Ok(value) = HeaderValue::from_bytes(sentence.as_bytes()) {
            response.headers_mut().append(WARNING_FIELD, value);
        }
    }
    response
}

pub(super) fn no_content() -> PayloadResponse {
    let mut response = Response::new(Payload::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// The revision that `If-Match` requires. `None` means that any revision is accepted. `current`
/// returns the current revision. It is called only if `If-Match` lists tags, and the number of
/// revisions among them is not one.
pub(super) fn expected_revision(
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
    // Weak tags are left out, because they never match (RFC 9110, section 8.8.3.2). Tags that are
    // not numbers are left out, because no record has such a revision.
    let revision = |tag: &&str| tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok();
    let listed: Vec<Sequence> = tags.iter().filter_map(revision).collect();
    Ok(Some(match listed.as_slice() {
        [revision] => *revision,
        // No record has the revision `Sequence::MAX`, so the change will be refused.
        several => current().filter(|current| several.contains(current)).unwrap_or(Sequence::MAX),
    }))
}

fn malformed() -> Denial {
    let message = "If-Match must be the ETag of the record, with its quotation marks, or *.";
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_IF_MATCH", message)
}

pub(super) fn forbidden(message: &'static str) -> Denial {
    Denial::message(Phase::Handler, StatusCode::FORBIDDEN, "ACCESS_DENIED", message)
}

pub(super) fn not_found(what: &str, id: impl std::fmt::Display) -> Denial {
    let message = format!("There is no {what} {id}.");
    Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "NOT_FOUND", message)
}

/// The denial that reports an error of reading or changing records.
pub(super) fn denial(problem: AccountError) -> Denial {
    let deny =
        |status, code, message: String| Denial::message(Phase::Handler, status, code, message);
    match problem {
        AccountError::NotFound { what, id } => not_found(what, id),
        AccountError::Invalid(violations) => invalid(violations),
        AccountError::Stale { current } => deny(
            StatusCode::PRECONDITION_FAILED,
            "PRECONDITION_FAILED",
            format!(
                "The record has changed, and its ETag is now \"{current}\". Read the record again."
            ),
        ),
        AccountError::Refused { message, fix } => {
            deny(StatusCode::CONFLICT, "CONFLICT", format!("{message} {fix}"))
        }
        AccountError::AdminOnly => {
            deny(StatusCode::FORBIDDEN, "ACCESS_DENIED", AccountError::AdminOnly.to_string())
        }
        AccountError::Forbidden { rule } => deny(StatusCode::FORBIDDEN, "ACCESS_DENIED", rule),
        AccountError::Script(fault) => script_denial(fault),
        AccountError::Busy => deny(
            StatusCode::SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "Too many passwords are being checked. Try again in a moment.".into(),
        )
        .with_retry_after(1),
        AccountError::AuditTrail(problem) => deny(
            StatusCode::INTERNAL_SERVER_ERROR,
            "AUDIT_TRAIL_BROKEN",
            format!("{problem} Verify the trail, and compare it with a backup."),
        ),
        AccountError::Store(StoreError::Cancelled) => deny(
            StatusCode::SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "The work was cancelled. Nothing was changed.".into(),
        )
        .with_retry_after(1),
        AccountError::Store(problem) => deny(
            StatusCode::SERVICE_UNAVAILABLE,
            "STORE_UNAVAILABLE",
            "The store cannot be read or written at the moment. See the server's log.".into(),
        )
        .with_internal_message(problem.to_string())
        .with_retry_after(5),
    }
}

/// The denial of a change that would open guarded paths.
pub(super) fn opens_guarded(opened: &[OpenedGuard]) -> Denial {
    let message = "The change opens paths that other resources guard. Nothing was changed. To open \
                   them knowingly, repeat the request with opens_guarded=true, or the command with \
                   --opens-guarded.";
    let entry = |opened: &OpenedGuard| Violation::new("path", opened.to_string(), "");
    Denial::message(Phase::Handler, StatusCode::CONFLICT, "OPENS_GUARDED", message)
        .with_violations(opened.iter().map(entry).collect())
}

/// The denial of an invalid record, with all its violations.
pub(super) fn invalid(violations: Vec<Violation>) -> Denial {
    let message = match violations.len() {
        1 => "The record is invalid.".to_owned(),
        count => format!("The record is invalid in {count} places."),
    };
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID", message)
        .with_violations(violations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &[&str], current: Option<Sequence>) -> Result<Option<Sequence>, u16> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(IF_MATCH, HeaderValue::from_str(field).unwrap());
        }
        expected_revision(&headers, || current).map_err(|denial| denial.status.as_u16())
    }

    #[test]
    fn if_match_selects_one_revision() {
        assert_eq!(parse(&[], None), Ok(None));
        assert_eq!(parse(&["*"], None), Ok(None));
        assert_eq!(parse(&["\"7\""], None), Ok(Some(7)));
        assert_eq!(parse(&["\"6\", \"7\""], Some(7)), Ok(Some(7)));
        assert_eq!(parse(&["\"6\"", "\"7\""], Some(7)), Ok(Some(7)));
        assert_eq!(parse(&["\"6\", \"7\""], Some(8)), Ok(Some(Sequence::MAX)));
        // A weak tag and a tag that is not a revision number match no record.
        for field in ["W/\"7\"", "\"x\"", "\"\"", "\"-7\""] {
            assert_eq!(parse(&[field], Some(7)), Ok(Some(Sequence::MAX)), "{field}");
        }
        for field in ["7", "\"7", "\"", "7\"", "*, \"7\""] {
            assert_eq!(parse(&[field], Some(7)), Err(400), "{field}");
        }
    }
}
