//! Envoy's external authorization over gRPC: the same decisions as at `/-/verify/envoy`, and the
//! same responses for the client.

mod grpc;
pub(in crate::server) mod health;
pub(in crate::server) mod messages;

use std::net::IpAddr;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_LENGTH, HOST, WWW_AUTHENTICATE},
};
use grpc::{CallError, Code};
use http_body_util::BodyExt as _;
use hyper::{Request, Response, body::Incoming};
use messages::{
    Allowed, AppendAction, Attributes, CheckRequest, CheckResponse, Denied, HeaderValueOption,
    HttpRequest, HttpResponse, HttpStatus, Status,
};

use super::{
    Verify, VerifyDecision,
    dialects::{self, Dialect, OriginalRequest},
    identity_headers::APPLICATION_CACHE_CONTROL,
    target::ForwardedTarget,
    untrusted_proxy,
};
use crate::{
    handlers::{ClientBody, PayloadResponse, RequestBody, UrlScheme, is_override},
    http::{
        forwarded::{self, ReportError, is_among},
        guard::bad_request,
        host, method,
        request_id::{request_id, trace_id},
        response,
    },
    pipeline::{CredentialRemoval, Denial, Phase, record::RequestRecord},
    server::{Peer, Service},
};

/// The only method of the gRPC service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The service that Envoy calls over gRPC. Cheap to clone.
#[derive(Clone)]
pub struct Envoy(Verify);

impl Envoy {
    /// The service with the pipeline and the trusted proxies of `verify`.
    pub fn new(verify: Verify) -> Self {
        Self(verify)
    }

    /// Reports the health of the server, to any client that reaches the listener.
    async fn health(&self, body: ClientBody) -> Response<grpc::GrpcBody> {
        let body = RequestBody::Stream(body).collect(self.0.handlers.body_limits()).await;
        let body = body.map_err(|_| unreadable_body());
        match body.and_then(|body| grpc::read(&body)).and_then(|message| health::check(&message)) {
            Ok(message) => grpc::success(&message),
            Err(error) => grpc::failure(error),
        }
    }

