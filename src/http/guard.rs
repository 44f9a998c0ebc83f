//! Takes a request through the pipeline, for all entry points: normal form, route, authorization,
//! hooks.
//!
//! An entry point only describes the request that it has received ([`Received`]), and uses the
//! grant.

use std::net::IpAddr;

#[cfg(feature = "server")]
use ::http::HeaderValue;
use ::http::{HeaderMap, Method, StatusCode, header::ACCESS_CONTROL_ALLOW_ORIGIN, response};
use bytes::Bytes;
use matchit::Params;

use super::{
    cache::{self, CacheRules},
    cors::{self, CorsFields, PREFLIGHT_FIELDS, PreflightResult},
    host::Host,
    kept, negotiate,
    path::{self, NormalPath},
};
use crate::{
    directory::{CompiledCors, RouteMatch, Routes, Rule},
    handlers::Origin,
    limits::{HeldBody, Standing},
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
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// `None` means that the request names no host, and that its access rules need no host.
    pub host: Option<&'a Host<'a>>,
    pub client: IpAddr,
}

impl<'a> Received<'a> {
    /// The path in its normal form. Borrowed if the client sent the path in this form.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
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
    /// `Some` means that the request is a preflight, which is not authenticated.
    preflight: Option<Box<PreflightResult<'c>>>,
    /// The CORS settings of the resource, or of the path if the path does not accept the method.
    /// `None` means that the response has no CORS fields.
    cors: Option<&'c CompiledCors>,
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
        let preflight = found.as_ref().and_then(|found| {
            let result = cors::preflight(&context.policy, &request, found)?;
            Some(Box::new(result))
        });
        let cors = match (&action, &found) {
            _ if preflight.is_some() => None,
            (Action::NoRoute(_), Some(found)) => {
                found.rules().find_map(|rule| rule.cors.as_deref())
            }
            (action, _) => action.rule().and_then(|rule| rule.cors.as_deref()),
        };
        let params = found.map(|found| found.params).unwrap_or_default();
        Ok((Self { gate, context, request, action, preflight, cors }, params))
    }

    /// A request to a program that defines no resources.
    pub fn with_action(
        gate: &'c Gate,
        context: &'c RequestContext,
        request: Request<'r>,
        action: Action<'c>,
    ) -> Self {
        Self { gate, context, request, action, preflight: None, cors: None }
    }

    /// Whether the whole body is read, because scripts may read the body.
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

    /// Decides about a request whose body scripts may read, and returns the body. `read` is called
    /// once the decision needs the body, at the latest after the grant.
    pub async fn authorize_with_body<R>(
        &self,
        read: impl FnOnce(Standing) -> R,
    ) -> Result<(Grant<'r>, Bytes), Denial>
    where
        R: Future<Output = Result<HeldBody, Denial>>,
    {
        let late = self.context.expect_body();
        let (grant, body) = late
            .drive(self.authorize(&self.request), read, |grant| Standing::of(grant.identity()))
            .await?;
        self.context.provide_body(&body);
        Ok((grant, body))
    }

    /// The changes to make to the response. Must be called before the handler gets the request.
    pub fn response_changes(
        &self,
        request: &Request<'_>,
        grant: &Grant<'_>,
    ) -> ResponseChanges<'c> {
        let hooks = self.gate.response_hooks(self.context, request, grant);
        ResponseChanges { hooks, ..self.changes_without_hooks(grant) }
    }

    /// The changes to make to a response that another program sends to the client.
    pub fn changes_without_hooks(&self, grant: &Grant<'_>) -> ResponseChanges<'c> {
        let cors = self.cors.map(|cors| CorsFields::new(cors, self.request.headers));
        ResponseChanges {
            context: self.context,
            quota: grant.quota().clone(),
            hooks: None,
            cache: CacheRules::new(self.context, &self.action, grant.identity()),
            vary: cors.as_ref().map_or(&[], CorsFields::vary),
            cors,
        }
    }

    /// The grant for a preflight that the application responds to.
    ///
    /// # Errors
    /// The request is not such a preflight.
    pub fn preflight_grant<'b>(&self, rule: &'b Rule) -> Result<Grant<'b>, Denial>
    where
        'c: 'b,
    {
        let grant = Grant::for_preflight(self.context, &self.request, rule);
        grant.ok_or_else(|| bad_request("The request is not a CORS preflight."))
    }

    /// The changes to make to an application's response to a preflight.
    pub fn preflight_changes(&self) -> ResponseChanges<'c> {
        ResponseChanges {
            context: self.context,
            quota: Quota::default(),
            hooks: None,
            cache: CacheRules::ANONYMOUS,
            vary: &PREFLIGHT_FIELDS,
            cors: None,
        }
    }

    /// The result if the request is a preflight, which is not authenticated.
    pub fn take_preflight(&mut self) -> Option<PreflightResult<'c>> {
        self.preflight.take().map(|result| *result)
    }

    /// Lets the `on_denied` hooks change a denial. Each denial must pass through this function
    /// exactly once.
    pub async fn denied(&self, mut denial: Denial) -> Denial {
        let cors = self.cors.map(|cors| CorsFields::new(cors, self.request.headers));
        if let Some(cors) = &cors {
            cors.write_denial(denial.headers_mut());
        }
        // On the heap, because few requests are denied. Otherwise this future would enlarge the
        // future of every request.
        let rule = self.action.rule();
        denial = Box::pin(self.gate.on_denied(self.context, &self.request, rule, denial)).await;
        // A hook that throws replaces the denial, with all its fields.
        if let Some(cors) = &cors
            && !denial.headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN)
        {
            cors.write_denial(denial.headers_mut());
        }
        cache::complete_denial(self.context, denial.headers_mut());
        denial
    }
}

