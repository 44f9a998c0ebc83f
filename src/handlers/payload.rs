//! The body of an answer: whole, or flowing through.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

/// A body that is whole costs no allocation beyond its bytes.
pub enum Payload {
    /// It is here already.
    Full(Bytes),
    /// It comes from somewhere else, piece by piece.
    Stream(Flow),
}

/// Marks an answer that somebody else has made: nothing in it is changed on the way.
#[derive(Debug, Clone, Copy)]
pub struct Foreign;

/// A body that comes piece by piece.
pub type Flow = Pin<Box<dyn Body<Data = Bytes, Error = BrokenOff> + Send>>;

/// Why an answer ends before its end. The client sees a connection that breaks off, never the text.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokenOff(#[source] Box<dyn Error + Send + Sync>);

impl BrokenOff {
    /// For this reason.
    pub fn new(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(why.into())
    }
}

impl Payload {
    /// A body that comes from somewhere else.
    pub fn stream(body: impl Body<Data = Bytes, Error = BrokenOff> + Send + 'static) -> Self {
        Self::Stream(Box::pin(body))
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self::Full(Bytes::new())
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(whole: T) -> Self {
        Self::Full(whole.into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Stream(flow) => flow.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_empty(),
            Self::Stream(flow) => flow.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(flow) => flow.size_hint(),
        }
    }
}