    async fn check(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        record: &RequestRecord,
    ) -> Result<CheckResponse, CallError> {
        let (parts, body) = request.into_parts();
        // The proxy's messages are about many clients.
        let account = || self.0.handlers.accounts().buffers().account(None);
        let body = ClientBody::new(body, parts.version).counted(account);
        if parts.uri.path() != CHECK {
            let reason =
                "This server has no such method. Call envoy.service.auth.v3.Authorization/Check.";
            return Err(CallError::new(Code::Unimplemented, reason));
        }
        if !is_among(&self.0.trusted, peer.client()) {
            // The server does not read the body of an untrusted client.
            let denial = untrusted_proxy();
            record.denied(&denial);
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            return Ok(denied(Dialect::Envoy.denial_response(&denial)).await);
        }
        let body = RequestBody::Stream(body).collect(self.0.handlers.body_limits()).await;
        let body = body.map_err(|_| unreadable_body())?;
        let message: CheckRequest = grpc::read(&body)?;
        let described = DescribedRequest::new(message)
            .map_err(|reason| CallError::new(Code::InvalidArgument, reason))?;
        if self.0.head_limits.are_exceeded(&described.headers, described.http.path.len()) {
            let denial = too_large();
            record.denied(&denial);
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            return Ok(denied(Dialect::Envoy.denial_response(&denial)).await);
        }
        let denial = match described.original(&self.0.trusted) {
            Err(problem) => {
                let denial = bad_request(problem);
                response::report(&denial, &parts.method, parts.uri.path(), peer.client());
                denial
            }
            Ok(original) => {
                let headers = &described.headers;
                record.identify(|| request_id(headers, true));
                record.trace(|| trace_id(headers));
                let mut removed = RemovedCredential::default();
                let on_removal = |removal: &CredentialRemoval<'_>| {
                    removed = RemovedCredential::new(removal, headers, original.query);
                };
                match self.0.decide_original(headers, &original, record, on_removal).await {
                    Ok(VerifyDecision::Allowed(response)) => {
                        return Ok(self.allowed(&response, headers, removed));
                    }
                    Ok(VerifyDecision::Answered(response)) => return Ok(denied(response).await),
                    Err(denial) => {
                        let OriginalRequest { method, path, client, .. } = &original;
                        response::report(&denial, method, path, *client);
                        denial
                    }
                }
            }
        };
        record.denied(&denial);
        Ok(denied(Dialect::Envoy.denial_response(&denial)).await)
    }

    /// The message for an allowed request. Keyward's identity fields replace the client's fields of
    /// the same name. Client fields that could be mistaken for identity fields are removed, in
    /// every spelling.
    fn allowed(
        &self,
        response: &PayloadResponse,
        client_headers: &HeaderMap,
        removed: RemovedCredential,
    ) -> CheckResponse {
        let (absent, present): (Vec<_>, Vec<_>) = response
            .headers()
            .iter()
            .filter(|(name, _)| **name != CACHE_CONTROL && **name != APPLICATION_CACHE_CONTROL)
            .partition(|(_, value)| value.is_empty());
        let fields = self.0.handlers.identity_fields();
        let is_present = |name: &HeaderName| present.iter().any(|(known, _)| *known == name);
        let is_forged = |name: &HeaderName| fields.covers(name) || is_override(name);
        let forged = client_headers.keys().filter(|name| is_forged(name) && !is_present(name));
        let mut headers_to_remove: Vec<String> = absent
            .into_iter()
            .map(|(name, _)| name)
            .chain(forged)
            .map(ToString::to_string)
            .chain(removed.headers)
            .collect();
        headers_to_remove.sort();
        headers_to_remove.dedup();
        // The fields that are not identity fields are for the client: rate limits, CORS, `Vary`.
        let (identity, for_client): (Vec<_>, Vec<_>) =
            present.into_iter().partition(|(name, _)| fields.covers(name));
        let identity = identity.into_iter().map(|(name, value)| header_option(name, value));
        let mut headers: Vec<_> = identity.collect();
        headers.extend(removed.changed);
        let cache_control = response.headers().get(APPLICATION_CACHE_CONTROL);
        let cache_control = cache_control.filter(|value| !value.is_empty());
        let cache_control = cache_control.map(|value| response_field(&CACHE_CONTROL, value));
        let for_client = for_client.into_iter().map(|(name, value)| response_field(name, value));
        CheckResponse {
            status: Some(Status { code: Code::Ok as i32 }),
            http_response: Some(HttpResponse::Allowed(Allowed {
                headers,
                headers_to_remove,
                response_headers_to_add: for_client.chain(cache_control).collect(),
                query_parameters_to_remove: removed.parameters,
            })),
        }
    }
}

/// The credential that Envoy removes from the request for the upstream.
#[derive(Default)]
struct RemovedCredential {
    /// The names of header fields.
    headers: Vec<String>,
    /// Header fields that lose only a part: `Cookie` and `Referer`.
    changed: Vec<HeaderValueOption>,
    /// The names of query parameters.
    parameters: Vec<String>,
}

impl RemovedCredential {
    fn new(removal: &CredentialRemoval<'_>, headers: &HeaderMap, query: Option<&str>) -> Self {
        let mut left = headers.clone();
        removal.clean(&mut left);
        let mut removed = Self::default();
        for name in headers.keys().filter(|name| removal.touches(name)) {
            let values: Vec<&[u8]> = left.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            match HeaderValue::from_bytes(&values.join(&b"; "[..])) {
                Ok(value) if !values.is_empty() => {
                    removed.changed.push(header_option(name, &value))
                }
                _ => removed.headers.push(name.to_string()),
            }
        }
        let parameters = removal.removed_parameters(query).into_iter();
        removed.parameters = parameters.map(str::to_owned).collect();
        removed
    }
}

/// The error of a call whose body did not arrive.
fn unreadable_body() -> CallError {
    let reason = "The body is larger than limits.body_bytes, or did not arrive completely in time.";
    CallError::new(Code::ResourceExhausted, reason)
}

/// The denial of a request whose head exceeds the limits of this server.
fn too_large() -> Denial {
    Denial::new(
        Phase::Edge,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "REQUEST_HEADER_FIELDS_TOO_LARGE",
        "The request's header fields are larger than this server takes.",
    )
}

