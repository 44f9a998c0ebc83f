//! Takes a request through the pipeline to the service behind the layer, and the response back to
//! the client.

use std::{
    error::Error,
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri,
    header::{CONTENT_LENGTH, HOST},
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};
use bytes::Bytes;
use hyper::body::Body as HttpBody;

use super::{AccessRules, CallerIdentity, Layer, LayerBody, LayerSettings, PathPolicy, withheld};
use crate::{
    handlers::{Origin, Payload, PayloadResponse, UrlScheme, hold_body, is_override},
    http::{
        cors::{PreflightResult, preflight_fields, preflight_response},
        forwarded::{Report, is_among},
        guard::{self, GuardedRequest, Received, ResponseChanges, bad_request},
        host::{self, Host, HostProblem},
        method,
        path::Kept,
        response,
    },
    pipeline::{self, Action, Denial, EntryRules, RequestContext},
};

/// The placeholder for a client address that is unknown.
const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A request that the pipeline has allowed.
struct AllowedRequest<'a, B> {
    identity: CallerIdentity,
    /// The header fields for the service. `None` means the fields of the client.
    headers: Option<HeaderMap>,
    body: LayerBody<B>,
    /// The path in its normal form. `None` means that the client sent the path in this form.
    path: Option<String>,
    /// The host in its normal form. `None` means that the client sent the host in this form, or
    /// sent none.
    host: Option<String>,
    action: Action<'a>,
    changes: ResponseChanges<'a>,
}

/// The decision about a request.
#[allow(clippy::large_enum_variant, reason = "almost all requests have the large variant")]
enum Decision<'a, B> {
    /// The service gets the request.
    Allowed(AllowedRequest<'a, B>),
    /// The request is a preflight, and this is the response.
    Answered(PayloadResponse),
}

impl Layer {
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
        let peer = (self.0.find_client)(&parts).unwrap_or(UNKNOWN);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let client = self.0.client(&parts, peer);
        let address = client.as_ref().map_or(peer, |client| client.address);
        let handled = match client {
            Ok(client) => self.0.handle(parts, body, client, next).await,
            Err(denial) => Err(denial),
        };
        let result = handled.unwrap_or_else(|denial| {
            response::report(&denial, &method, uri.path(), address);
            Ok(in_memory(response::for_method(&method, response::from_denial(&denial))))
        });
        if is_read_as_other && method == Method::HEAD {
            // The server around the layer does not know that the response has no body.
            return result.map(without_body);
        }
        result
    }
}

/// A response of the layer itself.
fn in_memory<R>(response: PayloadResponse) -> Response<LayerBody<R>> {
    response.map(|payload| match payload {
        Payload::Full(bytes) => LayerBody::full(bytes),
        // The body of a response of the layer is never streamed.
        Payload::Stream(_) => LayerBody::full(Bytes::new()),
    })
}

/// The client of a request, and the scheme of the request that it sent.
#[derive(Clone, Copy)]
struct Client {
    address: IpAddr,
    scheme: UrlScheme,
}

