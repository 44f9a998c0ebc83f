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
use crate::handlers::{identity::IdentityFields, is_override};

/// Whether only Keyward may send a field of this name, or a similar name, to an upstream.
pub(super) fn is_reserved(name: &HeaderName, fields: &IdentityFields) -> bool {
    forwarded::is_claim(name) || is_override(name) || fields.covers(name)
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
