//! The way of a request through the Gate to whatever is behind it, and of the answer back.

use std::{
    borrow::Cow,
    error::Error,
    future::Future,
    net::{IpAddr, Ipv4Addr},
};

use ::http::{
    HeaderMap, HeaderName, Method, Request, Response, Uri,
    request::Parts,
    uri::{PathAndQuery, Scheme as UriScheme},
};
use bytes::Bytes;
use hyper::body::Body as HttpBody;

use super::{Admission, Body, Identity, Layer, Paths, Settings};
use crate::{
    directory::Rule,
    handlers::{Origin, Payload, Scheme, whole},
    http::{
        aim,
        host::{self, HostProblem},
        path, response, unreadable,
    },
    pipeline::{self, Action, Denial, Entry, Face, Quota, RequestContext, ResponseHooks},
    scripting::ResponseParts,
};

/// What a client's address is when nobody knows it.
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// A request that may go on.
struct Passed<'a, B> {
    identity: Identity,
    body: Body<B>,
    /// The path, where it has to be put right.
    path: Option<String>,
    rule: Option<&'a Rule>,
    aftermath: Option<ResponseHooks<'a>>,
    quota: Quota,
}

impl Layer {
    /// Leads a request through the Gate and, if it may, to `next`; and the answer through the hooks. A refusal is an answer like any other.
    ///
    /// # Errors
    /// Those of `next`.
    pub async fn around<B, R, E, F>(
        &self,
        request: Request<B>,
        next: impl FnOnce(Request<Body<B>>) -> F,
    ) -> Result<Response<Body<R>>, E>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let (parts, body) = request.into_parts();
        let client = (self.0.client)(&parts).unwrap_or(NOWHERE);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        match self.0.lead(parts, body, client, next).await {
            Ok(answered) => answered,
            Err(denial) => {
                response::report_of(&denial, &method, uri.path(), client);
                Ok(refusal(&method, &denial))
            }
        }
    }
}

impl Settings {
    /// What comes of a request that is let through.
    ///
    /// # Errors
    /// It is not, or a hook refuses the answer.
    async fn lead<B, R, E, F>(
        &self,
        mut parts: Parts,
        body: B,
        client: IpAddr,
        next: impl FnOnce(Request<Body<B>>) -> F,
    ) -> Result<Result<Response<Body<R>>, E>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
        F: Future<Output = Result<Response<R>, E>>,
    {
        let scene = self.gate.scene();
        let Passed { identity, body, path, rule, aftermath, quota } =
            self.decide(&scene, &parts, body, client).await?;
        self.hide(&mut parts.headers);
        if let Some(path) = path {
            parts.uri = with_path(&parts.uri, path)?;
        }
        parts.extensions.insert(identity);
        let (method, uri) = (parts.method.clone(), parts.uri.clone());

        let mut response = match next(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(problem) => return Ok(Err(problem)),
        };
        quota.write(response.headers_mut());
        let Some(aftermath) = aftermath else { return Ok(Ok(response.map(Body::through))) };
        match through(&aftermath, response).await {
            Ok(response) => Ok(Ok(response)),
            Err(denial) => {
                // What scripts see of a request stays what the first of them saw.
                let headers = HeaderMap::new();
                let request = pipeline::Request {
                    method: &method,
                    path: uri.path(),
                    query: uri.query(),
                    headers: &headers,
                    host: None,
                    body: None,
                    client,
                    face: Face::Public,
                };
                Err(self.gate.on_denied(&scene, &request, rule, denial).await)
            }
        }
    }