impl LayerSettings {
    /// The client: the peer or, if the peer is a trusted proxy, the client that the proxy reports.
    fn client(&self, parts: &Parts, peer: IpAddr) -> Result<Client, Denial> {
        let report = if is_among(&self.trusted, peer) {
            Report::of_proxy(&parts.headers, peer, &self.trusted).map_err(bad_request)?
        } else {
            Report::without_proxy(peer)
        };
        let is_https = parts.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTPS);
        let scheme = if is_https { UrlScheme::Https } else { UrlScheme::Http };
        Ok(Client { address: report.client, scheme: report.scheme.unwrap_or(scheme) })
    }

    /// Returns the result of `next`.
    ///
    /// # Errors
    /// The pipeline denies the request, or a hook denies the response.
    async fn handle<B, R, E, F>(
        &self,
        mut parts: Parts,
        body: B,
        client: Client,
        next: impl FnOnce(Request<LayerBody<B>>) -> F,
    ) -> Result<Result<Response<LayerBody<R>>, E>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let context = self.gate.request_context();
        let (allowed, removal) = {
            let whole = withheld::restored(&parts);
            let allowed = match self.decide(&context, &whole, body, client).await? {
                Decision::Allowed(allowed) => allowed,
                Decision::Answered(response) => return Ok(Ok(in_memory(response))),
            };
            let removal = if self.keeps_credential {
                None
            } else {
                context.credential_removal(&whole.headers, allowed.action.rule())
            };
            (allowed, removal)
        };
        let AllowedRequest { identity, headers, body, path, host, action, changes } = allowed;
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
        let (method, uri) = (parts.method.clone(), parts.uri.clone());

        let mut response = match next(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(problem) => return Ok(Err(problem)),
        };
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
                let (gate, context, request) = (&self.gate, &context, received.request(path));
                let guarded = GuardedRequest::with_action(gate, context, request, action);
                Err(guarded.denied(denial).await)
            }
        }
    }

    async fn decide<'a, B>(
        &'a self,
        context: &'a RequestContext,
        parts: &Parts,
        body: B,
        client: Client,
    ) -> Result<Decision<'a, B>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
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
        let received = Received {
            method: &parts.method,
            path: parts.uri.path(),
            query: parts.uri.query(),
            headers: &parts.headers,
            host: host.as_ref(),
            client: client.address,
        };
        let path = received.normal_path()?;
        if self.paths == PathPolicy::Reject && *path != *received.path {
            let problem = "The path is not in its normal form. Send the path without empty segments, dot segments and unnecessary percent-encodings.";
            return Err(bad_request(problem));
        }
        let request = received.request(&path);
        let gate = &self.gate;
        let mut guarded = match &self.access {
            AccessRules::Resources => {
                let origin =
                    Origin::Requested(client.scheme, host.as_ref().map_or("", Host::authority));
                GuardedRequest::on_route(gate, context, request, &path, origin)?.0
            }
            AccessRules::Program { permissions, anonymous } => {
                // Only a resource can keep ambiguous characters.
                path.kept().check(Kept::NONE).map_err(bad_request)?;
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
                guarded.preflight_grant(rule).map(|grant| {
                    let identity = CallerIdentity::new(grant.identity());
                    (identity, LayerBody::full(Bytes::new()), guarded.preflight_changes())
                })
            }
            None => self.authorize(&guarded, body).await,
        };
        let (identity, body, changes) = match result {
            Ok(allowed) => allowed,
            Err(denial) => return Err(guarded.denied(denial).await),
        };
        let action = guarded.action;
        let host = host.as_ref().filter(|host| !is_sent_as(parts, host.authority()));
        let host = host.map(|host| host.authority().to_owned());
        let path = path.into_changed();
        let allowed = AllowedRequest { identity, headers, body, path, host, action, changes };
        Ok(Decision::Allowed(allowed))
    }

    /// Authorizes a request. If scripts may read the body, the body is read when a script needs it,
    /// at the latest after the grant.
    async fn authorize<'a, B>(
        &self,
        guarded: &GuardedRequest<'a, '_>,
        body: B,
    ) -> Result<(CallerIdentity, LayerBody<B>, ResponseChanges<'a>), Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let request = guarded.request;
        if !guarded.buffers_body() {
            let grant = guarded.authorize(&request).await?;
            let changes = guarded.response_changes(&request, &grant);
            let identity = CallerIdentity::new(grant.identity());
            return Ok((identity, LayerBody::streamed(body), changes));
        }
        let none = Bytes::new();
        let (grant, bytes) = if body.is_end_stream() {
            let request = pipeline::Request { body: Some(&none), ..request };
            (guarded.authorize(&request).await?, none.clone())
        } else {
            let limits = guarded
                .action
                .rule()
                .map_or(self.body_limits, |rule| self.body_limits.of_resource(&rule.resource));
            // The part of one client cannot be told if its address is unknown.
            let client = Some(request.client).filter(|client| *client != UNKNOWN);
            let account = self.gate.buffers().account(client);
            let read =
                async |standing| hold_body(body, &limits, Some(account.open(standing))).await;
            guarded.authorize_with_body(read).await?
        };
        let request = pipeline::Request { body: Some(&bytes), ..request };
        let changes = guarded.response_changes(&request, &grant);
        Ok((CallerIdentity::new(grant.identity()), LayerBody::full(bytes.clone()), changes))
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
