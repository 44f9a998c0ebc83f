//! The limits of a request's head in HTTP/2, where hyper checks fewer of them than in HTTP/1.

use ::http::{
    HeaderMap, Request, Response, StatusCode, Version,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER},
};
use bytes::Bytes;

use crate::http::response::envelope;

/// The limits of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// The maximum number of bytes of a request's line and header fields together.
    pub bytes: usize,
    /// The maximum number of header fields of a request.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 16_384, fields: 100 }
    }
}

impl HeadLimits {
    /// Whether a head has more fields, or more bytes, than allowed. `target` is the length of the
    /// request's target.
    pub fn are_exceeded(&self, headers: &HeaderMap, target: usize) -> bool {
        if headers.len() > self.fields {
            return true;
        }
        /// The bytes of `: ` and the line end.
        const SEPARATORS: usize = 4;
        let field = |(name, value): (&::http::HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + SEPARATORS
        };
        target + headers.iter().map(field).sum::<usize>() > self.bytes
    }
}

/// The rejection of an HTTP/2 request whose head exceeds the limits or contradicts itself. `None`
/// means that the request may be served. hyper has checked the rest of the head, and the head of an
/// HTTP/1 request.
pub(in crate::server) fn rejection<B>(
    request: &Request<B>,
    limits: &HeadLimits,
) -> Option<Response<Bytes>> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    let headers = request.headers();
    // In HTTP/1, the authority is a field.
    let is_authority = request.uri().authority().is_some() && !headers.contains_key(HOST);
    let is_large = headers.len() + usize::from(is_authority) > limits.fields;
    if is_large {
        return Some(reject(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "REQUEST_HEADER_FIELDS_TOO_LARGE",
            "The request's header fields are larger than this server takes.",
        ));
    }
    // h2 compares the first length with the data.
    let has_two_lengths = headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some();
    has_two_lengths.then(|| {
        reject(StatusCode::BAD_REQUEST, "BAD_REQUEST", "The request has more than one length.")
    })
}

/// The response to a request for whose body there is no memory.
pub(in crate::server) fn no_room() -> Response<Bytes> {
    let mut response = reject(
        StatusCode::SERVICE_UNAVAILABLE,
        "TEMPORARILY_UNAVAILABLE",
        "Too many request bodies are being read. Try again in a moment.",
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

fn reject(status: StatusCode, code: &str, message: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(envelope(status, code, message)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