    /// Whether a request may go on, and as what.
    async fn decide<'a, B>(
        &'a self,
        scene: &'a RequestContext,
        parts: &Parts,
        body: B,
        client: IpAddr,
    ) -> Result<Passed<'a, B>, Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let host = match (host::of(parts), &self.admission) {
            (Ok(host), _) => Some(host),
            // Its rules are the same for all hosts.
            (Err(HostProblem::Missing), Admission::Program { .. }) => None,
            (Err(problem), _) => return Err(unreadable(problem.to_string())),
        };
        let path = self.path(parts)?;
        let request = pipeline::Request {
            method: &parts.method,
            path: &path,
            query: parts.uri.query(),
            headers: &parts.headers,
            host: host.as_ref().map(|host| host.name()),
            body: None,
            client,
            face: Face::Public,
        };
        let scheme = match parts.uri.scheme() == Some(&UriScheme::HTTPS) {
            true => Scheme::Https,
            false => Scheme::Http,
        };
        let authority = host.as_ref().map_or("", |host| host.authority());
        let action = match &self.admission {
            Admission::Resources => {
                let name = host.as_ref().map_or("", |host| host.name());
                let found = scene.policy.routes.find(name, &path);
                aim(&request, found.as_ref(), Origin::Asked(scheme, authority))
            }
            Admission::Program { permissions, anonymous } => {
                Action::Enter(Entry { permissions, anonymous: *anonymous })
            }
        };
        let rule = action.rule();
        let passed = match self.pass(scene, request, &action, body).await {
            Ok(passed) => passed,
            Err(denial) => return Err(self.gate.on_denied(scene, &request, rule, denial).await),
        };
        let (identity, body, aftermath, quota) = passed;
        let path = match path {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        };
        Ok(Passed { identity, body, path, rule, aftermath, quota })
    }

    /// Leads a request through the Gate; its body is read before where a script is to see it.
    async fn pass<'a, B>(
        &self,
        scene: &'a RequestContext,
        request: pipeline::Request<'_>,
        action: &Action<'_>,
        body: B,
    ) -> Result<(Identity, Body<B>, Option<ResponseHooks<'a>>, Quota), Denial>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (bytes, body) = match action {
            Action::Use(rule) if rule.resource.buffer_body => {
                let bytes = whole(body, &self.bodies).await?;
                (Some(bytes.clone()), Body::whole(bytes))
            }
            _ => (None, Body::through(body)),
        };
        let request = pipeline::Request { body: bytes.as_ref(), ..request };
        let grant = self.gate.authorize(scene, &request, action).await?;
        let aftermath = self.gate.aftermath(scene, &request, &grant);
        Ok((Identity::of(grant.identity()), body, aftermath, grant.quota().clone()))
    }

    /// The path in its one spelling; owned where it came in another.
    fn path<'a>(&self, parts: &'a Parts) -> Result<Cow<'a, str>, Denial> {
        let raw = parts.uri.path();
        let path = path::normalise(raw).map_err(|problem| unreadable(problem.to_string()))?;
        if self.paths == Paths::Refused && path != raw {
            let said = "The path is not in its normal form. Send it without empty segments, dot segments and needless escapes.";
            return Err(unreadable(said.into()));
        }
        Ok(path)
    }

    /// Takes away what could be taken for ours.
    fn hide(&self, headers: &mut HeaderMap) {
        let like_ours = headers.keys().filter(|name| self.fields.covers(name));
        let like_ours: Vec<HeaderName> = like_ours.cloned().collect();
        for name in like_ours {
            headers.remove(name);
        }
    }
}

/// Leads an answer through the hooks: they see its status and its fields, and its body stays as it is.
async fn through<R>(
    aftermath: &ResponseHooks<'_>,
    response: Response<R>,
) -> Result<Response<Body<R>>, Denial> {
    let (mut parts, body) = response.into_parts();
    let shown = ResponseParts { status: parts.status, headers: parts.headers, body: None };
    let made = aftermath.answer(shown).await?;
    parts.status = made.status;
    parts.headers = made.headers;
    Ok(Response::from_parts(parts, Body::through(body)))
}

/// The same target with another path.
fn with_path(uri: &Uri, path: String) -> Result<Uri, Denial> {
    let target = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    let read = PathAndQuery::try_from(target).map_err(|problem| unreadable(problem.to_string()))?;
    parts.path_and_query = Some(read);
    Uri::from_parts(parts).map_err(|problem| unreadable(problem.to_string()))
}

fn refusal<R>(method: &Method, denial: &Denial) -> Response<Body<R>> {
    response::finish(method, response::denial(denial)).map(|payload| match payload {
        Payload::Full(bytes) => Body::whole(bytes),
        // A refusal is always whole.
        Payload::Stream(_) => Body::whole(Bytes::new()),
    })
}
