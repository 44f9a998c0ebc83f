//! The public listener: sends each request through the pipeline, then to its handler.

use std::sync::Arc;

use ::http::{Method, Response, request::Parts};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    Peer, Service,
    health::HealthCheck,
    verify::{
        dialects::{Dialect, is_among},
        identity_headers::HeaderTemplate,
    },
};
use crate::{
    handlers::{HandlerRequest, Handlers, Hop, Origin, Payload, PayloadResponse, RequestBody},
    http::{
        guard::{self, GuardedRequest, Received, bad_request},
        host, method, response,
    },
    pipeline::{Denial, Gate, Request, ResponseHooks},
};

/// The service of the public listener. Cheap to clone.
#[derive(Clone)]
pub struct Public {
    pub(super) gate: Gate,
    pub(super) handlers: Handlers,
    /// The header fields that tell proxies who makes a request.
    pub(super) template: Arc<HeaderTemplate>,
    /// The base of absolute URLs. `None` means that the base is the scheme and the host of the
    /// request.
    public_url: Option<Arc<str>>,
    /// The addresses of the trusted proxies in front of this server.
    pub(super) trusted: Arc<[IpNet]>,
    /// `None` means that this listener has no health check.
    health: Option<HealthCheck>,
}

impl Public {
    /// The service with these handlers. `public_url` has no slash at its end.
    pub fn new(gate: Gate, handlers: Handlers, public_url: Option<String>) -> Self {
        let template = Arc::new(HeaderTemplate::new(handlers.identity_fields()));
        let public_url = public_url.map(Arc::from);
        Self { gate, handlers, template, public_url, trusted: Arc::default(), health: None }
    }

    /// Trusts the proxies at these addresses: a trusted proxy names the client, and may use the
    /// verify endpoints.
    #[must_use]
    pub fn with_trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted = proxies.into_iter().collect();
        self
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
        peer: &Peer,
    ) -> Result<PayloadResponse, Denial> {
        let host = host::of_request(parts, peer.scheme()).map_err(bad_request)?;
        let received = Received {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            host: Some(&host),
            client: peer.client(),
        };
        let path = received.normal_path()?;
        let origin = match &self.public_url {
            Some(url) => Origin::Configured(url),
            None => Origin::Requested(peer.scheme(), host.authority()),
        };
        let context = self.gate.request_context();
        let request = received.request(&path);
        let (guarded, params) =
            GuardedRequest::on_route(&self.gate, &context, request, &path, origin)?;
        let hop = Hop {
            scheme: peer.scheme(),
            authority: host.authority(),
            peer: peer.client(),
            is_trusted: is_among(&self.trusted, peer.client()),
        };
        let input = HandlerInput { params, origin, hop, upgrade };
        let result = if guarded.buffers_body() {
            Box::pin(self.handle_buffered(&guarded, input, body)).await
        } else {
            self.handle(&guarded, guarded.request, input, body).await
        };
        match result {
            Ok(response) => Ok(response),
            Err(denial) => Err(guarded.denied(denial).await),
        }
    }

    /// Reads the whole body before the decision, because scripts read the body.
    async fn handle_buffered<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        input: HandlerInput<'a>,
        body: RequestBody,
    ) -> Result<PayloadResponse, Denial> {
        let bytes = body.collect(self.handlers.body_limits()).await?;
        let request = Request { body: Some(&bytes), ..guarded.request };
        self.handle(guarded, request, input, RequestBody::Full(bytes.clone())).await
    }

    /// Authorizes a request, then passes the request to its handler.
    async fn handle<'a>(
        &self,
        guarded: &'a GuardedRequest<'a, 'a>,
        request: Request<'a>,
        HandlerInput { params, origin, hop, upgrade }: HandlerInput<'a>,
        body: RequestBody,
    ) -> Result<PayloadResponse, Denial> {
        let grant = guarded.authorize(&request).await?;
        let changes = guarded.response_changes(&request, &grant);
        let context = guarded.context;
        let call = HandlerRequest { grant, request, context, params, origin, hop, body, upgrade };
        let mut response = self.handlers.respond(call).await?;
        changes.quota.write(response.headers_mut());
        match changes.hooks {
            Some(hooks) => Box::pin(run_hooks(&hooks, response)).await,
            None => Ok(response),
        }
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

    async fn respond(&self, request: hyper::Request<Incoming>, peer: &Peer) -> PayloadResponse {
        let (mut parts, body) = request.into_parts();
        if let Some(health) = &self.health
            && let Some(response) = health.respond(&parts, self.handlers.accounts())
        {
            return response::for_method(&parts.method, response);
        }
        let is_read_as_other = method::normalise(&mut parts.method);
        if let Some(dialect) = Dialect::of_path(parts.uri.path()) {
            let response = self.verify(dialect, &parts, peer).await;
            return response::for_method(&parts.method, response);
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let body = RequestBody::Stream(body);
        let response = self.decide(&parts, body, upgrade, peer).await.unwrap_or_else(|denial| {
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            response::from_denial(&denial)
        });
        let response = response::for_method(&parts.method, response);
        if is_read_as_other && parts.method == Method::HEAD {
            return method::without_length(response);
        }
        response
    }
}
