//! Two connections that speak another protocol from now on: what comes from one side goes to the other.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::Instant,
};

/// Passes on what comes, as soon as both sides have changed, until both have ended or neither said anything for `idle`.
pub(super) fn open(client: OnUpgrade, upstream: OnUpgrade, idle: Duration) {
    tokio::spawn(async move {
        let both = async { tokio::try_join!(client, upstream) };
        match tokio::time::timeout(idle, both).await {
            Ok(Ok((client, upstream))) => pass(client, upstream, idle).await,
            Ok(Err(problem)) => tracing::debug!("an upgrade did not come about: {problem}"),
            Err(_) => tracing::debug!("an upgrade did not come about in time"),
        }
    });
}

async fn pass(client: Upgraded, upstream: Upgraded, idle: Duration) {
    let clock = Arc::new(Clock { began: Instant::now(), heard: AtomicU64::new(0) });
    let mut client = Heard { io: TokioIo::new(client), clock: clock.clone() };
    let mut upstream = Heard { io: TokioIo::new(upstream), clock: clock.clone() };
    tokio::select! {
        ended = copy_bidirectional(&mut client, &mut upstream) => if let Err(problem) = ended {
            tracing::debug!("an upgraded connection broke: {problem}");
        },
        () = clock.silence(idle) => tracing::debug!("an upgraded connection was silent: ended"),
    }
}

/// When something was last heard from either side.
struct Clock {
    began: Instant,
    /// Milliseconds since `began`.
    heard: AtomicU64,
}

impl Clock {
    fn note(&self) {
        let millis = self.began.elapsed().as_millis();
        self.heard.store(u64::try_from(millis).unwrap_or(u64::MAX / 4), Relaxed);
    }

    /// Ends when nothing was heard for `idle`.
    async fn silence(&self, idle: Duration) {
        loop {
            let until = self.began + Duration::from_millis(self.heard.load(Relaxed)) + idle;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// A side, listened to.
struct Heard<T> {
    io: T,
    clock: Arc<Clock>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.clock.note();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
