//! The head of a request as an upstream gets it: what was checked, who asks, and nothing that a client could put in the place of either.

use std::{fmt::Write as _, net::IpAddr};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
    },
    uri::PathAndQuery,
};

use super::{Endpoint, ProxyError, Upload, upload::Expectation};
use crate::{
    handlers::{
        Call, Handlers, Hop,
        identity::{IdentityFields, is_like},
    },
    model::{Protocol, Proxy},
    pipeline::{AUTH_METHOD, Identity},
};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// With these a client could have the upstream do something else than what was checked, or be somebody else for it.
const OVERRIDE_HEADERS: &[&str] = &[
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
];
const FORWARDED_BEGINNING: &str = "x-forwarded-";

/// A request that is to be sent, whichever upstream it goes to.
pub(super) struct Outgoing<'a> {
    method: &'a Method,
    /// The path, without what is stripped; empty, or from a slash on.
    path: &'a str,
    query: Option<&'a str>,
    headers: HeaderMap,
    hop: Hop<'a>,
    is_host_kept: bool,
    upgrade: Option<HeaderValue>,
    takes_trailers: bool,
    expectation: Expectation,
}

impl<'a> Outgoing<'a> {
    /// `can_upgrade` says whether the client's connection can change its protocol.
    pub fn of(handlers: &Handlers, call: &Call<'a>, proxy: &Proxy, can_upgrade: bool) -> Self {
        let request = &call.request;
        let upgrade = match proxy.protocol {
            Protocol::Http1 if can_upgrade => wanted_upgrade(request.headers, proxy),
            _ => None,
        };
        let is_asking = request.headers.get(EXPECT).is_some_and(|value| {
            value.as_bytes().eq_ignore_ascii_case(b"100-continue")
                && proxy.protocol == Protocol::Http1
        });
        let mut headers = passed_on(request.headers, &handlers.fields);
        if !proxy.keep_credential {
            headers.remove(AUTH_METHOD);
            if let Some(name) = credential(handlers, request.headers, call.grant.identity()) {
                headers.remove(name);
            }
        }
        handlers.fields.write(call.grant.identity(), &mut headers);
        forwarded(request.headers, &call.hop, &mut headers);
        Self {
            method: request.method,
            path: without(request.path, proxy.strip_prefix.as_deref()),
            query: request.query,
            headers,
            hop: call.hop,
            is_host_kept: proxy.preserve_host,
            upgrade,
            takes_trailers: has_token(request.headers, &TE, "trailers"),
            expectation: if is_asking { Expectation::Continue } else { Expectation::None },
        }
    }

    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The protocol that the client wants to change to, and may.
    pub fn upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref()
    }

    pub fn expectation(&self) -> Expectation {
        self.expectation
    }

    /// The request for one upstream.
    pub fn request(&self, to: &Endpoint, upload: Upload) -> Result<Request<Upload>, ProxyError> {
        let target = self.target(to.base())?;
        let mut headers = self.headers.clone();
        let host = match self.is_host_kept {
            true => {
                HeaderValue::from_str(self.hop.authority).map_err(|_| ProxyError::Unwritable)?
            }
            false => to.host.clone(),
        };
        if self.takes_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        set_length(&mut headers, &upload);
        let mut request = Request::new(upload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = match to.protocol {
            Protocol::Http1 => {
                self.for_http1(&mut headers, host);
                target.into()
            }
            Protocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                Uri::builder()
                    .scheme(to.scheme())
                    .authority(host.as_bytes())
                    .path_and_query(target)
                    .build()
                    .map_err(|_| ProxyError::Unwritable)?
            }
        };
        *request.headers_mut() = headers;
        if self.expectation == Expectation::Continue
            && let Some(progress) = request.body().progress()
        {
            request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == ::http::StatusCode::CONTINUE {
                    progress.is_wanted();
                }
            });
        }
        Ok(request)
    }

    fn for_http1(&self, headers: &mut HeaderMap, host: HeaderValue) {
        headers.insert(HOST, host);
        join_cookies(headers);
        let connection = match (&self.upgrade, self.takes_trailers) {
            (Some(upgrade), _) => {
                headers.insert(UPGRADE, upgrade.clone());
                "upgrade"
            }
            (None, true) => "te",
            (None, false) => return,
        };
        headers.insert(CONNECTION, HeaderValue::from_static(connection));
    }

    fn target(&self, base: &str) -> Result<PathAndQuery, ProxyError> {
        let query = self.query.unwrap_or_default();
        let mut text = String::with_capacity(base.len() + self.path.len() + query.len() + 2);
        text.push_str(base);
        text.push_str(self.path);
        if text.is_empty() {
            text.push('/');
        }
        if self.query.is_some() {
            text.push('?');
            text.push_str(query);
        }
        PathAndQuery::from_maybe_shared(bytes::Bytes::from(text))
            .map_err(|_| ProxyError::Unwritable)
    }
}

