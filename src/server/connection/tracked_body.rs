//! The body of a response, which reports its progress to the timeouts of its connection and stream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::{stream::Progress, timeouts::InFlight};

/// The maximum number of bytes that hyper takes from a body at once on an HTTP/2 connection. hyper
/// keeps these bytes until the client takes them, and the stream's timeout does not apply to the
/// last of them.
const MAX_PIECE: usize = 64 * 1024;

/// The body of a response. The request counts as in flight until hyper has taken the last byte of
/// the body.
pub(in crate::server) struct TrackedBody<B> {
    body: B,
    /// The part of the last frame that hyper has not taken.
    rest: Bytes,
    in_flight: InFlight,
}

impl<B: Body<Data = Bytes> + Unpin> TrackedBody<B> {
    pub fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, rest: Bytes::new(), in_flight }
    }

    /// The next frame, with at most [`MAX_PIECE`] bytes on an HTTP/2 connection.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut data = std::mem::take(&mut self.rest);
        if data.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)?) {
                Some(frame) if frame.is_data() && self.in_flight.timeouts().is_http2() => {
                    data = frame.into_data().unwrap_or_default();
                }
                other => return Poll::Ready(other.map(Ok)),
            }
        }
        if data.len() > MAX_PIECE {
            self.rest = data.split_off(MAX_PIECE);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for TrackedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = self.next_frame(cx);
        // hyper polls a body only when the client can receive bytes.
        match polled {
            Poll::Ready(_) => Progress::Offered.report(),
            Poll::Pending => Progress::Waiting.report(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // hyper asks before the first frame.
        self.body.size_hint()
    }
}