/// The message for a denied request. Envoy passes the response in the message on to the client.
async fn denied(response: PayloadResponse) -> CheckResponse {
    let (parts, body) = response.into_parts();
    // This cannot fail, because the body of a denial is in memory.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // Envoy keeps only one field of a name, so several challenges become one list.
    let mut fields = parts.headers;
    let challenges: Vec<_> = fields.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
    let challenges: Vec<_> = challenges.iter().map(HeaderValue::as_bytes).collect();
    if let ([_, _, ..], Ok(list)) =
        (&challenges[..], HeaderValue::from_bytes(&challenges.join(&b", "[..])))
    {
        fields.insert(WWW_AUTHENTICATE, list);
    }
    let headers = fields.iter().filter(|(name, _)| **name != CONTENT_LENGTH);
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
    HeaderValueOption { header: Some(header), append_action: AppendAction::Append as i32 }
}

/// A field for the application's response to the client. Keyward's CORS fields replace those of the
/// application, and `Cache-Control` is only for responses that have none.
fn response_field(name: &HeaderName, value: &HeaderValue) -> HeaderValueOption {
    let action = if *name == CACHE_CONTROL {
        AppendAction::AddIfAbsent
    } else if name.as_str().starts_with("access-control-") {
        AppendAction::Replace
    } else {
        AppendAction::Append
    };
    HeaderValueOption { append_action: action as i32, ..header_option(name, value) }
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
    /// # Errors
    /// The reason why the message describes no request.
    fn new(message: CheckRequest) -> Result<Self, &'static str> {
        let Attributes { source, request } =
            message.attributes.ok_or("The message has no attributes.")?;
        let mut http = request
            .and_then(|request| request.http)
            .ok_or("The message has no attributes.request.http.")?;
        let headers = take_headers(&mut http)
            .ok_or("The name or the value of a header field in the message is malformed.")?;
        let source = source.and_then(|node| node.address?.socket?.address.parse().ok());
        Ok(Self { http, headers, source })
    }

    fn original(&self, trusted: &[ipnet::IpNet]) -> Result<OriginalRequest<'_>, ReportError> {
        let method = method::parse(&self.http.method).ok_or(ReportError::Malformed("method"))?;
        let ForwardedTarget { path, query, authority, .. } =
            ForwardedTarget::parse(&self.http.path).ok_or(ReportError::Malformed("path"))?;
        let scheme = if self.headers.contains_key("x-forwarded-proto") {
            dialects::scheme(&self.headers)?
        } else if self.http.scheme == "https" {
            UrlScheme::Https
        } else {
            UrlScheme::Http
        };
        let host =
            host::parse(&self.http.host, scheme).map_err(|_| ReportError::Malformed("host"))?;
        if let Some(other) = authority
            && host::parse(other, scheme).as_ref() != Ok(&host)
        {
            return Err(ReportError::Several("host"));
        }
        // If Envoy names the address that is connected to Envoy, the header fields count only if
        // that address belongs to a trusted proxy.
        let client = match self.source {
            Some(source) if !is_among(trusted, source) => source.to_canonical(),
            source => forwarded::client(&self.headers, trusted)?
                .or(source.map(|source| source.to_canonical()))
                .ok_or(ReportError::Missing("X-Forwarded-For"))?,
        };
        Ok(OriginalRequest { method, scheme, host, path, query, uri_field: None, client })
    }
}

/// The method, host and path that a message asks about. For the fuzz targets.
#[cfg(any(test, feature = "fuzzing"))]
pub(in crate::server) fn question(message: CheckRequest) -> Option<[String; 3]> {
    let described = DescribedRequest::new(message).ok()?;
    let original = described.original(&[]).ok()?;
    let host = original.host.authority().to_owned();
    Some([original.method.to_string(), host, original.path.to_owned()])
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

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        record: &RequestRecord,
    ) -> Response<grpc::GrpcBody> {
        if !grpc::is_call(request.method(), request.headers()) {
            return grpc::unsupported();
        }
        if request.uri().path() == health::CHECK {
            let version = request.version();
            return self.health(ClientBody::new(request.into_body(), version)).await;
        }
        match self.check(request, peer, record).await {
            Ok(message) => grpc::success(&message),
            Err(error) => {
                tracing::info!(
                    client = %peer.client(),
                    code = error.code as u16,
                    "a gRPC call got no decision: {}",
                    error.reason
                );
                grpc::failure(error)
            }
        }
    }
}
