//! Takes a request through the pipeline to the service behind the guard, and the response back to
//! the client.

use std::{borrow::Cow, error::Error, future::Future, sync::Arc};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri,
    header::{CONTENT_LENGTH, HOST},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use bytes::Bytes;
use hyper::body::Body as HttpBody;

use super::{
    AccessRules, Client, GuardLayer, GuardSettings, Identity, LayerBody, PathPolicy,
    earlier::{Decided, DeniedByGuard},
    target::{Target, with_query},
    withheld,
};
use crate::{
    handlers::{Origin, Payload, PayloadResponse, UrlScheme, hold_body, is_override},
    http::{
        cors::{PreflightResult, preflight_fields, preflight_response},
        guard::{self, GuardedRequest, Received, ResponseChanges, bad_request},
        host::{self, Host, HostProblem},
        method,
        path::{self, Kept},
        response,
    },
    limits::{HeldBody, Standing},
    pipeline::{self, Action, Denial, EarlierDecision, EntryRules, RequestContext},
};

/// The denial of a path that a router around the guard may have read in another way.
const NOT_NORMAL: &str = "The path is not in its normal form. Send the path without empty segments, dot segments and unnecessary percent-encodings.";

/// A request that the pipeline has allowed.
struct AllowedRequest<'a, B> {
    identity: Identity,
    /// The header fields for the service. `None` means the fields of the client.
    headers: Option<HeaderMap>,
    body: LayerBody<B>,
    /// The path in its normal form, for the service. `None` means that the service gets the path
    /// that the guard has got.
    path: Option<String>,
    /// The host in its normal form. `None` means that the client sent the host in this form, or
    /// sent none.
    host: Option<String>,
    action: Action<'a>,
    changes: ResponseChanges<'a>,
    /// For the guards behind this one.
    decided: Decided,
}

/// The decision about a request.
#[allow(clippy::large_enum_variant, reason = "almost all requests have the large variant")]
enum Decision<'a, B> {
    /// The service gets the request.
    Allowed(AllowedRequest<'a, B>),
    /// The service gets the request as it is: a preflight that an outer guard has passed on.
    Unchanged(B),
    /// The request is a preflight, and this is the response.
    Answered(PayloadResponse),
}

/// A request, with the facts about it that a decision needs.
struct Input<'a> {
    /// The request with its credential.
    parts: &'a Parts,
    target: Target<'a>,
    client: Client,
    /// The decision of an outer guard.
    earlier: Option<&'a Decided>,
}

/// The result of [`GuardSettings::authorize`].
struct Authorized<'a, B> {
    identity: Identity,
    body: LayerBody<B>,
    changes: ResponseChanges<'a>,
    decision: Option<Arc<EarlierDecision>>,
}

impl GuardLayer {
    /// Takes a request through the pipeline. An allowed request is passed to `next`, and the
    /// `on_response` hooks change its response. A denied request gets a response too.
    ///
    /// # Errors
    /// The errors of `next`.
    pub async fn handle<B, R, E, F>(
        &self,
        request: Request<B>,
        next: impl FnOnce(Request<LayerBody<B>>) -> F,
    ) -> Result<Response<LayerBody<R>>, E>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let (mut parts, body) = request.into_parts();
        let is_read_as_other = method::normalise(&mut parts.method);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let earlier = Decided::find(&parts.extensions, &self.0.gate);
        let client = match &earlier {
            Some(earlier) => Ok(earlier.client),
            None => self.0.client(&parts),
        };
        let address = client.as_ref().map_or(Client::UNKNOWN, |client| client.address);
        let handled = match client {
            Ok(client) => self.0.handle(parts, body, client, earlier, next).await,
            Err(denial) => Err(denial),
        };
        let result = handled.unwrap_or_else(|denial| {
            response::report(&denial, &method, uri.path(), address);
            let response = response::for_method(&method, response::from_denial(&denial));
            let mut response = in_memory(response);
            response.extensions_mut().insert(DeniedByGuard);
            Ok(response)
        });
        if is_read_as_other && method == Method::HEAD {
            // The server around the layer does not know that the response has no body.
            return result.map(without_body);
        }
        result
    }
}

/// A response of the guard itself.
fn in_memory<R>(response: PayloadResponse) -> Response<LayerBody<R>> {
    response.map(|payload| match payload {
        Payload::Full(bytes) => LayerBody::full(bytes),
        // The body of a response of the guard is never streamed.
        Payload::Stream(_) => LayerBody::full(Bytes::new()),
    })
}