/// The changes that a response gets after its handler: first the header fields of the quota, then
/// the changes of the `on_response` hooks, then the fields for caches.
pub(crate) struct ResponseChanges<'a> {
    context: &'a RequestContext,
    quota: Quota,
    /// `None` means that no hook wants the response.
    pub hooks: Option<ResponseHooks<'a>>,
    cache: CacheRules,
    cors: Option<CorsFields<'a>>,
    /// Further request fields on which the response depends.
    vary: &'static [&'static str],
}

impl ResponseChanges<'_> {
    /// Writes the fields that `on_response` hooks may change.
    pub fn write_before_hooks(&self, headers: &mut HeaderMap) {
        self.quota.write(headers);
        if let Some(cors) = &self.cors {
            cors.write(headers);
        }
    }

    /// Writes the fields for caches. Hooks run before, because they may read further fields of the
    /// request.
    pub fn write_after_hooks(&self, status: StatusCode, headers: &mut HeaderMap) {
        self.cache.write(self.context, self.vary, status, headers);
    }

    /// The value of `Vary` for a response that another program makes, and whether that response is
    /// for this client only.
    #[cfg(feature = "server")]
    pub fn for_caches(&self) -> (Option<HeaderValue>, bool) {
        (self.cache.vary(self.context, self.vary), self.cache.is_private())
    }

    /// Adds the limits from which a guard behind this one has consumed.
    pub fn add_quota(&mut self, more: Quota) {
        self.quota.add(more);
    }

    /// Completes a denial of a guard behind this one. Its `on_denied` hooks have run, so no other
    /// hook changes it.
    pub fn complete_denial(&self, headers: &mut HeaderMap) {
        self.quota.write_into_denial(headers);
        if let Some(cors) = &self.cors {
            cors.write(headers);
        }
    }

    /// Adds the CORS fields to a denial of the response.
    pub fn write_denial(&self, denial: &mut Denial) {
        if let Some(cors) = &self.cors {
            cors.write_denial(denial.headers_mut());
        }
    }
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
