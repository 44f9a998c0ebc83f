//! Envoy's external authorization over gRPC: the same decisions as at `/-/verify/envoy`, and the
//! same responses for the client.

mod grpc;
pub(in crate::server) mod messages;

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, HOST},
};
use grpc::Code;
use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming};
use messages::{
    Allowed, Attributes, CheckRequest, CheckResponse, Denied, HeaderValueOption, HttpRequest,
    HttpResponse, HttpStatus, Status,
};

use super::{
    dialects::{self, Dialect, DialectError, OriginalRequest, is_among},
    target::ForwardedTarget,
    untrusted_proxy,
};
use crate::{
    handlers::{PayloadResponse, RequestBody, UrlScheme},
    http::{guard::bad_request, host, method, response},
    server::{Peer, Public, Service},
};

/// The only method of the gRPC service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The service that Envoy calls over gRPC. Cheap to clone.
#[derive(Clone)]
pub struct Envoy(Public);

impl Envoy {
    /// The service with the pipeline and the trusted proxies of `public`.
    pub fn new(public: Public) -> Self {
        Self(public)
    }

    async fn check(&self, request: Request<Incoming>, peer: &Peer) -> Result<CheckResponse, Code> {
        let (parts, body) = request.into_parts();
        if parts.uri.path() != CHECK {
            return Err(Code::Unimplemented);
        }
        if !is_among(&self.0.trusted, peer.client()) {
            // The server does not read the body of an untrusted client.
            let denial = untrusted_proxy();
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            return Ok(denied(Dialect::Envoy.denial_response(&denial)).await);
        }
        let body = RequestBody::Stream(body).collect(self.0.handlers.body_limits()).await;
        let body = body.map_err(|_| Code::ResourceExhausted)?;
        let message: CheckRequest = grpc::read(&body)?;
        let described = DescribedRequest::new(message).ok_or(Code::InvalidArgument)?;
        let denial = match described.original(&self.0.trusted) {
            Err(problem) => {
                let denial = bad_request(problem);
                response::report(&denial, &parts.method, parts.uri.path(), peer.client());
                denial
            }
            Ok(original) => match self.0.decide_original(&described.headers, &original).await {
                Ok(response) => return Ok(self.allowed(&response, &described.headers)),
                Err(denial) => {
                    let OriginalRequest { method, path, client, .. } = &original;
                    response::report(&denial, method, path, *client);
                    denial
                }
            },
        };
        Ok(denied(Dialect::Envoy.denial_response(&denial)).await)
    }

    /// The message for an allowed request. Keyward's identity fields replace the client's fields of
    /// the same name. Client fields that could be mistaken for identity fields are removed, in
    /// every spelling.
    fn allowed(&self, response: &PayloadResponse, client_headers: &HeaderMap) -> CheckResponse {
        let (absent, present): (Vec<_>, Vec<_>) = response
            .headers()
            .iter()
            .filter(|(name, _)| **name != CACHE_CONTROL)
            .partition(|(_, value)| value.is_empty());
        let fields = self.0.handlers.identity_fields();
        let is_present = |name: &HeaderName| present.iter().any(|(known, _)| *known == name);
        let forged = client_headers.keys().filter(|name| fields.covers(name) && !is_present(name));
        let mut headers_to_remove: Vec<String> = absent
            .into_iter()
            .map(|(name, _)| name)
            .chain(forged)
            .map(ToString::to_string)
            .collect();
        headers_to_remove.sort();
        headers_to_remove.dedup();
        // The fields that are not identity fields describe the rate limits to the client.
        let (identity, for_client): (Vec<_>, Vec<_>) =
            present.into_iter().partition(|(name, _)| fields.covers(name));
        let options = |fields: Vec<(&HeaderName, &HeaderValue)>| {
            fields.into_iter().map(|(name, value)| header_option(name, value)).collect()
        };
        CheckResponse {
            status: Some(Status { code: Code::Ok as i32 }),
            http_response: Some(HttpResponse::Allowed(Allowed {
                headers: options(identity),
                headers_to_remove,
                response_headers_to_add: options(for_client),
            })),
        }
    }
}

