//! The tunnel after a protocol upgrade: copies bytes between client and upstream, in both
//! directions.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional},
    time::Instant,
};

use super::activity::LastActivity;

/// Spawns a task that waits until both sides have switched protocols, and then copies bytes until
/// both sides have ended. The task gives up when neither side sends anything for `idle`.
pub(super) fn spawn(client: OnUpgrade, upstream: OnUpgrade, idle: Duration) {
    tokio::spawn(async move {
        let upgrades = async { tokio::try_join!(client, upstream) };
        match tokio::time::timeout(idle, upgrades).await {
            Ok(Ok((client, upstream))) => copy(client, upstream, idle).await,
            Ok(Err(error)) => tracing::debug!("an upgrade failed: {error}"),
            Err(_) => tracing::debug!("an upgrade was not completed in time"),
        }
    });
}

async fn copy(client: Upgraded, upstream: Upgraded, idle: Duration) {
    let activity = Arc::new(LastActivity::now());
    let mut client = TunnelIo { io: TokioIo::new(client), activity: activity.clone() };
    let mut upstream = TunnelIo { io: TokioIo::new(upstream), activity: activity.clone() };
    tokio::select! {
        result = copy_bidirectional(&mut client, &mut upstream) => if let Err(error) = result {
            tracing::debug!("an upgraded connection failed: {error}");
        },
        () = wait_until_idle(&activity, idle) => {
            tracing::debug!("closed an idle upgraded connection");
        }
    }
}

/// Returns after `idle` without activity.
async fn wait_until_idle(activity: &LastActivity, idle: Duration) {
    loop {
        let deadline = activity.last() + idle;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}

/// One side of the tunnel. Records when bytes arrive.
struct TunnelIo<T> {
    io: T,
    activity: Arc<LastActivity>,
}

impl<T: AsyncRead + Unpin> AsyncRead for TunnelIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.touch();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for TunnelIo<T> {
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
