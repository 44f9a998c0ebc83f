//! The request for an upstream: the checked method and path, the user's identity, and no header
//! field with which a client could override method, path or identity.

use ::http::{
    HeaderMap, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, UPGRADE},
    uri::PathAndQuery,
};

use super::{
    endpoint::Endpoint,
    error::ProxyError,
    forwarded,
    headers::{credential_field, has_token, passed_on, tokens},
    upload::{Expectation, Upload},
};
use crate::{
    handlers::{HandlerRequest, Handlers, Hop},
    model::{Protocol, Proxy},
    pipeline::AUTH_METHOD,
};

/// A request that can be sent to any upstream.
pub(super) struct OutgoingRequest<'a> {
    method: &'a Method,
    /// The path without the stripped prefix: empty, or beginning with a slash.
    path: &'a str,
    query: Option<&'a str>,
    headers: HeaderMap,
    hop: Hop<'a>,
    preserves_host: bool,
    upgrade: Option<HeaderValue>,
    accepts_trailers: bool,
    has_empty_length: bool,
    expectation: Expectation,
}

impl<'a> OutgoingRequest<'a> {
    /// `can_upgrade` says whether the client's connection can change its protocol.
    pub fn new(
        handlers: &Handlers,
        incoming: &HandlerRequest<'a>,
        proxy: &Proxy,
        can_upgrade: bool,
    ) -> Self {
        let (request, identity) = (&incoming.request, incoming.grant.identity());
        let is_http1 = proxy.protocol == Protocol::Http1;
        let upgrade =
            if is_http1 && can_upgrade { requested_upgrade(request.headers, proxy) } else { None };
        let expects_continue = request
            .headers
            .get(EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let mut headers = passed_on(request.headers, &handlers.identity_fields);
        if !proxy.keep_credential {
            headers.remove(AUTH_METHOD);
            let directory = handlers.accounts.directory();
            if let Some(name) = credential_field(directory, request.headers, identity) {
                headers.remove(name);
            }
        }
        handlers.identity_fields.write(identity, &mut headers);
        let path = strip_prefix(request.path, proxy.strip_prefix.as_deref());
        let removed = request.path.strip_suffix(path).unwrap_or_default();
        forwarded::write(&incoming.hop, proxy, removed, &mut headers);
        Self {
            method: request.method,
            path,
            query: request.query,
            headers,
            hop: incoming.hop,
            preserves_host: proxy.preserve_host,
            upgrade,
            accepts_trailers: has_token(request.headers, &TE, "trailers"),
            has_empty_length: has_empty_length(request.headers),
            expectation: if expects_continue && is_http1 {
                Expectation::Continue
            } else {
                Expectation::None
            },
        }
    }

    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The requested protocol, if the resource allows it.
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
        let host = if self.preserves_host {
            HeaderValue::from_str(self.hop.authority).map_err(|_| ProxyError::InvalidTarget)?
        } else {
            to.host.clone()
        };
        if self.accepts_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        self.set_length(&mut headers, &upload);
        let mut request = Request::new(upload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = match to.protocol {
            Protocol::Http1 => {
                self.add_http1_fields(&mut headers, host);
                target.into()
            }
            Protocol::Http2 => {
                *request.version_mut() = Version::HTTP_2;
                Uri::builder()
                    .scheme(to.scheme())
                    .authority(host.as_bytes())
                    .path_and_query(target)
                    .build()
                    .map_err(|_| ProxyError::InvalidTarget)?
            }
        };
        *request.headers_mut() = headers;
        if self.expectation == Expectation::Continue
            && let Some(progress) = request.body().progress()
        {
            request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == ::http::StatusCode::CONTINUE {
                    progress.upstream_continues();
                }
            });
        }
        Ok(request)
    }

    /// Sets `Content-Length` to the body's length, if the body has a known length. A request
    /// without a body has no length, unless the client sent one (RFC 9110, section 8.6).
    fn set_length(&self, headers: &mut HeaderMap, upload: &Upload) {
        use hyper::body::Body as _;
        let empty_length = self.has_empty_length.then_some(0);
        let length = if upload.is_empty() { empty_length } else { upload.size_hint().exact() };
        if let Some(length) = length {
            headers.insert(CONTENT_LENGTH, length.into());
        }
    }

    fn add_http1_fields(&self, headers: &mut HeaderMap, host: HeaderValue) {
        headers.insert(HOST, host);
        join_cookies(headers);
        let connection = match (&self.upgrade, self.accepts_trailers) {
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
            .map_err(|_| ProxyError::InvalidTarget)
    }
}

/// Removes a prefix that ends at a segment. The path pattern guarantees such a prefix, but this
/// function does not rely on that guarantee.
fn strip_prefix<'a>(path: &'a str, prefix: Option<&str>) -> &'a str {
    let rest = prefix.and_then(|prefix| path.strip_prefix(prefix));
    rest.filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path)
}

/// The first protocol in `Upgrade` that the resource allows.
fn requested_upgrade(headers: &HeaderMap, proxy: &Proxy) -> Option<HeaderValue> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    tokens(headers, &UPGRADE)
        .filter(|name| proxy.upgrades.contains(&name.to_ascii_lowercase()))
        .find_map(|name| HeaderValue::from_str(name).ok())
}

/// Whether the client sent a length of 0, which is not the same as no body.
fn has_empty_length(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_LENGTH).is_some_and(|value| value.as_bytes().iter().all(|b| *b == b'0'))
}

/// Joins `Cookie` fields, which HTTP/2 may split, into the single field of HTTP/1.1 (RFC 9113,
/// section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}
