//! The public listener's requests: where each leads, through the Gate, and to its handler.

use std::sync::Arc;

use ::http::request::Parts;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use ipnet::IpNet;

use super::{
    Answer, Peer,
    verify::{
        dialects::{self, Dialect},
        identity_headers::Layout,
    },
};
use crate::{
    handlers::{Body, Call, Handlers, Hop, Origin, Payload, PayloadResponse},
    http::{aim, host, path, response, unreadable},
    pipeline::{Action, Denial, Face, Gate, Request, RequestContext},
};

/// The public face. A cheap handle.
#[derive(Clone)]
pub struct Public {
    pub(super) gate: Gate,
    pub(super) handlers: Handlers,
    /// How proxies are told who asks.
    pub(super) layout: Arc<Layout>,
    /// The base of absolute URLs; none: the request's own host.
    public_url: Option<Arc<str>>,
    /// The proxies in front that are believed.
    pub(super) trusted: Arc<[IpNet]>,
}

impl Public {
    /// The face of these handlers. `public_url` has no slash at its end.
    pub fn new(gate: Gate, handlers: Handlers, public_url: Option<String>) -> Self {
        let layout = Arc::new(Layout::new(handlers.identity_fields()));
        let public_url = public_url.map(Arc::from);
        Self { gate, handlers, layout, public_url, trusted: Arc::default() }
    }

    /// The same, believing what proxies at these addresses say of a request's way.
    #[must_use]
    pub fn trusting(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted = proxies.into_iter().collect();
        self
    }

    async fn decide(
        &self,
        parts: &Parts,
        body: Body,
        upgrade: Option<OnUpgrade>,
        peer: &Peer,
    ) -> Result<PayloadResponse, Denial> {
        let host = host::of(parts).map_err(|problem| unreadable(problem.to_string()))?;
        let path =
            path::normalise(parts.uri.path()).map_err(|problem| unreadable(problem.to_string()))?;
        let request = Request {
            method: &parts.method,
            path: &path,
            query: parts.uri.query(),
            headers: &parts.headers,
            host: Some(host.name()),
            body: None,
            client: peer.client(),
            face: Face::Public,
        };
        let origin = match &self.public_url {
            Some(url) => Origin::Configured(url),
            None => Origin::Asked(peer.scheme(), host.authority()),
        };
        let scene = self.gate.scene();
        let found = scene.policy.routes.find(host.name(), request.path);
        let action = aim(&request, found.as_ref(), origin);
        let params = found.map(|found| found.params).unwrap_or_default();
        let hop = Hop {
            scheme: peer.scheme(),
            authority: host.authority(),
            peer: peer.client(),
            is_trusted: dialects::is_among(&self.trusted, peer.client()),
        };
        let way = Way { params, origin, hop, upgrade };
        let rule = action.rule();
        let led = match action {
            Action::Use(rule) if rule.resource.buffer_body => {
                Box::pin(self.lead_whole(&scene, request, &action, way, body)).await
            }
            _ => self.lead(&scene, request, &action, way, body).await,
        };
        match led {
            Ok(reply) => Ok(reply),
            Err(denial) => Err(Box::pin(self.gate.on_denied(&scene, &request, rule, denial)).await),
        }
    }

    /// Leads a request through the Gate whose body is read before, because a script is to see it.
    async fn lead_whole<'a>(
        &self,
        scene: &'a RequestContext,
        request: Request<'a>,
        action: &Action<'a>,
        way: Way<'a>,
        body: Body,
    ) -> Result<PayloadResponse, Denial> {
        let whole = body.collect(self.handlers.body_limits()).await?;
        let request = Request { body: Some(&whole), ..request };
        // What is shorter-lived than the scene is the body alone.
        self.lead(scene, request, action, way, Body::Full(whole.clone())).await
    }

    /// Leads a request through the Gate, to its handler, and its answer through the hooks.
    async fn lead<'a>(
        &self,
        scene: &'a RequestContext,
        request: Request<'a>,
        action: &Action<'a>,
        Way { params, origin, hop, upgrade }: Way<'a>,
        body: Body,
    ) -> Result<PayloadResponse, Denial> {
        let grant = self.gate.authorize(scene, &request, action).await?;
        let aftermath = self.gate.aftermath(scene, &request, &grant);
        let quota = grant.quota().clone();
        let call = Call { grant, request, scene, params, origin, hop, body, upgrade };
        let mut reply = self.handlers.answer(call).await?;
        quota.write(reply.headers_mut());
        match aftermath {
            Some(aftermath) => Box::pin(response::through(&aftermath, reply)).await,
            None => Ok(reply),
        }
    }
}

/// What a handler is told of a request besides.
struct Way<'a> {
    params: matchit::Params<'a, 'a>,
    origin: Origin<'a>,
    hop: Hop<'a>,
    upgrade: Option<OnUpgrade>,
}

impl Answer for Public {
    type Body = Payload;

    fn for_connection(&self) -> Self {
        Self { gate: self.gate.apart(), ..self.clone() }
    }

    async fn answer(&self, request: hyper::Request<Incoming>, peer: &Peer) -> PayloadResponse {
        let (mut parts, body) = request.into_parts();
        if let Some(dialect) = Dialect::of(parts.uri.path()) {
            let reply = self.verify(dialect, &parts, peer).await;
            return response::finish(&parts.method, reply);
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let reply = match self.decide(&parts, Body::Stream(body), upgrade, peer).await {
            Ok(reply) => reply,
            Err(denial) => {
                response::report(&denial, &parts, peer.client());
                response::denial(&denial)
            }
        };
        response::finish(&parts.method, reply)
    }
}