impl GuardSettings {
    /// Returns the result of `next`.
    ///
    /// # Errors
    /// The pipeline denies the request, or a hook denies the response.
    async fn handle<B, R, E, F>(
        &self,
        mut parts: Parts,
        body: B,
        client: Client,
        earlier: Option<Decided>,
        next: impl FnOnce(Request<LayerBody<B>>) -> F,
    ) -> Result<Result<Response<LayerBody<R>>, E>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let context = match &earlier {
            Some(earlier) => earlier.context.clone(),
            None => Arc::new(self.gate.request_context()),
        };
        let decided = {
            let whole = withheld::restored(&parts);
            let mut target = self.target.find::<B>(&parts)?;
            // The credential in the query, which an outer guard has withheld.
            if whole.uri.query() != parts.uri.query()
                && let Some(uri) = with_query(&target.uri, whole.uri.query())
            {
                target.uri = Cow::Owned(uri);
            }
            let input = Input { parts: &whole, target, client, earlier: earlier.as_ref() };
            match self.decide(&context, input, body).await? {
                Decision::Answered(response) => return Ok(Ok(in_memory(response))),
                Decision::Unchanged(body) => Err(body),
                Decision::Allowed(allowed) => {
                    let rule = allowed.action.rule();
                    let removal = (!self.keeps_credential)
                        .then(|| context.credential_removal(&whole.headers, rule))
                        .flatten();
                    Ok((allowed, removal))
                }
            }
        };
        let (allowed, removal) = match decided {
            Ok(decided) => decided,
            Err(body) => {
                let response = next(Request::from_parts(parts, LayerBody::streamed(body))).await;
                return Ok(response.map(|response| response.map(LayerBody::streamed)));
            }
        };
        let AllowedRequest { identity, headers, body, path, host, action, mut changes, decided } =
            allowed;
        parts.headers = headers.unwrap_or(parts.headers);
        if let Some(removal) = &removal {
            removal.check()?;
            withheld::withhold(&mut parts, removal);
        }
        self.remove_identity_fields(&mut parts.headers);
        if let Some(path) = path {
            parts.uri = with_path(&parts.uri, path)?;
        }
        if let Some(host) = host {
            set_host(&mut parts, &host)?;
        }
        parts.extensions.insert(identity);
        let (method, uri, quota) =
            (parts.method.clone(), decided.uri.clone(), decided.quota.clone());
        decided.keep(&mut parts.extensions);

