//! Accepting connections. A bound listener and a future that ends it go in; everything that a client can take is bounded.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use ::http::{Response, StatusCode};
use bytes::Bytes;
use hyper::{
    Request,
    body::{Body, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch as signal},
    task::JoinSet,
    time::sleep_until,
};

use super::{
    connection::{
        io::{Left, Socket, Watched},
        timeouts::{InFlight, Verdict, Watch},
        wake::Aside,
    },
    listener::{Door, Peer, Refused, Rules, Whose},
};
use crate::handlers::Foreign;

/// What a client may take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of a request's line and header fields.
    pub header_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// How long a request's head may take, from its first byte.
    pub header_read: Duration,
    /// How long a connection may be without a request, and how long a client may take no bytes of an answer.
    pub idle: Duration,
    /// Requests at the same time on an HTTP/2 connection.
    pub http2_streams: u32,
    /// How long requests in flight get when the listener ends.
    pub drain: Duration,
}

/// What a listener asks for answers.
pub trait Answer: Clone + Send + Sync + 'static {
    /// The body of its answers.
    type Body: Body<Data = Bytes, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static;

    /// The same for one connection: what its requests count their uses of is its own, and no other core writes there.
    #[must_use]
    fn for_connection(&self) -> Self {
        self.clone()
    }

    /// Answers a request, whatever comes of it.
    fn answer(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Serves until `shutdown`, and then until what is in flight is answered or [`Limits::drain`] is over.
///
/// A connection takes a permit of `connections` before it is read from. Beyond them one more is accepted, and the rest waits in the
/// kernel's queue.
pub async fn serve<A: Answer>(
    door: impl Into<Door>,
    limits: Limits,
    connections: Arc<Semaphore>,
    answer: A,
    shutdown: impl Future<Output = ()>,
) {
    let door = door.into();
    let builder = Arc::new(builder(&limits));
    let (stop, stopping) = signal::channel(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let next = tokio::select! {
            () = &mut shutdown => break,
            next = next(&door, &connections) => next,
        };
        match next {
            Ok((socket, peer, permit)) => {
                let rules = door.rules().clone();
                let connection = Connection {
                    socket: Some(socket),
                    peer,
                    rules,
                    limits: limits.clone(),
                    permit,
                };
                tasks.spawn(connection.run(builder.clone(), answer.clone(), stopping.clone()));
            }
            Err(problem) => {
                // Out of file descriptors, or a client that left at once. Neither ends the listener.
                tracing::warn!("a connection could not be accepted: {problem}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // Keeps the set from growing with connections that are over.
        while tasks.try_join_next().is_some() {}
    }
    drop(door);
    stop.send_replace(true);
    let drained = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(connections = tasks.len(), "cut off: their time to finish is over");
        tasks.shutdown().await;
    }
}

/// The next connection, with its permit. The permit comes second: a listener whose clients are yet to come keeps none from the others.
async fn next(
    door: &Door,
    connections: &Arc<Semaphore>,
) -> io::Result<(Socket, Peer, OwnedSemaphorePermit)> {
    let (socket, peer) = door.accept().await?;
    // The semaphore is never closed.
    let permit = connections.clone().acquire_owned().await.map_err(io::Error::other)?;
    Ok((socket, peer, permit))
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    /// What hyper takes without an allocation for each request.
    const CHEAP_HEADERS: usize = 100;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1.max_buf_size(limits.header_bytes.max(8192)).half_close(false);
    if limits.headers != CHEAP_HEADERS {
        http1.max_headers(limits.headers);
    }
    let list = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    builder.http2().max_concurrent_streams(limits.http2_streams).max_header_list_size(list);
    builder
}

struct Connection {
    /// There until it is let in.
    socket: Option<Socket>,
    peer: Peer,
    rules: Rules,
    limits: Limits,
    permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run<A: Answer>(
        mut self,
        builder: Arc<auto::Builder<TokioExecutor>>,
        answer: A,
        mut stopping: signal::Receiver<bool>,
    ) {
        let watch = Arc::new(Watch::new(self.limits.header_read, self.limits.idle));
        let let_in = self.let_in(&watch, &mut stopping).await;
        let Some((socket, peer)) = let_in else { return };
        let answer = Arc::new(answer.for_connection());
        let service = service_fn(|request| {
            let mut in_flight = watch.begin();
            let answer = answer.clone();
            async move {
                let reply = answer.answer(request, &peer).await;
                let watch = in_flight.watch();
                watch.answers(reply.extensions().get::<Foreign>().is_some());
                if reply.status() == StatusCode::SWITCHING_PROTOCOLS {
                    watch.hand_over();
                }
                in_flight.offer();
                Ok::<_, Infallible>(reply.map(|body| Held { body, in_flight }))
            }
        });
        let (io, left, released) = Watched::new(socket, watch.clone());
        let io = TokioIo::new(io);
        let mut is_broken = false;
        let served = {
            // Gone before anything is done with what it leaves: it holds the socket.
            let connection = pin!(builder.serve_connection_with_upgrades(io, service));
            attended(connection, |served| served.graceful_shutdown(), &watch, stopping).await
        };
        match served {
            Ok(Ok(())) => {}
            Ok(Err(problem)) => {
                is_broken = true;
                tracing::debug!(client = %peer.client(), "a connection broke: {problem}");
            }
            Err(Cut(why)) => {
                tracing::debug!(client = %peer.client(), "a connection was cut: {why}");
                return;
            }
        }
        if watch.is_handed_over() {
            follow(peer, &watch, &left, released).await;
        } else if let Some(socket) = left.take()
            && (is_broken || watch.was_refused() || socket.has_unread())
        {
            socket.linger().await;
        }
        drop(self.permit);
    }

    /// Leads the client in, within the time that a request's head may take. None: it does not come in.
    async fn let_in(
        &mut self,
        watch: &Arc<Watch>,
        stopping: &mut signal::Receiver<bool>,
    ) -> Option<(Socket, Peer)> {
        let (socket, peer) = (self.socket.take()?, self.peer);
        if self.rules.is_open() {
            return Some((socket, peer));
        }
        // On the heap: the connection does not carry the room for it ever after.
        let coming = Box::pin(self.rules.let_in(socket, peer, watch));
        let came = tokio::select! {
            came = tokio::time::timeout(self.limits.header_read, coming) => came,
            _ = stopping.wait_for(|is_stopping| *is_stopping) => return None,
        };
        match came {
            Ok(Ok(came)) => {
                watch.rest();
                Some(came)
            }
            Ok(Err(refused)) => {
                refuse(refused, &peer).await;
                None
            }
            Err(_) => {
                let client = peer.client();
                tracing::debug!(%client, "a connection was cut: it did not come in in time");
                None
            }
        }
    }
}

/// Says why, and hears out a client that was told.
async fn refuse(Refused { whose, why, socket }: Refused, peer: &Peer) {
    let client = peer.client();
    match whose {
        Whose::Operators => tracing::warn!(%client, "a connection was refused: {why}"),
        Whose::Clients => tracing::debug!(%client, "a connection was refused: {why}"),
    }
    if let Some(socket) = socket {
        socket.linger().await;
    }
}

/// Waits for the end of a connection that speaks another protocol by now. It takes its place among the connections until then, and ends with this
/// listener at the latest.
async fn follow(
    peer: Peer,
    watch: &Watch,
    left: &Left,
    mut released: oneshot::Receiver<Infallible>,
) {
    let _end = EndOnDrop(left);
    loop {
        match watch.verdict() {
            Verdict::Wait(until) => {
                tokio::select! {
                    _ = &mut released => return,
                    () = sleep_until(until.into()) => {}
                }
            }
            Verdict::Cut(why) => {
                tracing::debug!(client = %peer.client(), "a connection was cut: {why}");
                return;
            }
        }
    }
}

/// Ends a connection whose socket somebody else still holds.
struct EndOnDrop<'a>(&'a Left);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Why a connection was ended.
struct Cut(&'static str);

/// Serves a connection until it is over, or takes too long. When the listener stops, it is told to end with what is in flight.
async fn attended<C: Future>(
    mut connection: Pin<&mut C>,
    tell: impl Fn(Pin<&mut C>),
    watch: &Watch,
    mut stopping: signal::Receiver<bool>,
) -> Result<C::Output, Cut> {
    let is_told = AtomicBool::new(false);
    let until_cut = async {
        let mut timer = pin!(sleep_until(first_look(watch)));
        loop {
            tokio::select! {
                () = timer.as_mut() => match watch.verdict() {
                    Verdict::Wait(until) => timer.as_mut().reset(until.into()),
                    Verdict::Cut(why) => return Cut(why),
                },
                _ = stopping.wait_for(|is_stopping| *is_stopping), if !is_told.load(Relaxed) => {
                    is_told.store(true, Relaxed);
                }
            }
        }
    };
    let mut until_cut = pin!(Aside::new(until_cut));
    let mut knows = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Ok(ended));
            }
            if let Poll::Ready(cut) = until_cut.as_mut().poll(cx) {
                return Poll::Ready(Err(cut));
            }
            if knows == is_told.load(Relaxed) {
                return Poll::Pending;
            }
            knows = true;
            tell(connection.as_mut());
        }
    })
    .await
}

fn first_look(watch: &Watch) -> tokio::time::Instant {
    match watch.verdict() {
        Verdict::Wait(until) => until.into(),
        Verdict::Cut(_) => Instant::now().into(),
    }
}

/// The body of an answer. Its request is in flight until the last byte was taken from it.
struct Held<B> {
    body: B,
    in_flight: InFlight,
}

impl<B: Body + Unpin> Body for Held<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // Asked for only when the client can take something.
        match polled {
            Poll::Ready(_) => self.in_flight.offer(),
            Poll::Pending => self.in_flight.owe(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
