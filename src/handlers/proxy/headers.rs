//! The rules for header fields of requests and responses: which fields are passed on, removed or
//! replaced.

use std::{fmt::Write as _, net::IpAddr};

use ::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
};

use crate::handlers::{
    Hop,
    identity::{IdentityFields, has_similar_prefix, is_similar},
    is_override,
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// A client could misuse these fields: they change the client address that the upstream sees.
const OVERRIDE_HEADERS: &[&str] = &["x-real-ip"];

/// Whether only Keyward may send a field of this name, or a similar name, to an upstream.
pub(super) fn is_reserved(name: &HeaderName, fields: &IdentityFields) -> bool {
    let text = name.as_str();
    *name == FORWARDED
        || has_similar_prefix(text, FORWARDED_PREFIX)
        || OVERRIDE_HEADERS.iter().any(|known| is_similar(text, known))
        || is_override(name)
        || fields.covers(name)
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

/// Adds this hop to `Forwarded` and the `X-Forwarded-*` fields. The client's own values are kept
/// only if the peer is a trusted proxy.
pub(super) fn add_forwarded(from: &HeaderMap, hop: &Hop<'_>, to: &mut HeaderMap) {
    let earlier = |name: &HeaderName| {
        let values = from.get_all(name).iter().filter(|_| hop.is_trusted);
        values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ")
    };
    let mut insert = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            to.insert(name, value);
        }
    };
    let peer = hop.peer.to_canonical();
    let chain = earlier(&FORWARDED_FOR);
    let comma = if chain.is_empty() { "" } else { ", " };
    insert(FORWARDED_FOR, format!("{chain}{comma}{peer}"));
    let or_default =
        |given: String, default: &str| if given.is_empty() { default.to_owned() } else { given };
    insert(FORWARDED_PROTO, or_default(earlier(&FORWARDED_PROTO), hop.scheme.name()));
    insert(FORWARDED_HOST, or_default(earlier(&FORWARDED_HOST), hop.authority));

    let mut elements = earlier(&FORWARDED);
    if !elements.is_empty() {
        elements.push_str(", ");
    }
    let node = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    // An authority needs no escaping, because it contains neither quotes nor backslashes. Writing
    // to a `String` cannot fail.
    let (host, proto) = (hop.authority, hop.scheme.name());
    let _ = write!(elements, "for={node};host=\"{host}\";proto={proto}");
    insert(FORWARDED, elements);
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
