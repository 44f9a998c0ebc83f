//! The verify listener: a proxy asks whether a request may pass, and learns which user made the
//! request.

pub(super) mod dialects;
pub(super) mod envoy;
pub(super) mod identity_headers;
pub(super) mod target;

use std::{borrow::Cow, sync::Arc};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, InvalidHeaderValue},
    request::Parts,
};

use hyper::body::Incoming;
use ipnet::IpNet;

use self::{
    dialects::{Dialect, OriginalRequest},
    identity_headers::{HeaderTemplate, HeaderValues},
};
use super::{HeadLimits, Peer, Service};
use crate::{
    handlers::{ClientBody, Handlers, Origin, Payload, PayloadResponse},
    http::{
        cors::{PreflightResult, preflight_response},
        forwarded::is_among,
        guard::{GuardedRequest, Received, bad_request},
        request_id::{REQUEST_ID, request_id, trace_id},
        response,
    },
    pipeline::{CredentialRemoval, Denial, Gate, Phase, record::RequestRecord},
};

/// The header field with the status of a denial, for a proxy that cannot pass the status on.
const STATUS: HeaderName = HeaderName::from_static("x-keyward-status");
/// The header field with the body of a denial in one line, for a proxy that cannot pass the body
/// on.
const BODY: HeaderName = HeaderName::from_static("x-keyward-body");

/// The decision about the request of a proxy's client.
pub(super) enum VerifyDecision {
    /// The request may pass. The response has header fields only.
    Allowed(PayloadResponse),
    /// The request is a preflight, and this is the response for the client.
    Answered(PayloadResponse),
}

/// The service of the verify listener. Cheap to clone.
#[derive(Clone)]
pub struct Verify {
    gate: Gate,
    handlers: Handlers,
    /// The header fields that tell proxies who makes a request.
    template: Arc<HeaderTemplate>,
    /// The addresses of the proxies that may ask.
    trusted: Arc<[IpNet]>,
    /// The limits of the head of a request that a proxy describes in a gRPC message.
    head_limits: HeadLimits,
}

impl Verify {
    /// The service with the resources of these handlers. No proxy may ask yet.
    pub fn new(gate: Gate, handlers: Handlers) -> Self {
        let template = Arc::new(HeaderTemplate::new(handlers.identity_fields()));
        Self {
            gate,
            handlers,
            template,
            trusted: Arc::default(),
            head_limits: HeadLimits::default(),
        }
    }

    /// Sets the limits of the head of a request that a proxy describes in a gRPC message.
    #[must_use]
    pub fn with_head_limits(mut self, limits: HeadLimits) -> Self {
        self.head_limits = limits;
        self
    }

    /// Lets the proxies at these addresses ask. Keyward believes what they say about their clients.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted = proxies.into_iter().collect();
        self
    }

    /// The proxies that may ask.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted
    }

    /// Responds to a request at the verify listener.
    async fn verify(&self, parts: &Parts, peer: &Peer, record: &RequestRecord) -> PayloadResponse {
        let endpoint = Dialect::of_path(parts.uri.path());
        let dialect = endpoint.unwrap_or(Dialect::Plain);
        let report = |denial: &Denial| {
            record.denied(denial);
            response::report(denial, &parts.method, parts.uri.path(), peer.client());
            dialect.denial_response(denial)
        };
        if !is_among(&self.trusted, peer.client()) {
            return report(&untrusted_proxy());
        }
        if endpoint.is_none() {
            return report(&no_endpoint());
        }
        let id = record.identify(|| request_id(&parts.headers, true));
        record.trace(|| trace_id(&parts.headers));
        let original = match dialect.read(parts, &self.trusted) {
            Ok(original) => original,
            Err(problem) => return report(&bad_request(problem)),
        };
        match self.decide_original(&parts.headers, &original, record, |_| ()).await {
            Ok(VerifyDecision::Allowed(mut response)) => {
                if let Some(id) = id {
                    response.headers_mut().insert(REQUEST_ID, id.clone());
                }
                response
            }
            Ok(VerifyDecision::Answered(response)) => dialect.final_response(response),
            Err(denial) => {
                record.denied(&denial);
                response::report(&denial, &original.method, original.path, original.client);
                dialect.denial_response(&denial)
            }
        }
    }

    /// Decides about the original request, on the routes of all handlers. The response to an
    /// allowed request has header fields only. `on_removal` gets the credential that the proxy must
    /// not pass on.
    async fn decide_original(
        &self,
        headers: &HeaderMap,
        original: &OriginalRequest<'_>,
        record: &RequestRecord,
        on_removal: impl FnOnce(&CredentialRemoval<'_>),
    ) -> Result<VerifyDecision, Denial> {
        let received = Received {
            method: &original.method,
            path: original.path,
            query: original.query,
            headers,
            host: Some(&original.host),
            client: original.client,
        };
        let host = Some(original.host.authority());
        record.describe(&original.method, original.path, host, original.client);
        let path = received.normal_path()?;
        let origin = Origin::Requested(original.scheme, original.host.authority());
        let context = self.gate.request_context();
        let request = received.request(&path);
        let (mut guarded, _) =
            GuardedRequest::on_route(&self.gate, &context, request, &path, origin)?;
        let result = match guarded.take_preflight() {
            Some(PreflightResult::Allowed(headers)) => {
                return Ok(VerifyDecision::Answered(preflight_response(headers)));
            }
            Some(PreflightResult::Refused(denial)) => Err(denial),
            Some(PreflightResult::Passed(rule)) => {
                guarded.preflight_grant(rule).map(|grant| (grant, guarded.preflight_changes()))
            }
            None => guarded.authorize(&guarded.request).await.map(|grant| {
                let changes = guarded.changes_without_hooks(&grant);
                (grant, changes)
            }),
        };
        record.found(context.take_facts());
        let (grant, changes) = match result {
            Ok(allowed) => allowed,
            Err(denial) => return Err(guarded.denied(denial).await),
        };
        let removal = context.credential_removal(headers, grant.rule());
        let query = match &removal {
            Some(removal) => removal.query(original.query),
            None => original.query.map(Cow::Borrowed),
        };
        if let Some(removal) = &removal {
            on_removal(removal);
        }
        let uri = normal_uri(original, &path, query.as_deref())
            .map_err(|_| bad_request("The target cannot be written into a header field."))?;
        let (vary, is_private) = changes.for_caches();
        let values = HeaderValues { identity: grant.identity(), uri, vary, is_private };
        let mut response = PayloadResponse::default();
        *response.headers_mut() = self.template.fill(values);
        changes.write_before_hooks(response.headers_mut());
        Ok(VerifyDecision::Allowed(response))
    }
}

