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

use super::{AccessRules, CallerIdentity, Layer, LayerBody, LayerSettings, PathPolicy};
use crate::{
    handlers::{Origin, Payload, UrlScheme, read_body},
    http::{
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
    body: LayerBody<B>,
    /// The path in its normal form. `None` means that the client sent the path in this form.
    path: Option<String>,
    /// The host in its normal form. `None` means that the client sent the host in this form, or
    /// sent none.
    host: Option<String>,
    action: Action<'a>,
    changes: ResponseChanges<'a>,
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
        let client = (self.0.find_client)(&parts).unwrap_or(UNKNOWN);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let result = self.0.handle(parts, body, client, next).await.unwrap_or_else(|denial| {
            response::report(&denial, &method, uri.path(), client);
            let response = response::for_method(&method, response::from_denial(&denial));
            Ok(response.map(|payload| match payload {
                Payload::Full(bytes) => LayerBody::full(bytes),
                // The body of a denial is never streamed.
                Payload::Stream(_) => LayerBody::full(Bytes::new()),
            }))
        });
        if is_read_as_other && method == Method::HEAD {
            // The server around the layer does not know that the response has no body.
            return result.map(without_body);
        }
        result
    }
}

impl LayerSettings {
    /// Returns the result of `next`.
    ///
    /// # Errors
    /// The pipeline denies the request, or a hook denies the response.
    async fn handle<B, R, E, F>(
        &self,
        mut parts: Parts,
        body: B,
        client: IpAddr,
        next: impl FnOnce(Request<LayerBody<B>>) -> F,
    ) -> Result<Result<Response<LayerBody<R>>, E>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let context = self.gate.request_context();
        let AllowedRequest { identity, body, path, host, action, changes } =
            self.decide(&context, &parts, body, client).await?;
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
        changes.quota.write(response.headers_mut());
        let (parts, body) = response.into_parts();
        let Some(hooks) = changes.hooks else {
            return Ok(Ok(Response::from_parts(parts, LayerBody::streamed(body))));
        };
        match guard::run_hooks(&hooks, parts, None).await {
            Ok((parts, _)) => Ok(Ok(Response::from_parts(parts, LayerBody::streamed(body)))),
            Err(denial) => {
                // The header fields of the request were moved to `next`, so they are empty here.
                // This does not affect scripts: the context stores the request that the first
                // script saw, and passes it to all later scripts.
                let headers = &HeaderMap::new();
                let (path, query) = (uri.path(), uri.query());
                let received =
                    Received { method: &method, path, query, headers, host: None, client };
                let (gate, context, request) = (&self.gate, &context, received.request(path));
                let guarded = GuardedRequest { gate, context, request, action };
                Err(guarded.denied(denial).await)
            }
        }
    }

    async fn decide<'a, B>(
        &'a self,
        context: &'a RequestContext,
        parts: &Parts,
        body: B,
        client: IpAddr,
    ) -> Result<AllowedRequest<'a, B>, Denial>
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
            client,
        };
        let path = received.normal_path()?;
        if self.paths == PathPolicy::Reject && *path != *received.path {
            let problem = "The path is not in its normal form. Send the path without empty segments, dot segments and unnecessary percent-encodings.";
            return Err(bad_request(problem));
        }
        let request = received.request(&path);
        let gate = &self.gate;
        let guarded = match &self.access {
            AccessRules::Resources => {
                let origin = Origin::Requested(scheme, host.as_ref().map_or("", Host::authority));
                GuardedRequest::on_route(gate, context, request, &path, origin)?.0
            }
            AccessRules::Program { permissions, anonymous } => {
                // Only a resource can keep ambiguous characters.
                path.kept().check(Kept::NONE).map_err(bad_request)?;
                let action = Action::Enter(EntryRules { permissions, anonymous: *anonymous });
                GuardedRequest { gate, context, request, action }
            }
        };
        let (identity, body, changes) = match self.authorize(&guarded, body).await {
            Ok(allowed) => allowed,
            Err(denial) => return Err(guarded.denied(denial).await),
        };
        let action = guarded.action;
        let host = host.as_ref().filter(|host| !is_sent_as(parts, host.authority()));
        let host = host.map(|host| host.authority().to_owned());
        Ok(AllowedRequest { identity, body, path: path.into_changed(), host, action, changes })
    }

    /// Authorizes a request. If scripts read the body, the body is read first.
    async fn authorize<'a, B>(
        &self,
        guarded: &GuardedRequest<'a, '_>,
        body: B,
    ) -> Result<(CallerIdentity, LayerBody<B>, ResponseChanges<'a>), Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (bytes, body) = if guarded.buffers_body() {
            let bytes = read_body(body, &self.body_limits).await?;
            (Some(bytes.clone()), LayerBody::full(bytes))
        } else {
            (None, LayerBody::streamed(body))
        };
        let request = pipeline::Request { body: bytes.as_ref(), ..guarded.request };
        let grant = guarded.authorize(&request).await?;
        let changes = guarded.response_changes(&request, &grant);
        Ok((CallerIdentity::new(grant.identity()), body, changes))
    }

    /// Removes the client's header fields that a service could mistake for identity fields.
    fn remove_identity_fields(&self, headers: &mut HeaderMap) {
        let forged = headers.keys().filter(|name| self.identity_fields.covers(name));
        let forged: Vec<HeaderName> = forged.cloned().collect();
        for name in forged {
            headers.remove(name);
        }
    }
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
