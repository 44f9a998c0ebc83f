//! Tests of the server over real sockets: limits, malformed HTTP, shutdown, and each kind of
//! handler.

mod bounds;
mod connection;
mod envoy;
mod framing;
mod http2;
mod proxy;
mod proxy_protocol;
mod proxy_tls;
mod shutdown;
mod smuggling;
mod support;
mod tls;
mod tunnel;
mod upstream;
mod verify;

use std::{
    future::pending,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use ::http::{Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{BoundSocket, ConnectionLimits, Listener, Peer, Service, serve};
use crate::{
    handlers::{BodyError, Payload, PayloadResponse},
    http::response,
    pipeline::record::RequestRecord,
};

/// How long an operation may take before a test gives up. No test asserts that anything is faster.
const PATIENCE: Duration = Duration::from_secs(20);
/// A time limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);
const LARGE: usize = 64 << 20;

/// Limits that no test reaches, unless the test sets a lower limit.
fn generous_limits() -> ConnectionLimits {
    ConnectionLimits {
        header_bytes: 16 * 1024,
        headers: 100,
        header_read: PATIENCE * 3,
        idle: PATIENCE * 3,
        http2_streams: 16,
        drain: PATIENCE * 3,
    }
}

/// Responds depending on the path. `/wait` gets its response after
/// [`TestListener::release_waiting_requests`], and `/never` gets no response. The body for `/who`
/// is scheme and client, for `/large` [`LARGE`] bytes, for `/half` a truncated body, and for
/// `/read` the body of the request. The response to `/switch` switches to a protocol that the
/// client did not request. `/stalled` sends the beginning of a body and no more. The body for all
/// other paths is method and path.
#[derive(Clone)]
struct PathService {
    is_open: watch::Receiver<bool>,
    requests: Arc<Semaphore>,
}

impl Service for PathService {
    type Body = Payload;

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        _: &RequestRecord,
    ) -> PayloadResponse {
        let method = request.method().clone();
        let text = format!("{method} {}", request.uri().path());
        // Wakes the tests that wait for a request.
        self.requests.add_permits(1);
        let body = match request.uri().path() {
            "/wait" => {
                self.is_open.clone().wait_for(|is_open| *is_open).await.unwrap();
                text.into()
            }
            "/never" => pending().await,
            "/who" => format!("{}://{}", peer.scheme().name(), peer.client()).into(),
            "/half" => return PayloadResponse::new(Payload::stream(TruncatedBody(0))),
            "/stalled" => return PayloadResponse::new(Payload::stream(StalledBody(false))),
            "/switch" => {
                let mut switch = PayloadResponse::default();
                *switch.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                return switch;
            }
            "/large" => Bytes::from(vec![b'x'; LARGE]),
            "/read" => match request.into_body().collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => {
                    let mut broken = PayloadResponse::new("broken".into());
                    *broken.status_mut() = StatusCode::BAD_REQUEST;
                    return broken;
                }
            },
            _ => text.into(),
        };
        response::for_method(&method, PayloadResponse::new(body.into()))
    }
}

/// A body that fails after its first piece was sent.
struct TruncatedBody(u8);

impl Body for TruncatedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data("half".into())))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(BodyError::new("no more came")))),
        }
    }
}

/// A body that stops after its first piece was sent.
struct StalledBody(bool);

impl Body for StalledBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let has_begun = std::mem::replace(&mut self.0, true);
        if has_begun { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data("half".into())))) }
    }
}

/// A running listener with a [`PathService`].
struct TestListener {
    address: SocketAddr,
    connections: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    open: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl TestListener {
    async fn new(limits: ConnectionLimits) -> Self {
        Self::with_connections(limits, 100).await
    }

    async fn with_connections(limits: ConnectionLimits, max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(BoundSocket::Tcp(listener), address, limits, max)
    }

    fn on(
        listener: impl Into<Listener>,
        address: SocketAddr,
        limits: ConnectionLimits,
        max: usize,
    ) -> Self {
        Self::sharing(listener, address, limits, Arc::new(Semaphore::new(max)))
    }

    fn sharing(
        listener: impl Into<Listener>,
        address: SocketAddr,
        limits: ConnectionLimits,
        connections: Arc<Semaphore>,
    ) -> Self {
        let requests = Arc::new(Semaphore::new(0));
        let (open, is_open) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let service = PathService { is_open, requests: requests.clone() };
        let shutdown = async { stopped.await.unwrap_or_default() };
        let served =
            tokio::spawn(serve(listener.into(), limits, connections.clone(), service, shutdown));
        Self { address, connections, requests, open, stop: Some(stop), served }
    }

    async fn connect(&self) -> TestConnection {
        TestConnection(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes on a new connection and reads until the server closes it.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut connection = self.connect().await;
        // The server may close before all bytes are sent.
        let _ = connection.0.write_all(bytes.as_ref()).await;
        connection.rest().await
    }

    /// Waits until a request has come to the service.
    async fn wait_for_request(&self) {
        timeout(PATIENCE, self.requests.acquire())
            .await
            .expect("a request should come to the service")
            .unwrap()
            .forget();
    }

    /// Lets requests for `/wait` get their responses.
    fn release_waiting_requests(&self) {
        self.open.send_replace(true);
    }

    /// Begins the shutdown.
    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the shutdown is complete.
    async fn ended(self) {
        timeout(PATIENCE, self.served).await.expect("the listener should end").unwrap();
    }

    /// Waits until exactly `open` of `max` connections are open.
    async fn wait_for_open(&self, open: usize, max: usize) {
        let waiting = async {
            while self.connections.available_permits() != max - open {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting)
            .await
            .expect("the number of open connections should reach the expected number");
    }
}

/// The client's end of a connection.
struct TestConnection(TcpStream);

impl TestConnection {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and including `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let reading = async {
            while !text.ends_with(end.as_bytes()) {
                text.push(self.0.read_u8().await.unwrap());
            }
        };
        let done = timeout(PATIENCE, reading).await;
        let text = String::from_utf8(text).unwrap();
        done.unwrap_or_else(|_| panic!("{end:?} was not received: {text}"));
        text
    }

    /// Reads until the server closes. A reset after the last byte also counts as the end.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = read.unwrap_or_else(|_| panic!("the server does not close: {text}"));
        text
    }
}

/// A `GET` request for a target.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// The status codes of the responses on a connection.
fn statuses(text: &str) -> Vec<u16> {
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().unwrap()).collect()
}
