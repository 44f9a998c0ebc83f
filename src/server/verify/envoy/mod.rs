//! Envoy asks over gRPC: the same decision as at `/-/verify/envoy`, and the same answer for the client.

mod grpc;
pub(in crate::server) mod messages;

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, HOST},
};
use grpc::Code;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming};
use messages::{
    Allowed, Attributes, CheckRequest, CheckResponse, Denied, HeaderValueOption, HttpRequest,
    HttpStatus, Status, Verdict,
};

use super::{
    dialects::{self, Dialect, Original, Target, Unread, is_among},
    untrusted,
};
use crate::{
    handlers::{Body, PayloadResponse, Scheme},
    http::{host, response, unreadable},
    server::{Answer, Peer, Public},
};

/// The one call that there is.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The face that Envoy asks over gRPC. A cheap handle.
#[derive(Clone)]
pub struct Envoy(Public);

impl Envoy {
    /// The face of the same Gate, which believes the same proxies.
    pub fn new(public: Public) -> Self {
        Self(public)
    }

    async fn call(&self, request: Request<Incoming>, peer: &Peer) -> Result<CheckResponse, Code> {
        let (parts, body) = request.into_parts();
        if parts.uri.path() != CHECK {
            return Err(Code::Unimplemented);
        }
        if !is_among(&self.0.trusted, peer.client()) {
            // Nothing of it is read.
            let denial = untrusted();
            response::report(&denial, &parts, peer.client());
            return Ok(denied(Dialect::Envoy.refuse(&denial)).await);
        }
        let body = Body::Stream(body).collect(self.0.handlers.body_limits()).await;
        let body = body.map_err(|_| Code::ResourceExhausted)?;
        let asked: CheckRequest = grpc::read(&body)?;
        let asked = Asked::of(asked).ok_or(Code::InvalidArgument)?;
        let refused = match asked.original(&self.0.trusted) {
            Err(problem) => {
                let denial = unreadable(problem.to_string());
                response::report(&denial, &parts, peer.client());
                denial
            }
            Ok(original) => match self.0.judge(&asked.headers, &original).await {
                Ok(reply) => return Ok(self.allowed(&reply, &asked.headers)),
                Err(denial) => {
                    let Original { method, path, client, .. } = &original;
                    response::report_of(&denial, method, path, *client);
                    denial
                }
            },
        };
        Ok(denied(Dialect::Envoy.refuse(&refused)).await)
    }

    /// What tells who asks goes in the place of what the client says. What the client has and we do not goes, in whatever spelling.
    fn allowed(&self, reply: &PayloadResponse, asked: &HeaderMap) -> CheckResponse {
        let (absent, present): (Vec<_>, Vec<_>) = reply
            .headers()
            .iter()
            .filter(|(name, _)| **name != CACHE_CONTROL)
            .partition(|(_, value)| value.is_empty());
        let fields = self.0.handlers.identity_fields();
        let is_written = |name: &HeaderName| present.iter().any(|(known, _)| *known == name);
        let forged = asked.keys().filter(|name| fields.covers(name) && !is_written(name));
        let mut headers_to_remove: Vec<String> = absent
            .into_iter()
            .map(|(name, _)| name)
            .chain(forged)
            .map(ToString::to_string)
            .collect();
        headers_to_remove.sort();
        headers_to_remove.dedup();
        // What does not tell who asks is for the client: what is left of a limit.
        let (headers, answer): (Vec<_>, Vec<_>) =
            present.into_iter().partition(|(name, _)| fields.covers(name));
        let all = |fields: Vec<(&HeaderName, &HeaderValue)>| {
            fields.into_iter().map(|(name, value)| field(name, value)).collect()
        };
        CheckResponse {
            status: Some(Status { code: Code::Ok as i32 }),
            verdict: Some(Verdict::Allowed(Allowed {
                headers: all(headers),
                headers_to_remove,
                response_headers_to_add: all(answer),
            })),
        }
    }
}

/// A refusal, for Envoy to hand on.
async fn denied(reply: PayloadResponse) -> CheckResponse {
    let (parts, body) = reply.into_parts();
    // A refusal's body is here already.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers = parts.headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH);
    let code = match parts.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        _ => Code::PermissionDenied,
    };
    CheckResponse {
        status: Some(Status { code: code as i32 }),
        verdict: Some(Verdict::Denied(Denied {
            status: Some(HttpStatus { code: parts.status.as_u16().into() }),
            headers: headers.map(|(name, value)| field(name, value)).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })),
    }
}

fn field(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = messages::HeaderValue { key: name.to_string(), value, raw_value: Vec::new() };
    HeaderValueOption { header: Some(header) }
}

/// What Envoy tells of a request.
struct Asked {
    http: HttpRequest,
    headers: HeaderMap,
    /// Who is connected to Envoy.
    source: Option<IpAddr>,
}

impl Asked {
    fn of(request: CheckRequest) -> Option<Self> {
        let Attributes { source, request } = request.attributes?;
        let mut http = request?.http?;
        let headers = headers(&mut http)?;
        let source = source.and_then(|node| node.address?.socket?.address.parse().ok());
        Some(Self { http, headers, source })
    }

    fn original(&self, trusted: &[ipnet::IpNet]) -> Result<Original<'_>, Unread> {
        let method = Method::from_bytes(self.http.method.as_bytes());
        let method = method.map_err(|_| Unread::Malformed("method"))?;
        let Target { path, query, .. } =
            Target::read(&self.http.path).ok_or(Unread::Malformed("path"))?;
        let host = host::read(&self.http.host).map_err(|_| Unread::Malformed("host"))?;
        let scheme = match self.headers.contains_key("x-forwarded-proto") {
            true => dialects::scheme(&self.headers)?,
            false if self.http.scheme == "https" => Scheme::Https,
            false => Scheme::Http,
        };
        // A header tells only what was before whoever is connected.
        let client = match self.source {
            Some(source) if !is_among(trusted, source) => source.to_canonical(),
            Some(source) if !self.headers.contains_key("x-forwarded-for") => source.to_canonical(),
            _ => dialects::client(&self.headers, trusted)?,
        };
        Ok(Original { method, scheme, host, path, query, said: None, client })
    }
}

/// The header fields of a request. None: one is none.
fn headers(http: &mut HttpRequest) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut put = |name: &str, value: &[u8]| -> Option<()> {
        // Envoy writes method, path and host among them.
        if !name.starts_with(':') {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(())
    };
    for (name, value) in std::mem::take(&mut http.headers) {
        put(&name, value.as_bytes())?;
    }
    for one in http.header_map.take().unwrap_or_default().headers {
        let value = if one.raw_value.is_empty() { one.value.as_bytes() } else { &one.raw_value };
        put(&one.key, value)?;
    }
    headers.remove(HOST);
    Some(headers)
}

impl Answer for Envoy {
    type Body = grpc::GrpcBody;

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<grpc::GrpcBody> {
        if !grpc::is_call(request.method(), request.headers()) {
            return grpc::no_call();
        }
        match self.call(request, peer).await {
            Ok(message) => grpc::answer(&message),
            Err(code) => grpc::failed(code),
        }
    }
}
