//! Takes a request through the pipeline, for all entry points: normal form, route, authorization,
//! hooks.
//!
//! An entry point only describes the request that it has received ([`Received`]), and uses the
//! grant.

use std::net::IpAddr;

use ::http::{HeaderMap, Method, StatusCode, response};
use bytes::Bytes;
use matchit::Params;

use super::{
    host::Host,
    kept, negotiate,
    path::{self, NormalPath},
};
use crate::{
    directory::{RouteMatch, Routes},
    handlers::Origin,
    pipeline::{
        Action, Denial, Face, Gate, Grant, Phase, Quota, Request, RequestContext, ResponseHooks,
    },
    scripting::ResponseParts,
};

/// The message for the operator of a store without resources, as it is after the first start.
const NO_RESOURCE: &str = "no resource is configured. For an application behind a proxy, run: \
    keyward resource add all --handler decide --path '/{*rest}' --method any --format any \
    --authentication '*'";

/// A request, as the server or the layer has received it.
#[derive(Clone, Copy)]
pub(crate) struct Received<'a> {
    /// The method in its one spelling, as [`normalise`](super::method::normalise) writes it.
    pub method: &'a Method,
    /// The path, as the client sent it.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// `None` means that the request names no host, and that its access rules need no host.
    pub host: Option<&'a Host<'a>>,
    pub client: IpAddr,
}

impl<'a> Received<'a> {
    /// The path in its normal form. Borrowed if the client sent the path in this form.
    pub fn normal_path(self) -> Result<NormalPath<'a>, Denial> {
        path::normalise(self.path).map_err(bad_request)
    }

    /// The request for the pipeline, without its body. `path` is in its normal form.
    pub fn request(self, path: &'a str) -> Request<'a> {
        Request {
            method: self.method,
            path,
            query: self.query,
            headers: self.headers,
            host: self.host.map(Host::name),
            body: None,
            client: self.client,
            face: Face::Public,
        }
    }
}

/// The denial of a request whose target is malformed or ambiguous. Such a request is not
/// authenticated, because a server behind this server could interpret the target in another way.
pub(crate) fn bad_request(problem: impl ToString) -> Denial {
    let message = problem.to_string();
    Denial::new(Phase::Edge, StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

/// A request that the pipeline has yet to decide about.
pub(crate) struct GuardedRequest<'c, 'r> {
    pub gate: &'c Gate,
    pub context: &'c RequestContext,
    /// The request without its body.
    pub request: Request<'r>,
    pub action: Action<'c>,
}

impl<'c: 'r, 'r> GuardedRequest<'c, 'r> {
    /// Finds the route of a request among the resources of the store. Also returns the values of
    /// the parameters in the route's path pattern. Absolute URLs in denials begin with `origin`.
    /// `path` is the path of the request.
    ///
    /// # Errors
    /// The path has ambiguous characters, and the resource does not keep them.
    pub fn on_route(
        gate: &'c Gate,
        context: &'c RequestContext,
        request: Request<'r>,
        path: &NormalPath<'_>,
        origin: Origin<'_>,
    ) -> Result<(Self, Params<'r, 'r>), Denial> {
        let routes = &context.policy.routes;
        let found = routes.find(request.host.unwrap_or_default(), request.path);
        kept::check(routes, &request, path, found.as_ref()).map_err(bad_request)?;
        let action = action(&request, routes, found.as_ref(), origin);
        let params = found.map(|found| found.params).unwrap_or_default();
        Ok((Self { gate, context, request, action }, params))
    }

    /// Whether the body is read before the decision, because scripts read the body.
    pub fn buffers_body(&self) -> bool {
        matches!(self.action, Action::Use(rule) if rule.resource.buffer_body)
    }

    /// Decides about the request. `request` is [`GuardedRequest::request`], with the body if the
    /// body was read.
    pub async fn authorize<'b>(&self, request: &Request<'b>) -> Result<Grant<'b>, Denial>
    where
        'c: 'b,
    {
        self.gate.authorize(self.context, request, &self.action).await
    }

    /// The changes to make to the response. Must be called before the handler gets the request.
    pub fn response_changes(
        &self,
        request: &Request<'_>,
        grant: &Grant<'_>,
    ) -> ResponseChanges<'c> {
        let hooks = self.gate.response_hooks(self.context, request, grant);
        ResponseChanges { quota: grant.quota().clone(), hooks }
    }

    /// Lets the `on_denied` hooks change a denial. Each denial must pass through this function
    /// exactly once.
    pub async fn denied(&self, denial: Denial) -> Denial {
        // On the heap, because few requests are denied. Otherwise this future would enlarge the
        // future of every request.
        let rule = self.action.rule();
        Box::pin(self.gate.on_denied(self.context, &self.request, rule, denial)).await
    }
}

/// The changes that a response gets after its handler: first the header fields of the quota, then
/// the changes of the `on_response` hooks.
pub(crate) struct ResponseChanges<'a> {
    pub quota: Quota,
    /// `None` means that no hook wants the response.
    pub hooks: Option<ResponseHooks<'a>>,
}

/// Lets the `on_response` hooks change a response. If `body` is `None`, the body is streamed, and
/// the hooks see and change only the status and the header fields.
///
/// # Errors
/// A hook denied the request or failed. Nothing of the response may be sent.
pub(crate) async fn run_hooks(
    hooks: &ResponseHooks<'_>,
    mut parts: response::Parts,
    body: Option<Bytes>,
) -> Result<(response::Parts, Option<Bytes>), Denial> {
    let shown = ResponseParts { status: parts.status, headers: parts.headers, body };
    let ResponseParts { status, headers, body } = hooks.run(shown).await?;
    (parts.status, parts.headers) = (status, headers);
    Ok((parts, body))
}

/// The action that a request asks for, by its route.
fn action<'a>(
    request: &Request<'_>,
    routes: &Routes,
    found: Option<&RouteMatch<'a, '_>>,
    origin: Origin<'_>,
) -> Action<'a> {
    let Request { method, path, .. } = request;
    let Some(found) = found else {
        let message = format!("No route found for \"{method} {origin}{path}\"");
        let code = "ROUTE_NOT_FOUND";
        let denial = Denial::message(Phase::Edge, StatusCode::NOT_FOUND, code, message);
        return Action::NoRoute(if routes.are_unconfigured() {
            denial.with_internal_message(NO_RESOURCE)
        } else {
            denial
        });
    };
    let Some(rule) = found.rule(method.as_str()) else {
        let allow = found.allow_header();
        let mut message = format!(
            "No route found for \"{method} {origin}{path}\": Method Not Allowed (Allow: {allow})"
        );
        if let Some(listed) = found.other_case(method.as_str()) {
            message.push_str(&format!(". Methods are case-sensitive: send {listed}."));
        }
        let code = "METHOD_NOT_ALLOWED";
        let denial = Denial::message(Phase::Edge, StatusCode::METHOD_NOT_ALLOWED, code, message);
        return Action::NoRoute(denial.with_allow(allow));
    };
    match negotiate::check_formats(request, &rule.formats) {
        Ok(()) => Action::Use(rule),
        Err(denial) => Action::Misuse(rule, denial),
    }
}
