//! The body type of requests and responses that pass the layer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

pin_project_lite::pin_project! {
    /// The streamed body of a request or a response, or a body in memory.
    #[derive(Debug)]
    pub struct LayerBody<B> {
        #[pin]
        content: BodyContent<B>,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum BodyContent<B> {
        Streamed { #[pin] body: B },
        Full { bytes: Bytes },
    }
}

impl<B> LayerBody<B> {
    pub(super) fn streamed(body: B) -> Self {
        Self { content: BodyContent::Streamed { body } }
    }

    pub(super) fn full(bytes: Bytes) -> Self {
        Self { content: BodyContent::Full { bytes } }
    }

    /// The body as the service behind the guard takes it.
    pub(super) fn into_inner(self) -> B
    where
        B: From<Bytes>,
    {
        match self.content {
            BodyContent::Streamed { body } => body,
            BodyContent::Full { bytes } => B::from(bytes),
        }
    }
}

impl<B: Body<Data = Bytes>> Body for LayerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().content.project() {
            Projected::Streamed { body } => body.poll_frame(cx),
            Projected::Full { bytes } if bytes.is_empty() => Poll::Ready(None),
            Projected::Full { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            BodyContent::Streamed { body } => body.is_end_stream(),
            BodyContent::Full { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            BodyContent::Streamed { body } => body.size_hint(),
            BodyContent::Full { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
