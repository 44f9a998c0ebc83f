//! The body of a client's request, as it comes from the connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::Version;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::limits::{BufferAccount, Held, Standing};

/// The maximum time for which the server reads the rest of a body that nobody wants.
const DRAIN: Duration = Duration::from_secs(1);
/// The maximum number of bytes of this rest.
const DRAIN_BYTES: usize = 8 * 1024 * 1024;

/// The body of a client's request.
///
/// If the body is dropped before its end on an HTTP/2 connection, the server reads and discards the
/// rest, within bounds. Otherwise hyper would reset the stream right after an early response, and
/// some clients then lose the response (RFC 9113, section 8.1, allows such a reset). On an HTTP/1
/// connection, the listener does the same before it closes the socket.
#[derive(Debug)]
pub struct ClientBody {
    /// `None` after the drop has begun.
    body: Option<Incoming>,
    is_http2: bool,
    /// Counts the bytes that are kept in memory. `None` means that they do not count.
    account: Option<BufferAccount>,
    standing: Standing,
    /// The window of an HTTP/2 connection, which is held until the body ends.
    _window: Option<Arc<Held>>,
}

impl ClientBody {
    /// The body of a request with this version.
    #[must_use]
    pub fn new(body: Incoming, version: Version) -> Self {
        Self {
            body: Some(body),
            is_http2: version == Version::HTTP_2,
            account: None,
            standing: Standing::Authenticated,
            _window: None,
        }
    }

    /// Holds the window of an HTTP/2 connection until the body ends.
    #[must_use]
    pub fn with_window(mut self, window: Option<Arc<Held>>) -> Self {
        self._window = window;
        self
    }

    /// Counts the bytes of the body that are kept in memory. `account` is only called if there is a
    /// body.
    #[must_use]
    pub fn counted(mut self, account: impl FnOnce() -> BufferAccount) -> Self {
        if !self.is_end_stream() {
            self.account = Some(account());
        }
        self
    }

    /// Sets the standing of the client, which was authenticated by default.
    #[must_use]
    pub fn of_client(mut self, standing: Standing) -> Self {
        self.standing = standing;
        self
    }

    pub(super) fn account(&self) -> (Option<BufferAccount>, Standing) {
        (self.account.clone(), self.standing)
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let body = self.body.take().filter(|body| self.is_http2 && !body.is_end_stream());
        if let Some(body) = body
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(DRAIN, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    use http_body_util::BodyExt as _;
    let mut drained = 0;
    while let Some(Ok(frame)) = body.frame().await {
        drained += frame.data_ref().map_or(0, Bytes::len);
        if drained > DRAIN_BYTES {
            return;
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
