//! gRPC over HTTP/2, for calls with one message in each direction
//! (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use ::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header::CONTENT_TYPE};
use bytes::{BufMut as _, Bytes, BytesMut};
use hyper::body::{Body, Frame, SizeHint};
use prost::Message;

const GRPC: &str = "application/grpc";
/// Bytes before a message: one for the compression flag, four for the length.
const PREFIX: usize = 5;

/// The status of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    Ok = 0,
    InvalidArgument = 3,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Unauthenticated = 16,
}

/// The reason why a call has no response message. The text is for the person who has set up the
/// client, and says nothing about the request of that client's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallError {
    pub code: Code,
    pub reason: &'static str,
}

impl CallError {
    pub fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    fn invalid(reason: &'static str) -> Self {
        Self::new(Code::InvalidArgument, reason)
    }
}

/// The body of a response: an optional message, then the status in the trailers.
#[derive(Debug, Default)]
pub struct GrpcBody {
    message: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl From<Bytes> for GrpcBody {
    fn from(message: Bytes) -> Self {
        Self { message: Some(message), trailers: None }
    }
}

/// Whether a request is a gRPC call.
pub(super) fn is_call(method: &Method, headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = content_type.strip_prefix(GRPC.as_bytes());
    let is_grpc = rest.is_some_and(|rest| rest.is_empty() || b"+;".contains(&rest[0]));
    *method == Method::POST && is_grpc
}

/// The response to a request that is not a gRPC call.
pub(super) fn unsupported() -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody::default());
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

/// Decodes the message of a body.
pub(super) fn read<M: Message + Default>(body: &[u8]) -> Result<M, CallError> {
    let (prefix, message) = body
        .split_at_checked(PREFIX)
        .ok_or(CallError::invalid("The body ends before the length of a message."))?;
    if prefix[0] != 0 {
        // The server announces no compression, so no client may compress a message.
        let reason = "The message is compressed. Send it without compression.";
        return Err(CallError::new(Code::Unimplemented, reason));
    }
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if usize::try_from(length) != Ok(message.len()) {
        return Err(CallError::invalid("The length of the message is not the length of the body."));
    }
    let reason = "The message is not the protobuf message of this method.";
    M::decode(message).map_err(|_| CallError::invalid(reason))
}

/// A response with a message.
pub(super) fn success(message: &impl Message) -> Response<GrpcBody> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    let mut response = Response::new(GrpcBody {
        message: Some(bytes.freeze()),
        trailers: Some(with_status(Code::Ok, HeaderMap::new())),
    });
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

/// A response without a message. The status of the call and its reason are among the header fields.
pub(super) fn failure(error: CallError) -> Response<GrpcBody> {
    let mut response = Response::new(GrpcBody::default());
    let headers = std::mem::take(response.headers_mut());
    *response.headers_mut() = with_status(error.code, headers);
    // The protocol percent-encodes other characters than those of our reasons.
    response.headers_mut().insert("grpc-message", HeaderValue::from_static(error.reason));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(GRPC));
    response
}

fn with_status(code: Code, mut headers: HeaderMap) -> HeaderMap {
    headers.insert("grpc-status", (code as u16).into());
    headers
}

impl Body for GrpcBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.message.take().map(Frame::data);
        Poll::Ready(message.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.message.as_ref().map_or(0, Bytes::len);
        SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
    }
}