impl Service for Verify {
    type Body = Payload;

    fn for_connection(&self) -> Self {
        Self { gate: self.gate.unshared(), ..self.clone() }
    }

    async fn respond(
        &self,
        request: hyper::Request<Incoming>,
        peer: &Peer,
        record: &RequestRecord,
    ) -> PayloadResponse {
        let (parts, body) = request.into_parts();
        // The body is not read, but its announced length has the limit of all listeners.
        let body = ClientBody::new(body, parts.version);
        let response = match self.handlers.body_limits().check_declared(&body) {
            Ok(()) => self.verify(&parts, peer, record).await,
            Err(denial) => {
                record.denied(&denial);
                let dialect = Dialect::of_path(parts.uri.path()).unwrap_or(Dialect::Plain);
                dialect.denial_response(&denial)
            }
        };
        response::for_method(&parts.method, response)
    }
}

/// The path in its normal form, with the query without the credential. The proxy almost always
/// sends this text, so that
/// its field can be copied.
fn normal_uri(
    original: &OriginalRequest<'_>,
    path: &str,
    query: Option<&str>,
) -> Result<HeaderValue, InvalidHeaderValue> {
    match (original.uri_field, query) {
        (Some(field), _) if *path == *original.path && query == original.query => Ok(field.clone()),
        (_, Some(query)) => HeaderValue::try_from(format!("{path}?{query}")),
        (_, None) => HeaderValue::from_str(path),
    }
}

impl Dialect {
    /// The response for a preflight to which Keyward responds, in a form with which this kind of
    /// proxy ends the request.
    ///
    /// Only Envoy ends a request for which it gets 204. The other proxies let a request pass for
    /// which they get this status, so they get 403 and build the response from the header fields.
    fn final_response(self, mut response: PayloadResponse) -> PayloadResponse {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self != Self::Envoy {
            headers.insert(STATUS, StatusCode::NO_CONTENT.as_u16().into());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            *response.status_mut() = StatusCode::FORBIDDEN;
        }
        response
    }

    /// The response for a denial, in a form that this kind of proxy can pass on to its client.
    ///
    /// nginx accepts only the statuses 401 and 403, and turns any other status into 500. The
    /// configuration of nginx therefore builds the client's response from two header fields.
    pub(super) fn denial_response(self, denial: &Denial) -> PayloadResponse {
        let mut response = response::from_denial(denial);
        if self == Self::Nginx {
            let status = denial.status;
            let headers = response.headers_mut();
            headers.insert(STATUS, status.as_u16().into());
            headers.extend(response::one_line_body(denial).map(|body| (BODY, body)));
            if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
        }
        response
    }
}

/// The denial of a client that is not a trusted proxy. Such a client could name any request and any
/// client address.
pub(super) fn untrusted_proxy() -> Denial {
    let message = "Only proxies that are listed in verify.trusted_proxies may use this endpoint.";
    Denial::new(Phase::Edge, StatusCode::FORBIDDEN, "UNTRUSTED_PROXY", message)
        .with_internal_message("to trust this client, add its address to verify.trusted_proxies")
}

/// The denial for a path that is no verify endpoint. The path is not the client's, so no resource
/// can be meant.
fn no_endpoint() -> Denial {
    let message = "There is no such path. Proxies ask at /-/verify, or at the path below it that docs/faces.md lists for them.";
    Denial::new(Phase::Edge, StatusCode::NOT_FOUND, "NOT_FOUND", message)
}
