//! An upstream's answer on its way to the client. When it is through, its connection is free for the next request.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Endpoint, Lease, Progress, trouble::chain};
use crate::handlers::BrokenOff;

pub(super) struct Download {
    body: Incoming,
    endpoint: Arc<Endpoint>,
    lease: Option<Lease>,
    progress: Option<Arc<Progress>>,
    idle: Duration,
    /// Made at the first silence: most answers have none.
    timer: Option<Pin<Box<Sleep>>>,
    is_silent: bool,
}

impl Download {
    /// `idle` is how long it may be silent while the request's body does not move either.
    pub fn new(
        body: Incoming,
        endpoint: Arc<Endpoint>,
        lease: Option<Lease>,
        progress: Option<Arc<Progress>>,
        idle: Duration,
    ) -> Self {
        Self { body, endpoint, lease, progress, idle, timer: None, is_silent: false }
    }

    fn end(&mut self) {
        self.endpoint.take_back(self.lease.take(), self.progress.as_deref());
    }

    /// Ready when there was silence for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let until = Instant::now() + self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if !self.is_silent {
            self.is_silent = true;
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            // The client may be sending meanwhile.
            let moved = self.progress.as_ref().map(|progress| progress.last() + self.idle);
            match moved.filter(|until| *until > Instant::now()) {
                Some(until) => timer.as_mut().reset(until),
                None => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    fn broken(&mut self, why: String) -> BrokenOff {
        tracing::warn!(upstream = self.endpoint.name(), "an answer broke off: {why}");
        self.lease = None;
        BrokenOff::new(why)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => match this.poll_silence(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    Poll::Ready(Some(Err(this.broken("silent for idle_seconds".into()))))
                }
            },
            Poll::Ready(Some(Ok(frame))) => {
                this.is_silent = false;
                if this.body.is_end_stream() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(problem))) => {
                let why = chain(&problem);
                Poll::Ready(Some(Err(this.broken(why))))
            }
            Poll::Ready(None) => {
                this.end();
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
        if let Some(progress) = &self.progress {
            progress.is_over();
        }
    }
}
