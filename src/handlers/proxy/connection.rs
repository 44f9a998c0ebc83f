//! A connection to an upstream, for one exchange.

use ::http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};

use super::upload::Upload;

/// An HTTP/1.1 connection, which carries one exchange at a time.
pub(super) type Http1Sender = http1::SendRequest<Upload>;

/// An HTTP/2 connection, which all exchanges share.
pub(super) type Http2Sender = http2::SendRequest<Upload>;

/// Whether an exchange may use a pooled connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Take a pooled connection, or else open a new one.
    Allowed,
    /// Open a new connection.
    Forbidden,
}

/// A connection that is ready for a request.
pub(super) struct UpstreamConnection {
    sender: HttpSender,
    was_used: bool,
}

enum HttpSender {
    Http1(Http1Sender),
    Http2(Http2Sender),
}

/// The error of an exchange that failed before its response. Contains the request if no part of the
/// request was sent.
pub(super) struct SendError {
    pub error: hyper::Error,
    pub request: Option<Request<Upload>>,
}

impl UpstreamConnection {
    pub fn new(sender: Http1Sender) -> Self {
        Self { sender: HttpSender::Http1(sender), was_used: false }
    }

    pub fn pooled(sender: Http1Sender) -> Self {
        Self { sender: HttpSender::Http1(sender), was_used: true }
    }

    pub fn shared(sender: Http2Sender) -> Self {
        Self { sender: HttpSender::Http2(sender), was_used: true }
    }

    /// Whether the connection had earlier exchanges. The upstream may have closed such a connection
    /// before the request arrived.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// Sends a request, and returns the head of the response. Also returns the sender of an
    /// HTTP/1.1 connection, which can be used again after the response was read.
    pub async fn send(
        self,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Option<Http1Sender>), SendError> {
        let (result, sender) = match self.sender {
            HttpSender::Http1(mut sender) => (sender.try_send_request(request).await, Some(sender)),
            HttpSender::Http2(mut sender) => (sender.try_send_request(request).await, None),
        };
        match result {
            Ok(response) => Ok((response, sender)),
            Err(mut failed) => {
                let request = failed.take_message();
                Err(SendError { error: failed.into_error(), request })
            }
        }
    }
}
