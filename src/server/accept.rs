//! Accepts connections and serves HTTP on them. Everything that a client can use up has a limit.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use ::http::{Response, StatusCode};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::{
    Request,
    body::{Body, Incoming},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    accept_errors::AcceptErrors,
    connection::{
        head::{self, HeadLimits},
        io::{MonitoredIo, ReturnedSocket, Socket},
        stream::{Progress, StreamExecutor},
        timeouts::{ConnectionTimeouts, ResponseSource, TimeoutCheck},
        tracked_body::TrackedBody,
        window::{self, WindowBudget},
    },
    listener::{AcceptRules, Blame, FailedHandshake, Listener, Peer},
    observed::Observed,
    peers::PeerConnection,
    proxy_protocol::ProxyHeaderError,
};
use crate::pipeline::record::{ConnectionEvent, RequestRecord};

/// The limits of a listener's connections.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// The maximum number of bytes of a request's line and header fields together.
    pub header_bytes: usize,
    /// The maximum number of header fields of a request.
    pub headers: usize,
    /// The maximum time from the first byte of a request's head to its last byte.
    pub header_read: Duration,
    /// The maximum time that a connection may be without a request. This is also the maximum time
    /// during which a client may read no bytes of a response, or an HTTP/2 stream's client may take
    /// no bytes.
    pub idle: Duration,
    /// The maximum number of concurrent requests on an HTTP/2 connection.
    pub http2_streams: u32,
    /// The maximum time that requests in flight may take after the listener stops.
    pub drain: Duration,
}

impl ConnectionLimits {
    /// The limits of a request's head.
    #[must_use]
    pub fn head(&self) -> HeadLimits {
        HeadLimits { bytes: self.header_bytes, fields: self.headers }
    }
}

