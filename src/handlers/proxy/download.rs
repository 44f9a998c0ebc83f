//! Streams an upstream's response to the client. At the end of the response, the connection returns
//! to the pool.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{
    connection::Http1Sender, endpoint::Endpoint, error::with_causes, upload::UploadProgress,
};
use crate::handlers::{BodyError, trailers::is_forbidden_trailer};

pub(super) struct Download {
    body: Incoming,
    endpoint: Arc<Endpoint>,
    sender: Option<Http1Sender>,
    upload: Option<Arc<UploadProgress>>,
    idle: Duration,
    /// Created at the first pause, because most responses have no pause.
    timer: Option<Pin<Box<Sleep>>>,
    is_idle: bool,
}

impl Download {
    /// `idle` is the maximum time without progress of the response and of the request's body.
    pub fn new(
        body: Incoming,
        endpoint: Arc<Endpoint>,
        sender: Option<Http1Sender>,
        upload: Option<Arc<UploadProgress>>,
        idle: Duration,
    ) -> Self {
        Self { body, endpoint, sender, upload, idle, timer: None, is_idle: false }
    }

    fn finish(&mut self) {
        self.endpoint.return_to_pool(self.sender.take(), self.upload.as_deref());
    }

    /// Ready when there was no progress for `idle`.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = Instant::now() + self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.is_idle {
            self.is_idle = true;
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            // The client may still be sending the request's body.
            let deadline = self.upload.as_ref().map(|upload| upload.last() + self.idle);
            match deadline.filter(|deadline| *deadline > Instant::now()) {
                Some(deadline) => timer.as_mut().reset(deadline),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn fail(&mut self, reason: String) -> BodyError {
        let upstream = &**self.endpoint.name();
        tracing::warn!(upstream, "a response of an upstream ended early: {reason}");
        self.sender = None;
        BodyError::new(reason)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => this
                .poll_idle(cx)
                .map(|()| Some(Err(this.fail("no data within idle_seconds".into())))),
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    let forbidden = trailers.keys();
                    let forbidden = forbidden.filter(|name| is_forbidden_trailer(name.as_ref()));
                    for name in forbidden.cloned().collect::<Vec<_>>() {
                        trailers.remove(name);
                    }
                }
                this.is_idle = false;
                if this.body.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let reason = with_causes(&error);
                Poll::Ready(Some(Err(this.fail(reason))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.response_ended();
        }
    }
}