/// The message for a denied request. Envoy passes the response in the message on to the client.
async fn denied(response: PayloadResponse) -> CheckResponse {
    let (parts, body) = response.into_parts();
    // This cannot fail, because the body of a denial is in memory.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let headers = parts.headers.iter().filter(|(name, _)| **name != CONTENT_LENGTH);
    let code = match parts.status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        _ => Code::PermissionDenied,
    };
    CheckResponse {
        status: Some(Status { code: code as i32 }),
        http_response: Some(HttpResponse::Denied(Denied {
            status: Some(HttpStatus { code: parts.status.as_u16().into() }),
            headers: headers.map(|(name, value)| header_option(name, value)).collect(),
            body: String::from_utf8_lossy(&body).into_owned(),
        })),
    }
}

fn header_option(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = messages::HeaderValue { key: name.to_string(), value, raw_value: Vec::new() };
    HeaderValueOption { header: Some(header) }
}

/// A request that Envoy describes in its message.
struct DescribedRequest {
    http: HttpRequest,
    headers: HeaderMap,
    /// The address that is connected to Envoy: the address of the client, or of a proxy in front of
    /// Envoy.
    source: Option<IpAddr>,
}

impl DescribedRequest {
    fn new(message: CheckRequest) -> Option<Self> {
        let Attributes { source, request } = message.attributes?;
        let mut http = request?.http?;
        let headers = take_headers(&mut http)?;
        let source = source.and_then(|node| node.address?.socket?.address.parse().ok());
        Some(Self { http, headers, source })
    }

    fn original(&self, trusted: &[ipnet::IpNet]) -> Result<OriginalRequest<'_>, DialectError> {
        let method = method::parse(&self.http.method).ok_or(DialectError::Malformed("method"))?;
        let ForwardedTarget { path, query, authority, .. } =
            ForwardedTarget::parse(&self.http.path).ok_or(DialectError::Malformed("path"))?;
        let scheme = if self.headers.contains_key("x-forwarded-proto") {
            dialects::scheme(&self.headers)?
        } else if self.http.scheme == "https" {
            UrlScheme::Https
        } else {
            UrlScheme::Http
        };
        let host =
            host::parse(&self.http.host, scheme).map_err(|_| DialectError::Malformed("host"))?;
        if let Some(other) = authority
            && host::parse(other, scheme).as_ref() != Ok(&host)
        {
            return Err(DialectError::Several("host"));
        }
        // If Envoy names the address that is connected to Envoy, `X-Forwarded-For` counts only if
        // that address belongs to a trusted proxy.
        let client = match self.source {
            Some(source) if !is_among(trusted, source) => source.to_canonical(),
            Some(source) if !self.headers.contains_key("x-forwarded-for") => source.to_canonical(),
            _ => dialects::client(&self.headers, trusted)?,
        };
        Ok(OriginalRequest { method, scheme, host, path, query, uri_field: None, client })
    }
}

/// The header fields of a request. `None` means that at least one field is malformed.
fn take_headers(http: &mut HttpRequest) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut append = |name: &str, value: &[u8]| -> Option<()> {
        // Envoy also sends pseudo-header fields for method, path and host in this map.
        if !name.starts_with(':') {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(value).ok()?);
        }
        Some(())
    };
    for (name, value) in std::mem::take(&mut http.headers) {
        append(&name, value.as_bytes())?;
    }
    for header in http.header_map.take().unwrap_or_default().headers {
        let raw = &header.raw_value;
        append(&header.key, if raw.is_empty() { header.value.as_bytes() } else { raw })?;
    }
    headers.remove(HOST);
    Some(headers)
}

impl Service for Envoy {
    type Body = grpc::GrpcBody;

    async fn respond(&self, request: Request<Incoming>, peer: &Peer) -> Response<grpc::GrpcBody> {
        if !grpc::is_call(request.method(), request.headers()) {
            return grpc::unsupported();
        }
        match self.check(request, peer).await {
            Ok(message) => grpc::success(&message),
            Err(code) => grpc::failure(code),
        }
    }
}