/// A path without its beginning.
fn without<'a>(path: &'a str, prefix: Option<&str>) -> &'a str {
    let rest = prefix.and_then(|prefix| path.strip_prefix(prefix));
    // The pattern sees to it that the prefix is there, in whole segments; this does once more.
    rest.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path)
}

/// The client's header fields, without those that are for this hop alone and those that are ours to write.
fn passed_on(from: &HeaderMap, fields: &IdentityFields) -> HeaderMap {
    let hops = Hops::of(from);
    let mut to = HeaderMap::with_capacity(from.keys_len() + 12);
    for (name, value) in from {
        let is_written_anew = [&HOST, &CONTENT_LENGTH, &EXPECT].contains(&name);
        if !is_written_anew && !hops.has(name) && !is_ours(name, fields) {
            to.append(name.clone(), value.clone());
        }
    }
    to
}

/// Whether a field tells an upstream something that only we may tell it.
pub(super) fn is_ours(name: &HeaderName, fields: &IdentityFields) -> bool {
    let text = name.as_str();
    let is_forwarded = text
        .get(..FORWARDED_BEGINNING.len())
        .is_some_and(|start| is_like(start, FORWARDED_BEGINNING));
    *name == FORWARDED
        || is_forwarded
        || OVERRIDE_HEADERS.iter().any(|one| is_like(text, one))
        || fields.covers(name)
}

/// The fields that are for one hop alone (RFC 9110, section 7.6.1): those that `Connection` names, and those that always are.
pub(super) struct Hops(Vec<HeaderName>);

impl Hops {
    pub fn of(headers: &HeaderMap) -> Self {
        let options = headers.get_all(CONNECTION).iter();
        let names = options
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // The commonest options are no fields.
            .filter(|name| *name != "close" && *name != "keep-alive");
        Self(names.collect())
    }

    pub fn has(&self, name: &HeaderName) -> bool {
        const ALWAYS: [HeaderName; 6] =
            [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION];
        ALWAYS.contains(name)
            || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str())
            || self.0.contains(name)
    }
}

/// The field with the client's credential. Where its application is switched off, nobody has looked at it, and it is one all the same.
fn credential(
    handlers: &Handlers,
    headers: &HeaderMap,
    identity: &Identity<'_>,
) -> Option<HeaderName> {
    if let Some(application) = identity.application() {
        return Some(application.header.clone());
    }
    let policy = handlers.accounts.directory().policy();
    let named = headers.get(AUTH_METHOD).and_then(|value| value.to_str().ok());
    let application = match named {
        Some(id) => policy.applications.get(id.trim()),
        None => policy.applications.default(),
    };
    application.map(|held| held.header.clone())
}

/// Adds this hop to the way that the request came. What an unknown client says of hops before is left out.
fn forwarded(from: &HeaderMap, hop: &Hop<'_>, to: &mut HeaderMap) {
    let before = |name: &HeaderName| {
        let values = from.get_all(name).iter().filter(|_| hop.is_trusted);
        values.filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(", ")
    };
    let mut put = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            to.insert(name, value);
        }
    };
    let peer = hop.peer.to_canonical();
    let chain = before(&FOR);
    let comma = if chain.is_empty() { "" } else { ", " };
    put(FOR, format!("{chain}{comma}{peer}"));
    let or = |given: String, ours: &str| if given.is_empty() { ours.to_owned() } else { given };
    put(PROTO, or(before(&PROTO), hop.scheme.name()));
    put(FORWARDED_HOST, or(before(&FORWARDED_HOST), hop.authority));

    let mut elements = before(&FORWARDED);
    if !elements.is_empty() {
        elements.push_str(", ");
    }
    let node = match peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    // An authority holds neither quotes nor backslashes. Writing to a text cannot fail.
    let (host, proto) = (hop.authority, hop.scheme.name());
    let _ = write!(elements, "for={node};host=\"{host}\";proto={proto}");
    put(FORWARDED, elements);
}

/// What the client wants to change to, if it is one of those that the resource lets through.
fn wanted_upgrade(headers: &HeaderMap, proxy: &Proxy) -> Option<HeaderValue> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    let wanted = tokens(headers, &UPGRADE);
    wanted
        .filter(|name| proxy.upgrades.contains(&name.to_ascii_lowercase()))
        .find_map(|name| HeaderValue::from_str(name).ok())
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

/// The body says how long it is; the field says the same, or is not there.
fn set_length(headers: &mut HeaderMap, upload: &Upload) {
    use hyper::body::Body as _;
    if !upload.is_empty()
        && let Some(length) = upload.size_hint().exact()
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
}

/// HTTP/2 may split what HTTP/1.1 has in one piece (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(COOKIE).iter();
    if all.nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}
