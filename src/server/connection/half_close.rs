//! A client that has sent a whole request may close its sending half, and still gets its response
//! (RFC 9112, section 9.6). hyper would take the end of the bytes for the end of the client, so the
//! end is kept from hyper until the responses are written.
//!
//! A client that closes its whole connection looks the same until the server writes: then the
//! client's machine sends a reset. The connection therefore looks for a reset, and ends a response
//! that has begun and then writes nothing for too long.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::timeouts::ConnectionTimeouts;

/// The interval at which the connection looks for a reset.
const INTERVAL: Duration = Duration::from_secs(1);

/// The end of a client's bytes, kept from hyper.
#[derive(Debug, Default)]
pub(super) struct HalfClose {
    /// `None` means that the client may send more bytes.
    closed: Option<Closed>,
}

#[derive(Debug)]
struct Closed {
    /// The time of the last sign of the client: the end of its bytes, or a write.
    since: Instant,
    /// The task that waits for the end.
    reader: Option<Waker>,
    /// Looks for a reset. Created when the end is kept.
    timer: Option<Pin<Box<Sleep>>>,
}

impl HalfClose {
    /// Whether the client has closed its sending half.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Records that the client has closed its sending half.
    pub fn close(&mut self) {
        self.closed = Some(Closed { since: Instant::now(), reader: None, timer: None });
    }

    /// Records that bytes were written.
    pub fn wrote(&mut self) {
        if let Some(closed) = &mut self.closed {
            closed.since = Instant::now();
        }
    }

    /// Wakes hyper, because all responses are written and hyper may see the end now.
    pub fn release(&mut self) {
        if let Some(reader) = self.closed.as_mut().and_then(|closed| closed.reader.take()) {
            reader.wake();
        }
    }

    /// Keeps the end from hyper. `is_reset` says whether the client has reset the connection.
    ///
    /// # Errors
    /// The client is gone.
    pub fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        is_reset: impl Fn() -> bool,
        timeouts: &ConnectionTimeouts,
    ) -> Poll<io::Result<()>> {
        let Some(closed) = &mut self.closed else { return Poll::Ready(Ok(())) };
        closed.reader = Some(cx.waker().clone());
        let interval = timeouts.silence_limit().map_or(INTERVAL, |limit| limit.min(INTERVAL));
        let timer = closed.timer.get_or_insert_with(|| Box::pin(sleep(interval)));
        while timer.as_mut().poll(cx).is_ready() {
            let is_silent =
                timeouts.silence_limit().is_some_and(|limit| closed.since.elapsed() >= limit);
            if is_silent || is_reset() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            timer.as_mut().reset(Instant::now() + interval);
        }
        Poll::Pending
    }
}
