//! Bodies on both sides of the layer: what the service or the client has made, or what we have.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

pin_project_lite::pin_project! {
    /// A body that was handed through as it came, or one that is whole.
    #[derive(Debug)]
    pub struct Body<B> {
        #[pin]
        content: Content<B>,
    }
}

pin_project_lite::pin_project! {
    #[project = Projected]
    #[derive(Debug)]
    enum Content<B> {
        Through { #[pin] body: B },
        Whole { bytes: Bytes },
    }
}

impl<B> Body<B> {
    pub(super) fn through(body: B) -> Self {
        Self { content: Content::Through { body } }
    }

    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { content: Content::Whole { bytes } }
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Body<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().content.project() {
            Projected::Through { body } => body.poll_frame(cx),
            Projected::Whole { bytes } if bytes.is_empty() => Poll::Ready(None),
            Projected::Whole { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Through { body } => body.is_end_stream(),
            Content::Whole { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Through { body } => body.size_hint(),
            Content::Whole { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
