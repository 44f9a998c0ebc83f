//! The public listener: sends each request through the pipeline, then to its handler.

use std::sync::Arc;

use ::http::{HeaderMap, Method, Response, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{Peer, Service, health::HealthCheck};
use crate::{
    handlers::{
        BodyLimits, ClientBody, HandlerRequest, Handlers, Hop, Origin, Payload, PayloadResponse,
        RequestBody, UrlScheme,
    },
    http::{
        cors::{PreflightResult, preflight_fields, preflight_response},
        forwarded::{Report, ReportError, is_among},
        guard::{self, GuardedRequest, Received, bad_request},
        host, method,
        request_id::{REQUEST_ID, request_id, trace_id},
        response,
    },
    limits::{Held, Standing},
    pipeline::{Denial, Gate, Grant, Request, ResponseHooks, record::RequestRecord},
};

/// The service of the public listener. Cheap to clone.
#[derive(Clone)]
pub struct Public {
    gate: Gate,
    handlers: Handlers,
    /// The base of absolute URLs. `None` means that the base is the scheme and the host of the
    /// request.
    public_url: Option<Arc<str>>,
    /// The addresses of the trusted proxies in front of this server.
    trusted: Arc<[IpNet]>,
    /// `None` means that this listener has no health check.
    health: Option<HealthCheck>,
}

impl Public {
    /// The service with these handlers. `public_url` has no slash at its end.
    pub fn new(gate: Gate, handlers: Handlers, public_url: Option<String>) -> Self {
        let public_url = public_url.map(Arc::from);
        Self { gate, handlers, public_url, trusted: Arc::default(), health: None }
    }

    /// Trusts the proxies at these addresses: Keyward believes what they say about their clients.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted = proxies.into_iter().collect();
        self
    }

    /// Whether the peer is a trusted proxy.
    fn is_proxy(&self, peer: &Peer) -> bool {
        !peer.is_unnamed() && is_among(&self.trusted, peer.client())
    }

    /// The client of a request: the peer or, if the peer is a trusted proxy, the client that the
    /// proxy reports.
    fn client<'a>(&self, headers: &'a HeaderMap, peer: &Peer) -> Result<Report<'a>, ReportError> {
        let address = peer.client();
        if self.is_proxy(peer) {
            Report::of_proxy(headers, address, &self.trusted)
        } else {
            Ok(Report::without_proxy(address))
        }
    }

    /// Responds to health checks at this path, before routing. `stopping` becomes true when the
    /// server begins to stop.
    #[must_use]
    pub fn with_health_path(mut self, path: &str, stopping: watch::Receiver<bool>) -> Self {
        self.health = Some(HealthCheck::new(path, stopping));
        self
    }

    async fn decide(
        &self,
        parts: &Parts,
        body: RequestBody,
        upgrade: Option<OnUpgrade>,
        scheme: UrlScheme,
        report: &Report<'_>,
        record: &RequestRecord,
    ) -> Result<PayloadResponse, Denial> {
        let host = host::of_request(parts, scheme).map_err(bad_request)?;
        record.describe(&parts.method, parts.uri.path(), Some(host.authority()), report.client);
        let received = Received {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            host: Some(&host),
            client: report.client,
        };
        let path = received.normal_path()?;
        let origin = match &self.public_url {
            Some(url) => Origin::Configured(url),
            None => Origin::Requested(scheme, host.authority()),
        };
        let context = self.gate.request_context();
        let request = received.request(&path);
        let (mut guarded, params) =
            GuardedRequest::on_route(&self.gate, &context, request, &path, origin)?;
        let hop = Hop {
            client: report.client,
            proxies: &report.proxies,
            scheme,
            host: report.host.unwrap_or(host.authority()),
            port: report.port,
            prefix: report.prefix,
            authority: host.authority(),
        };
        let input = HandlerInput { params, origin, hop, upgrade };
        if let Some(preflight) = guarded.take_preflight() {
            return Box::pin(self.preflight(&guarded, preflight, input)).await;
        }
        let result = if guarded.buffers_body() {
            Box::pin(self.handle_buffered(&guarded, input, body)).await
        } else {
            self.handle(&guarded, guarded.request, input, body).await
        };
        record.found(context.take_facts());
        match result {
            Ok(response) => Ok(response),
            Err(denial) => Err(guarded.denied(denial).await),
        }
    }

    /// Responds to a preflight, or passes it on to the application.
    async fn preflight<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        preflight: PreflightResult<'a>,
        HandlerInput { params, origin, hop, .. }: HandlerInput<'a>,
    ) -> Result<PayloadResponse, Denial> {
        let rule = match preflight {
            PreflightResult::Allowed(headers) => return Ok(preflight_response(headers)),
            PreflightResult::Refused(denial) => return Err(guarded.denied(denial).await),
            PreflightResult::Passed(rule) => rule,
        };
        let context = guarded.context;
        let grant = guarded.preflight_grant(rule)?;
        let headers = preflight_fields(guarded.request.headers);
        let request = Request { headers: &headers, ..guarded.request };
        let (body, upgrade) = (RequestBody::default(), None);
        let call = HandlerRequest { grant, request, context, params, origin, hop, body, upgrade };
        match self.handlers.respond(call).await {
            Ok(mut response) => {
                let status = response.status();
                guarded.preflight_changes().write_after_hooks(status, response.headers_mut());
                Ok(response)
            }
            Err(denial) => Err(guarded.denied(denial).await),
        }
    }

    /// Authorizes a request whose body scripts may read, then passes the request to its handler.
    /// The body is read when a script needs it, at the latest after the grant.
    async fn handle_buffered<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        input: HandlerInput<'a>,
        body: RequestBody,
    ) -> Result<PayloadResponse, Denial> {
        let limits = self.body_limits(guarded);
        if let Some(bytes) = body.known() {
            let request = Request { body: Some(&bytes), ..guarded.request };
            let grant = guarded.authorize(&request).await?;
            body.check_declared(&limits)?;
            return self.respond_to(guarded, request, grant, input, body).await;
        }
        let read = |standing| body.of_client(standing).hold(&limits);
        let (grant, bytes) = guarded.authorize_with_body(read).await?;
        let request = Request { body: Some(&bytes), ..guarded.request };
        self.respond_to(guarded, request, grant, input, RequestBody::Full(bytes.clone())).await
    }

    /// The limits of the request's body.
    fn body_limits(&self, guarded: &GuardedRequest<'_, '_>) -> BodyLimits {
        let limits = *self.handlers.body_limits();
        guarded.action.rule().map_or(limits, |rule| limits.of_resource(&rule.resource))
    }

    /// Authorizes a request, then passes the request to its handler.
    async fn handle<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        request: Request<'a>,
        input: HandlerInput<'a>,
        body: RequestBody,
    ) -> Result<PayloadResponse, Denial> {
        let grant = guarded.authorize(&request).await?;
        // Also for the handlers that do not read the body.
        body.check_declared(&self.body_limits(guarded))?;
        let body = body.of_client(Standing::of(grant.identity()));
        self.respond_to(guarded, request, grant, input, body).await
    }

    /// Passes a request that was granted to its handler.
    async fn respond_to<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        request: Request<'a>,
        grant: Grant<'a>,
        HandlerInput { params, origin, hop, upgrade }: HandlerInput<'a>,
        body: RequestBody,
    ) -> Result<PayloadResponse, Denial> {
        let changes = guarded.response_changes(&request, &grant);
        let context = guarded.context;
        let call = HandlerRequest { grant, request, context, params, origin, hop, body, upgrade };
        let mut response = self.handlers.respond(call).await?;
        changes.write_before_hooks(response.headers_mut());
        if let Some(hooks) = &changes.hooks {
            response = Box::pin(run_hooks(hooks, response)).await?;
        }
        changes.write_after_hooks(response.status(), response.headers_mut());
        Ok(response)
    }
}

