//! A connection to an upstream, for one exchange.

use ::http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};

use super::Upload;

/// An HTTP/1.1 connection, which serves one exchange after the other.
pub(super) type Lease = http1::SendRequest<Upload>;

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// One that is free, or else a new one.
    Any,
    /// A new one.
    New,
}

/// A connection that is ready for a request.
pub(super) struct Connection {
    sender: Sender,
    was_used: bool,
}

enum Sender {
    Http1(Lease),
    Http2(http2::SendRequest<Upload>),
}

/// An exchange without an answer, and the request if none of it has left.
pub(super) struct Lost {
    pub problem: hyper::Error,
    pub request: Option<Request<Upload>>,
}

impl Connection {
    pub fn new(sender: Lease) -> Self {
        Self { sender: Sender::Http1(sender), was_used: false }
    }

    pub fn used(sender: Lease) -> Self {
        Self { sender: Sender::Http1(sender), was_used: true }
    }

    pub fn shared(sender: http2::SendRequest<Upload>) -> Self {
        Self { sender: Sender::Http2(sender), was_used: true }
    }

    /// Whether it may have ended before the request came to it.
    pub fn was_used(&self) -> bool {
        self.was_used
    }

    /// Sends a request. With the head of the answer comes the connection, if it can be used again when the answer is read.
    pub async fn send(
        self,
        request: Request<Upload>,
    ) -> Result<(Response<Incoming>, Option<Lease>), Lost> {
        let (sent, lease) = match self.sender {
            Sender::Http1(mut lease) => (lease.try_send_request(request).await, Some(lease)),
            Sender::Http2(mut sender) => (sender.try_send_request(request).await, None),
        };
        match sent {
            Ok(response) => Ok((response, lease)),
            Err(mut lost) => {
                let request = lost.take_message();
                Err(Lost { problem: lost.into_error(), request })
            }
        }
    }
}
