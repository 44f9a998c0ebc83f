//! The verify endpoints: a proxy asks whether a request may pass, and learns which user made the
//! request.

pub(super) mod dialects;
pub(super) mod envoy;
pub(super) mod identity_headers;
pub(super) mod target;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, header::InvalidHeaderValue, request::Parts,
};

use self::dialects::{Dialect, OriginalRequest, is_among};
use super::{Peer, Public};
use crate::{
    handlers::{Origin, PayloadResponse},
    http::{
        guard::{GuardedRequest, Received, bad_request},
        response,
    },
    pipeline::{Denial, Phase},
};

/// The header field with the status of a denial, for a proxy that cannot pass the status on.
const STATUS: HeaderName = HeaderName::from_static("x-keyward-status");
/// The header field with the body of a denial in one line, for a proxy that cannot pass the body
/// on.
const BODY: HeaderName = HeaderName::from_static("x-keyward-body");

impl Public {
    /// Responds to a proxy that speaks this dialect.
    pub(super) async fn verify(
        &self,
        dialect: Dialect,
        parts: &Parts,
        peer: &Peer,
    ) -> PayloadResponse {
        let report = |denial: &Denial| {
            response::report(denial, &parts.method, parts.uri.path(), peer.client());
            dialect.denial_response(denial)
        };
        if !is_among(&self.trusted, peer.client()) {
            return report(&untrusted_proxy());
        }
        let original = match dialect.read(parts, &self.trusted) {
            Ok(original) => original,
            Err(problem) => return report(&bad_request(problem)),
        };
        match self.decide_original(&parts.headers, &original).await {
            Ok(response) => response,
            Err(denial) => {
                response::report(&denial, &original.method, original.path, original.client);
                dialect.denial_response(&denial)
            }
        }
    }

    /// Decides about the original request, on the routes of all handlers. The response to an
    /// allowed request has header fields only.
    pub(super) async fn decide_original(
        &self,
        headers: &HeaderMap,
        original: &OriginalRequest<'_>,
    ) -> Result<PayloadResponse, Denial> {
        let received = Received {
            method: &original.method,
            path: original.path,
            query: original.query,
            headers,
            host: Some(&original.host),
            client: original.client,
        };
        let path = received.normal_path()?;
        let origin = Origin::Requested(original.scheme, original.host.authority());
        let context = self.gate.request_context();
        let request = received.request(&path);
        let (guarded, _) = GuardedRequest::on_route(&self.gate, &context, request, &path, origin)?;
        let grant = match guarded.authorize(&guarded.request).await {
            Ok(grant) => grant,
            Err(denial) => return Err(guarded.denied(denial).await),
        };
        let uri = normal_uri(original, &path)
            .map_err(|_| bad_request("The target cannot be written into a header field."))?;
        let mut response = PayloadResponse::default();
        *response.headers_mut() = self.template.fill(grant.identity(), uri);
        grant.quota().write(response.headers_mut());
        Ok(response)
    }
}

/// The path in its normal form, with the query. The proxy almost always sends this text, so that
/// its field can be copied.
fn normal_uri(
    original: &OriginalRequest<'_>,
    path: &str,
) -> Result<HeaderValue, InvalidHeaderValue> {
    match (original.uri_field, original.query) {
        (Some(field), _) if *path == *original.path => Ok(field.clone()),
        (_, Some(query)) => HeaderValue::try_from(format!("{path}?{query}")),
        (_, None) => HeaderValue::from_str(path),
    }
}

impl Dialect {
    /// The response for a denial, in a form that this kind of proxy can pass on to its client.
    ///
    /// nginx accepts only the statuses 401 and 403, and turns any other status into 500. The
    /// configuration of nginx therefore builds the client's response from two header fields.
    pub(super) fn denial_response(self, denial: &Denial) -> PayloadResponse {
        let mut response = response::from_denial(denial);
        if self == Self::Nginx {
            let status = denial.status;
            let headers = response.headers_mut();
            headers.insert(STATUS, status.as_u16().into());
            headers.extend(response::one_line_body(denial).map(|body| (BODY, body)));
            if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
                *response.status_mut() = StatusCode::FORBIDDEN;
            }
        }
        response
    }
}

/// The denial of a client that is not a trusted proxy. Such a client could name any request and any
/// client address.
pub(super) fn untrusted_proxy() -> Denial {
    let message = "Only proxies that are listed in server.trusted_proxies may use this endpoint.";
    Denial::new(Phase::Edge, StatusCode::FORBIDDEN, "UNTRUSTED_PROXY", message)
        .with_internal_message("to trust this client, add its address to server.trusted_proxies")
}