        let mut response = match next(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(problem) => return Ok(Err(problem)),
        };
        if earlier.is_none() {
            changes.add_quota(std::mem::take(&mut *quota.lock()));
        }
        if response.extensions().get::<DeniedByGuard>().is_some() {
            changes.complete_denial(response.headers_mut());
            return Ok(Ok(response.map(LayerBody::streamed)));
        }
        changes.write_before_hooks(response.headers_mut());
        let (parts, body) = response.into_parts();
        let result = match &changes.hooks {
            Some(hooks) => guard::run_hooks(hooks, parts, None).await.map(|(parts, _)| parts),
            None => Ok(parts),
        };
        match result {
            Ok(mut parts) => {
                changes.write_after_hooks(parts.status, &mut parts.headers);
                Ok(Ok(Response::from_parts(parts, LayerBody::streamed(body))))
            }
            Err(mut denial) => {
                changes.write_denial(&mut denial);
                // The header fields of the request were moved to `next`, so they are empty here.
                // This does not affect scripts: the context stores the request that the first
                // script saw, and passes it to all later scripts.
                let headers = &HeaderMap::new();
                let (path, query) = (uri.path(), uri.query());
                let client = client.address;
                let received =
                    Received { method: &method, path, query, headers, host: None, client };
                let (gate, context, request) = (&self.gate, &*context, received.request(path));
                let guarded = GuardedRequest::with_action(gate, context, request, action);
                Err(guarded.denied(denial).await)
            }
        }
    }

    async fn decide<'a, B>(
        &'a self,
        context: &'a Arc<RequestContext>,
        input: Input<'_>,
        body: B,
    ) -> Result<Decision<'a, B>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let Input { parts, target, client, earlier } = input;
        let scheme = match parts.uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => UrlScheme::Https,
            _ => UrlScheme::Http,
        };
        let host = match (host::of_request(parts, scheme), &self.access) {
            (Ok(host), _) => Some(host),
            // Rules that the embedding program sets do not depend on the host, so a request without
            // a host is accepted.
            (Err(HostProblem::Missing), AccessRules::Program { .. }) => None,
            (Err(problem), _) => return Err(bad_request(problem)),
        };
        let mut uri = &*target.uri;
        let mut path = path::normalise(uri.path()).map_err(bad_request)?;
        let is_normal = *path == *uri.path();
        if !is_normal && (target.is_routed || self.paths == PathPolicy::Reject) {
            return Err(bad_request(NOT_NORMAL));
        }
        let authority = host.as_ref().map(Host::authority);
        if let Some(earlier) = earlier {
            earlier.check(&parts.method, &path, authority)?;
            uri = &earlier.uri;
            path = path::normalise(uri.path()).map_err(bad_request)?;
        }
        let received = Received {
            method: &parts.method,
            path: uri.path(),
            query: uri.query(),
            headers: &parts.headers,
            host: host.as_ref(),
            client: client.address,
        };
        let request = received.request(&path);
        let gate = &self.gate;
        let mut guarded = match &self.access {
            AccessRules::Resources => {
                let origin = Origin::Requested(client.scheme, authority.unwrap_or_default());
                GuardedRequest::on_route(gate, context, request, &path, origin)?.0
            }
            AccessRules::Program { .. } if earlier.is_some_and(|one| one.decision.is_none()) => {
                return Ok(Decision::Unchanged(body));
            }
            AccessRules::Program { permissions, anonymous } => {
                // Only a resource can keep ambiguous characters. An outer guard may have found one.
                if earlier.is_none() {
                    path.kept().check(Kept::NONE).map_err(bad_request)?;
                }
                let action = Action::Enter(EntryRules { permissions, anonymous: *anonymous });
                GuardedRequest::with_action(gate, context, request, action)
            }
        };
        let mut headers = None;
        let result = match guarded.take_preflight() {
            Some(PreflightResult::Allowed(headers)) => {
                return Ok(Decision::Answered(preflight_response(headers)));
            }
            Some(PreflightResult::Refused(denial)) => Err(denial),
            Some(PreflightResult::Passed(rule)) => {
                headers = Some(layer_preflight_fields(&parts.headers));
                guarded.preflight_grant(rule).map(|grant| Authorized {
                    identity: Identity::new(grant.identity(), client.address),
                    body: LayerBody::full(Bytes::new()),
                    changes: guarded.preflight_changes(),
                    decision: None,
                })
            }
            None => self.authorize(&guarded, earlier, body).await,
        };
        let Authorized { identity, body, changes, decision } = match result {
            Ok(allowed) => allowed,
            Err(denial) => return Err(guarded.denied(denial).await),
        };
        let action = guarded.action;
        let path = path.into_changed();
        let decided_uri = match &path {
            Some(path) => with_path(uri, path.clone())?,
            None => uri.clone(),
        };
        let decided = Decided {
            gate: self.gate.clone(),
            context: context.clone(),
            decision,
            method: parts.method.clone(),
            uri: decided_uri,
            host: authority.map(str::to_owned),
            client,
            quota: earlier.map(|earlier| earlier.quota.clone()).unwrap_or_default(),
        };
        let host = host.as_ref().filter(|host| !is_sent_as(parts, host.authority()));
        let host = host.map(|host| host.authority().to_owned());
        let allowed =
            AllowedRequest { identity, headers, body, path, host, action, changes, decided };
        Ok(Decision::Allowed(allowed))
    }

    /// Authorizes a request, or narrows the decision of an outer guard. If scripts may read the
    /// body, the body is read when a script needs it, at the latest after the grant.
    async fn authorize<'a, B>(
        &self,
        guarded: &GuardedRequest<'a, '_>,
        earlier: Option<&Decided>,
        body: B,
    ) -> Result<Authorized<'a, B>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let decision = earlier.and_then(|earlier| Some((earlier, earlier.decision.as_deref()?)));
        if let Some((earlier, decision)) = decision {
            return self.narrow(guarded, earlier, decision, body).await;
        }
        let none = Bytes::new();
        let (grant, bytes, body) = if !self.buffers(guarded) {
            (guarded.authorize(&guarded.request).await?, None, LayerBody::streamed(body))
        } else if body.is_end_stream() {
            let request = pipeline::Request { body: Some(&none), ..guarded.request };
            (guarded.authorize(&request).await?, Some(none.clone()), LayerBody::full(none.clone()))
        } else {
            let read = async |standing| self.hold(guarded, body, standing).await;
            let (grant, bytes) = guarded.authorize_with_body(read).await?;
            (grant, Some(bytes.clone()), LayerBody::full(bytes))
        };
        let request = pipeline::Request { body: bytes.as_ref(), ..guarded.request };
        let changes = guarded.response_changes(&request, &grant);
        let decision = Some(Arc::new(EarlierDecision::new(&grant, None)));
        let identity = Identity::new(grant.identity(), request.client);
        Ok(Authorized { identity, body, changes, decision })
    }

    /// Narrows the decision of an outer guard.
    async fn narrow<'a, B>(
        &self,
        guarded: &GuardedRequest<'a, '_>,
        earlier: &Decided,
        decision: &EarlierDecision,
        body: B,
    ) -> Result<Authorized<'a, B>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (bytes, body) = if self.buffers(guarded) {
            // The outer guard may have admitted an anonymous request.
            let bytes = self.hold(guarded, body, Standing::Unknown).await?.bytes;
            guarded.context.provide_body(&bytes);
            (Some(bytes.clone()), LayerBody::full(bytes))
        } else {
            (None, LayerBody::streamed(body))
        };
        let request = pipeline::Request { body: bytes.as_ref(), ..guarded.request };
        let (gate, context) = (guarded.gate, guarded.context);
        let (grant, more) = gate.narrow(context, &request, &guarded.action, decision).await?;
        let mut changes = guarded.changes_without_hooks(&grant);
        if let Some(quota) = more {
            earlier.quota.lock().add(quota);
            changes.hooks = gate.resource_response_hooks(context, &request, &grant);
        }
        let decision = Some(Arc::new(EarlierDecision::new(&grant, Some(decision))));
        let identity = Identity::new(grant.identity(), request.client);
        Ok(Authorized { identity, body, changes, decision })
    }

    /// Whether the whole body is read.
    fn buffers(&self, guarded: &GuardedRequest<'_, '_>) -> bool {
        self.buffers_body || guarded.buffers_body()
    }

    /// Reads the whole body, within the budgets of the gate and of the client.
    async fn hold<B>(
        &self,
        guarded: &GuardedRequest<'_, '_>,
        body: B,
        standing: Standing,
    ) -> Result<HeldBody, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let limits = guarded
            .action
            .rule()
            .map_or(self.body_limits, |rule| self.body_limits.of_resource(&rule.resource));
        // The part of one client cannot be told if its address is unknown.
        let client = Some(guarded.request.client).filter(|client| *client != Client::UNKNOWN);
        let account = self.gate.buffers().account(client);
        hold_body(body, &limits, Some(account.open(standing))).await
    }

    /// Removes the client's header fields that a service could mistake for identity fields, or with
    /// which the client could name another method, URL or host.
    fn remove_identity_fields(&self, headers: &mut HeaderMap) {
        let is_forged = |name: &&HeaderName| self.identity_fields.covers(name) || is_override(name);
        let forged = headers.keys().filter(is_forged);
        let forged: Vec<HeaderName> = forged.cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

/// The header fields of a preflight that the service gets.
fn layer_preflight_fields(headers: &HeaderMap) -> HeaderMap {
    let mut fields = preflight_fields(headers);
    fields.extend(headers.get(HOST).map(|host| (HOST, host.clone())));
    fields
}

/// Whether a request has its host in this form, in its target and in its `Host` field.
fn is_sent_as(parts: &Parts, authority: &str) -> bool {
    let target = parts.uri.authority().map(Authority::as_str);
    let field = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    target.is_none_or(|target| target == authority)
        && field.is_none_or(|field| field == authority.as_bytes())
}

/// Writes the host into the target and the `Host` field, so that the service behind the layer reads
/// the host that was decided about.
fn set_host(parts: &mut Parts, host: &str) -> Result<(), Denial> {
    if let Some(field) = parts.headers.get_mut(HOST) {
        *field = HeaderValue::from_str(host).map_err(bad_request)?;
    }
    if parts.uri.authority().is_some() {
        let mut uri = parts.uri.clone().into_parts();
        uri.authority = Some(Authority::try_from(host).map_err(bad_request)?);
        parts.uri = Uri::from_parts(uri).map_err(bad_request)?;
    }
    Ok(())
}

fn without_body<R>(mut response: Response<LayerBody<R>>) -> Response<LayerBody<R>> {
    response.headers_mut().remove(CONTENT_LENGTH);
    response.map(|_| LayerBody::full(Bytes::new()))
}

/// The request target with its path replaced.
fn with_path(uri: &Uri, path: String) -> Result<Uri, Denial> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(bad_request)?);
    Uri::from_parts(parts).map_err(bad_request)
}
