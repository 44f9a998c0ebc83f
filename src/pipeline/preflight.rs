//! CORS preflights: a browser asks, without a credential, whether a page of another origin may send
//! a request. The Fetch standard calls this the CORS-preflight request.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, ACCESS_CONTROL_REQUEST_HEADERS,
        ACCESS_CONTROL_REQUEST_METHOD, CONTENT_LENGTH, ORIGIN, REFERER, TRANSFER_ENCODING,
        USER_AGENT,
    },
};

use super::{Grant, Identity, Quota, Request, RequestContext};
use crate::{directory::Rule, model::PreflightMode};

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");

/// A request that is a preflight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preflight<'a> {
    headers: &'a HeaderMap,
    origin: &'a HeaderValue,
    method: &'a str,
}

impl<'a> Preflight<'a> {
    /// The preflight that a request is: `OPTIONS` with exactly one `Origin` and exactly one
    /// `Access-Control-Request-Method`, without a body. `None` means another request.
    pub fn of(request: &Request<'a>) -> Option<Self> {
        if *request.method != Method::OPTIONS {
            return None;
        }
        let headers = request.headers;
        let origin = single(headers, &ORIGIN)?;
        let method = single(headers, &ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()?;
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
        (!has_body && request.body.is_none()).then_some(Self { headers, origin, method })
    }

    /// The origin of the page.
    pub fn origin(&self) -> &'a HeaderValue {
        self.origin
    }

    /// The method of the request that the page wants to send.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The header fields that the page wants to set. An error means that a name cannot be read.
    pub fn header_names(&self) -> impl Iterator<Item = Result<HeaderName, ()>> {
        let values = self.headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS).into_iter();
        let texts = values.flat_map(|value| match value.to_str() {
            Ok(text) => {
                text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Ok).collect()
            }
            Err(_) => vec![Err(())],
        });
        texts.map(|name| HeaderName::from_bytes(name?.as_bytes()).map_err(drop))
    }

    /// Whether a page of a public network asks for a resource in a private network.
    pub fn asks_for_private_network(&self) -> bool {
        single(self.headers, &REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true")
    }
}

/// The header fields of a preflight that an application may get: none of them can carry a
/// credential or an identity.
pub(crate) fn may_pass(name: &HeaderName) -> bool {
    const HARMLESS: [HeaderName; 9] = [
        ORIGIN,
        ACCESS_CONTROL_REQUEST_METHOD,
        ACCESS_CONTROL_REQUEST_HEADERS,
        REQUEST_PRIVATE_NETWORK,
        ACCEPT,
        ACCEPT_ENCODING,
        ACCEPT_LANGUAGE,
        REFERER,
        USER_AGENT,
    ];
    HARMLESS.contains(name)
}

impl<'a> Grant<'a> {
    /// The grant for a preflight that the application responds to: an anonymous grant, without a
    /// look at permissions and limits. `None` means that the resource does not pass preflights on,
    /// or that the request is not a preflight.
    pub(crate) fn for_preflight(
        context: &'a RequestContext,
        request: &Request<'_>,
        rule: &'a Rule,
    ) -> Option<Self> {
        Preflight::of(request)?;
        let cors = rule.resource.cors.as_ref()?;
        let identity = Identity::anonymous(&context.policy.roles);
        (cors.preflight == PreflightMode::Pass)
            .then(|| Self::anonymous(identity, rule, Quota::default()))
    }
}

/// The value of a field that is present exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}