/// Facts about a request that only its handler needs.
struct HandlerInput<'a> {
    params: matchit::Params<'a, 'a>,
    origin: Origin<'a>,
    hop: Hop<'a>,
    upgrade: Option<OnUpgrade>,
}

async fn run_hooks(
    hooks: &ResponseHooks<'_>,
    response: PayloadResponse,
) -> Result<PayloadResponse, Denial> {
    let (parts, payload) = response.into_parts();
    match payload {
        Payload::Full(bytes) => {
            let (parts, body) = guard::run_hooks(hooks, parts, Some(bytes)).await?;
            Ok(Response::from_parts(parts, Payload::Full(body.unwrap_or_default())))
        }
        stream => {
            let (parts, _) = guard::run_hooks(hooks, parts, None).await?;
            Ok(Response::from_parts(parts, stream))
        }
    }
}

impl Service for Public {
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
        let (mut parts, body) = request.into_parts();
        if let Some(health) = &self.health
            && let Some(response) = health.respond(&parts, self.handlers.accounts())
        {
            return response::for_method(&parts.method, response);
        }
        let id = record.identify(|| request_id(&parts.headers, self.is_proxy(peer)));
        record.trace(|| trace_id(&parts.headers));
        if let Some(id) = id {
            // Scripts and upstreams get the field.
            parts.headers.insert(REQUEST_ID, id.clone());
        }
        let is_read_as_other = method::normalise(&mut parts.method);
        let window = parts.extensions.remove::<Arc<Held>>();
        let body = ClientBody::new(body, parts.version).with_window(window);
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let denied = |denial: &Denial, client| {
            record.describe(&parts.method, parts.uri.path(), None, client);
            record.denied(denial);
            response::report(denial, &parts.method, parts.uri.path(), client);
            response::from_denial(denial)
        };
        let response = match self.client(&parts.headers, peer) {
            Err(problem) => denied(&bad_request(problem), peer.client()),
            Ok(report) => {
                let account = || self.handlers.accounts().buffers().account(Some(report.client));
                let body = RequestBody::Stream(body.counted(account));
                let scheme = report.scheme.unwrap_or(peer.scheme());
                let decided = self.decide(&parts, body, upgrade, scheme, &report, record).await;
                decided.unwrap_or_else(|denial| denied(&denial, report.client))
            }
        };
        let mut response = response::for_method(&parts.method, response);
        if let Some(id) = id {
            response.headers_mut().insert(REQUEST_ID, id.clone());
        }
        if is_read_as_other && parts.method == Method::HEAD {
            return method::without_length(response);
        }
        response
    }
}