/// Responds to the requests of a listener.
pub trait Service: Clone + Send + Sync + 'static {
    /// The body of the service's responses.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync>
        + From<Bytes>
        + Send
        + Unpin
        + 'static;

    /// A handle for one connection. The handle may have separate reference counts, so that no
    /// other core writes to these counts.
    #[must_use]
    fn for_connection(&self) -> Self {
        self.clone()
    }

    /// Responds to a request. If the request fails, the response says so. Writes into `record` what
    /// was decided.
    fn respond(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        record: &RequestRecord,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves connections until `shutdown` completes. Then waits until all requests in flight have a
/// response, for at most [`ConnectionLimits::drain`].
///
/// Each connection takes a permit of `connections` before the server reads from the connection.
/// When no permit is free, the listener accepts one more connection, which waits for a permit.
/// Further connections wait in the kernel's queue.
pub async fn serve<S: Service>(
    listener: impl Into<Listener>,
    limits: ConnectionLimits,
    connections: Arc<Semaphore>,
    service: S,
    shutdown: impl Future<Output = ()>,
) {
    let listener = listener.into();
    let windows = listener.windows().cloned();
    let builder = Arc::new(builder(&limits, windows.as_ref().map(WindowBudget::bytes)));
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut errors = AcceptErrors::default();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        match accepted {
            Ok((socket, peer, permit)) => {
                let (rules, limits) = (listener.rules().clone(), limits.clone());
                let socket = Some(socket);
                let (windows, observed) = (windows.clone(), listener.observed().clone());
                let connection =
                    AcceptedConnection { socket, peer, rules, limits, windows, permit, observed };
                tasks.spawn(connection.run(builder.clone(), service.clone(), stopping.clone()));
            }
            Err(problem) => {
                // The process has no free file descriptor, or the client closed the connection at
                // once. The listener goes on in both cases.
                errors.report(&problem);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // Removes connections that have ended, so that the set does not grow.
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(
            connections = tasks.len(),
            "the drain time is over: closed the connections that had requests in flight"
        );
        tasks.shutdown().await;
    }
}

/// Accepts the next connection, then takes its permit. In this order, a listener without clients
/// never holds a permit that another listener needs.
async fn accept(
    listener: &Listener,
    connections: &Arc<Semaphore>,
) -> io::Result<(Socket, Peer, ConnectionPermit)> {
    let (socket, peer, counted) = loop {
        let (socket, peer) = listener.accept().await?;
        match listener.admit(&peer) {
            Some(counted) => break (socket, peer, counted),
            None => {
                listener.observed().report(ConnectionEvent::PeerLimit);
                tracing::debug!(
                    client = %peer.client(),
                    "a connection was closed: its address has too many connections"
                );
            }
        }
    };
    // This cannot fail, because the semaphore is never closed.
    let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((socket, peer, ConnectionPermit { _permit: permit, _counted: counted }))
}

/// `window` is the number of bytes that an HTTP/2 client may send before they are read. `None`
/// means hyper's number.
fn builder(limits: &ConnectionLimits, window: Option<u32>) -> auto::Builder<StreamExecutor> {
    /// The maximum number of bytes of a response that an HTTP/2 stream keeps for a slow client.
    const SEND_BUFFER: usize = 64 * 1024;
    /// hyper parses up to this number of header fields without an allocation for each request.
    const HEADERS_ON_STACK: usize = 100;
    let mut builder = auto::Builder::new(StreamExecutor { idle: limits.idle });
    let mut http1 = builder.http1();
    http1.max_buf_size(limits.header_bytes.max(8192)).half_close(false);
    if limits.headers != HEADERS_ON_STACK {
        http1.max_headers(limits.headers);
    }
    let header_list_size = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .http2()
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(header_list_size)
        .max_send_buf_size(SEND_BUFFER);
    if let Some(window) = window {
        // A stream that is not read must not stop the connection's other streams.
        builder
            .http2()
            .initial_connection_window_size(window)
            .initial_stream_window_size(window / 2);
    }
    builder
}

struct AcceptedConnection {
    /// `None` after the handshake has begun.
    socket: Option<Socket>,
    peer: Peer,
    rules: AcceptRules,
    limits: ConnectionLimits,
    windows: Option<WindowBudget>,
    permit: ConnectionPermit,
    observed: Observed,
}

/// The places that a connection takes in the limits of its listener.
struct ConnectionPermit {
    _permit: OwnedSemaphorePermit,
    _counted: PeerConnection,
}

impl AcceptedConnection {
    async fn run<S: Service>(
        mut self,
        builder: Arc<auto::Builder<StreamExecutor>>,
        service: S,
        mut stopping: watch::Receiver<bool>,
    ) {
        let timeouts = Arc::new(ConnectionTimeouts::new(self.limits.header_read, self.limits.idle));
        let _open = self.observed.opened();
        let handshake = self.handshake(&timeouts, &mut stopping).await;
        let Some((socket, peer)) = handshake else { return };
        let service = Arc::new((service.for_connection(), self.observed.clone()));
        let head_limits = self.limits.head();
        let window = self.windows.as_ref().map(|windows| windows.connection(peer.client()));
        let service = service_fn(|mut request: Request<Incoming>| {
            let in_flight = timeouts.begin_request();
            let has_room = window.as_ref().is_none_or(|window| window.admit(&mut request));
            let service = service.clone();
            async move {
                let (service, observed) = &*service;
                let record = RequestRecord::begin(observed.observation());
                let method = record.is_on().then(|| request.method().clone());
                let response = match head::rejection(&request, &head_limits) {
                    None if !has_room => window::refuse(request).map(S::Body::from),
                    None => service.respond(request, &peer, &record).await,
                    Some(rejection) => rejection.map(S::Body::from),
                };
                if let Some(method) = method {
                    observed.finished(&record, &method, response.status());
                }
                let timeouts = in_flight.timeouts();
                timeouts.begin_response(ResponseSource::of(&response));
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    timeouts.set_upgraded();
                }
                Progress::Offered.report();
                Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, in_flight)))
            }
        });
        let (io, returned, released) = MonitoredIo::new(socket, timeouts.clone());
        let io = TokioIo::new(io);
        let mut has_failed = false;
        let served = {
            // The connection owns the socket. The block drops the connection, so that the code
            // below gets the socket back.
            let connection = pin!(builder.serve_connection_with_upgrades(io, service));
            supervise(connection, |connection| connection.graceful_shutdown(), &timeouts, stopping)
                .await
        };
        match served {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                has_failed = true;
                tracing::debug!(client = %peer.client(), "a connection failed: {problem}");
            }
            Err(CloseReason(reason)) => {
                self.observed.report(ConnectionEvent::TimedOut);
                tracing::debug!(client = %peer.client(), "a connection was closed: {reason}");
                return;
            }
        }
        if timeouts.was_rejected() {
            self.observed.report(ConnectionEvent::Malformed);
        }
        if timeouts.is_upgraded() {
            wait_for_upgraded(peer, &timeouts, &returned, released).await;
        } else if let Some(socket) = returned.take()
            && (has_failed || timeouts.was_rejected() || socket.has_unread())
        {
            socket.linger().await;
        }
        drop(self.permit);
    }

    /// Performs the handshake within [`ConnectionLimits::header_read`]. `None` means that the
    /// handshake failed or that the listener stops.
    async fn handshake(
        &mut self,
        timeouts: &Arc<ConnectionTimeouts>,
        stopping: &mut watch::Receiver<bool>,
    ) -> Option<(Socket, Peer)> {
        let (socket, peer) = (self.socket.take()?, self.peer);
        if self.rules.is_empty() {
            return Some((socket, peer));
        }
        // On the heap, so that the handshake's memory is freed after the handshake. Otherwise the
        // connection's future would hold this memory until its end.
        let handshake = Box::pin(self.rules.handshake(socket, peer, timeouts));
        let result = tokio::select! {
            result = tokio::time::timeout(self.limits.header_read, handshake) => result,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return None,
        };
        match result {
            Ok(Ok(connected)) => {
                timeouts.begin_idle();
                Some(connected)
            }
            Ok(Err(failed)) => {
                self.observed.report(ConnectionEvent::FailedHandshake);
                end_failed_handshake(failed, &peer).await;
                None
            }
            Err(_) => {
                self.observed.report(ConnectionEvent::FailedHandshake);
                let client = peer.client();
                if timeouts.awaits_proxy_header() {
                    tracing::warn!(%client, "a connection was closed: {}", ProxyHeaderError::Late);
                } else {
                    tracing::debug!(%client, "a connection was closed: its handshake took too long");
                }
                None
            }
        }
    }
}

