//! The rules for header fields of requests and responses: which fields are passed on, removed or
//! replaced.

use ::http::{
    HeaderMap, HeaderName,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::forwarded;

use crate::{
    directory::Directory,
    handlers::identity::{IdentityFields, is_similar},
    pipeline::{AUTH_METHOD, Identity},
};

/// A client could misuse these fields. They can change the URL or the method that the upstream uses
/// after Keyward has checked the request.
const OVERRIDE_HEADERS: &[&str] = &[
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Whether only Keyward may send a field of this name, or a similar name, to an upstream.
pub(super) fn is_reserved(name: &HeaderName, fields: &IdentityFields) -> bool {
    let text = name.as_str();
    forwarded::is_claim(name)
        || OVERRIDE_HEADERS.iter().any(|known| is_similar(text, known))
        || fields.covers(name)
}

/// Whether a field of this name must not be in a trailer section (RFC 9110, section 6.5.1): the
/// field decides about the length, the route, the meaning or the sender of a message.
pub(super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    const FORBIDDEN: [&str; 22] = [
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "www-authenticate",
    ];
    FORBIDDEN.contains(&name.as_str())
}

/// The fields that apply to one hop only (RFC 9110, section 7.6.1): the fields that `Connection`
/// names, and a fixed list.
pub(super) struct HopFields(Vec<HeaderName>);

impl HopFields {
    pub fn of(headers: &HeaderMap) -> Self {
        let names = tokens(headers, &CONNECTION)
            .filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            // The most common options of `Connection` are not names of fields.
            .filter(|name| *name != "close" && *name != "keep-alive");
        Self(names.collect())
    }

    pub fn contains(&self, name: &HeaderName) -> bool {
        const ALWAYS: [HeaderName; 6] =
            [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];
        ALWAYS.contains(name)
            || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str())
            || self.0.contains(name)
    }
}

/// The client's header fields, without the fields of this hop and the fields that Keyward writes.
pub(super) fn passed_on(from: &HeaderMap, fields: &IdentityFields) -> HeaderMap {
    let hop_fields = HopFields::of(from);
    let mut to = HeaderMap::with_capacity(from.keys_len() + 12);
    for (name, value) in from {
        // `OutgoingRequest` writes `Expect` again if the upload waits for a `100 Continue`.
        let is_rewritten = [&HOST, &CONTENT_LENGTH, &EXPECT].contains(&name);
        if !is_rewritten && !hop_fields.contains(name) && !is_reserved(name, fields) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

/// The name of the header field with the client's credential.
///
/// The identity has no application if the application is disabled. The client can still send a
/// credential in the header field of that application, so the function looks up the application by
/// the request.
pub(super) fn credential_field(
    directory: &Directory,
    headers: &HeaderMap,
    identity: &Identity<'_>,
) -> Option<HeaderName> {
    if let Some(application) = identity.application() {
        return Some(application.header.clone());
    }
    let policy = directory.policy();
    let requested_id = headers.get(AUTH_METHOD).and_then(|value| value.to_str().ok());
    let application = match requested_id {
        Some(id) => policy.applications.get(id.trim()),
        None => policy.applications.default(),
    };
    application.map(|application| application.header.clone())
}

/// The comma-separated tokens of a field.
pub(super) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|other| other.eq_ignore_ascii_case(token))
}