/// Logs the reason why a handshake failed. If a TLS alert has told the client the reason, reads the
/// client's remaining bytes before the socket is closed.
async fn end_failed_handshake(failed: FailedHandshake, peer: &Peer) {
    let FailedHandshake { blame, reason, socket } = failed;
    let client = peer.client();
    match blame {
        Blame::Operator => tracing::warn!(%client, "a connection was refused: {reason}"),
        Blame::Client => tracing::debug!(%client, "a connection was refused: {reason}"),
    }
    if let Some(socket) = socket {
        socket.linger().await;
    }
}

/// Waits for the end of a connection that was upgraded to another protocol. The connection keeps
/// its permit until its end. A connection that outlives the listener is aborted.
async fn wait_for_upgraded(
    peer: Peer,
    timeouts: &ConnectionTimeouts,
    returned: &ReturnedSocket,
    mut released: oneshot::Receiver<Infallible>,
) {
    let _abort = AbortOnDrop(returned);
    loop {
        match timeouts.check() {
            TimeoutCheck::CheckAgainAt(time) => {
                tokio::select! {
                    _ = &mut released => return,
                    () = sleep_until(time.into()) => {}
                }
            }
            TimeoutCheck::Expired(reason) => {
                tracing::debug!(client = %peer.client(), "a connection was closed: {reason}");
                return;
            }
        }
    }
}

/// On drop, aborts the connection if its socket is still in use.
struct AbortOnDrop<'a>(&'a ReturnedSocket);

impl Drop for AbortOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reason why a connection was closed before its end.
struct CloseReason(&'static str);

/// Serves a connection until its end or a timeout. When the listener stops, `shut_down` makes the
/// connection end after its requests in flight.
async fn supervise<C: Future>(
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
    timeouts: &ConnectionTimeouts,
    mut stopping: watch::Receiver<bool>,
) -> Result<C::Output, CloseReason> {
    let is_stopping = AtomicBool::new(false);
    let until_timeout = async {
        let mut timer = pin!(sleep_until(first_check(timeouts)));
        loop {
            tokio::select! {
                () = timer.as_mut() => match timeouts.check() {
                    TimeoutCheck::CheckAgainAt(time) => timer.as_mut().reset(time.into()),
                    TimeoutCheck::Expired(reason) => return CloseReason(reason),
                },
                _ = stopping.wait_for(|stop| *stop), if !is_stopping.load(Relaxed) => {
                    is_stopping.store(true, Relaxed);
                }
            }
        }
    };
    // Each wake of a task polls all its futures, and polling a timer or a watch channel takes a
    // lock. `FuturesUnordered` polls its future only after that future was woken, so that requests
    // do not pay for these locks.
    let mut until_timeout = FuturesUnordered::from_iter([until_timeout]);
    let mut told_to_stop = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            if let Poll::Ready(Some(close_reason)) = until_timeout.poll_next_unpin(cx) {
                return Poll::Ready(Err(close_reason));
            }
            if told_to_stop == is_stopping.load(Relaxed) {
                return Poll::Pending;
            }
            told_to_stop = true;
            shut_down(connection.as_mut());
        }
    })
    .await
}

fn first_check(timeouts: &ConnectionTimeouts) -> tokio::time::Instant {
    match timeouts.check() {
        TimeoutCheck::CheckAgainAt(time) => time.into(),
        TimeoutCheck::Expired(_) => Instant::now().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::AtomicU32,
        task::{Context, Wake, Waker},
    };

    use tokio::sync::Notify;

    use super::*;

    struct WakeCount(AtomicU32);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    /// Checks the assumption about `FuturesUnordered` on which the cost of [`supervise`] depends.
    #[test]
    fn future_is_polled_only_after_its_wake_and_wakes_the_task_that_polled_last() {
        let (notify, polls) = (Notify::new(), AtomicU32::new(0));
        let mut notified = pin!(notify.notified());
        let mut futures = FuturesUnordered::from_iter([poll_fn(|cx| {
            polls.fetch_add(1, Relaxed);
            notified.as_mut().poll(cx)
        })]);
        let tasks = [0, 1].map(|_| Arc::new(WakeCount(AtomicU32::new(0))));
        let wakers = tasks.clone().map(Waker::from);
        let mut poll = |task: usize| {
            let polled = futures.poll_next_unpin(&mut Context::from_waker(&wakers[task]));
            (polled.is_ready(), polls.load(Relaxed))
        };
        let wakes = || tasks.each_ref().map(|task| task.0.load(Relaxed));
        assert_eq!([poll(0), poll(0), poll(0)], [(false, 1); 3]);
        // Another task polls from now on.
        assert_eq!([poll(1), poll(1)], [(false, 1); 2]);
        let before = wakes();
        notify.notify_waiters();
        assert_eq!(wakes(), [before[0], before[1] + 1]);
        assert_eq!(poll(1), (true, 2));
    }
}
