//! The edge over real sockets: what a client may take, what is not HTTP, and how it ends.

mod bounds;
mod decide;
mod end;
mod envoy;
mod framing;
mod http2;
mod preamble;
mod proxy;
mod proxy_tls;
mod rig;
mod smuggling;
mod tls;
mod tunnel;
mod upstream;

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

use super::{Answer, Door, Limits, Listener, Peer, serve};
use crate::{
    handlers::{BrokenOff, Payload, PayloadResponse},
    http::response,
};

/// How long anything may take before a test gives up. Nothing is asserted about being faster.
const PATIENCE: Duration = Duration::from_secs(20);
/// A limit that a test waits for.
const SHORT: Duration = Duration::from_millis(200);
const LARGE: usize = 64 << 20;

/// Limits that no test comes near, unless it sets one.
fn wide() -> Limits {
    Limits {
        header_bytes: 16 * 1024,
        headers: 100,
        header_read: PATIENCE * 3,
        idle: PATIENCE * 3,
        http2_streams: 16,
        drain: PATIENCE * 3,
    }
}

/// Answers by the path: `/wait` when the gate opens, `/who` asks, `/never`, `/large`, `/half` of a body, `/read` with the body that came, `/switch` to
/// another protocol, and all else with what was asked.
#[derive(Clone)]
struct Paths {
    gate: watch::Receiver<bool>,
    begun: Arc<Semaphore>,
}

impl Answer for Paths {
    type Body = Payload;

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> PayloadResponse {
        let method = request.method().clone();
        let text = format!("{method} {}", request.uri().path());
        // A test waits for this before it goes on.
        self.begun.add_permits(1);
        let body = match request.uri().path() {
            "/wait" => {
                self.gate.clone().wait_for(|is_open| *is_open).await.unwrap();
                text.into()
            }
            "/never" => pending().await,
            "/who" => format!("{}://{}", peer.scheme().name(), peer.client()).into(),
            "/half" => return PayloadResponse::new(Payload::stream(Half(0))),
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
        response::finish(&method, PayloadResponse::new(body.into()))
    }
}

/// A body that breaks off after its first piece was sent.
struct Half(u8);

impl Body for Half {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.0 += 1;
        match self.0 {
            1 => Poll::Ready(Some(Ok(Frame::data("half".into())))),
            2 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some(Err(BrokenOff::new("no more came")))),
        }
    }
}

/// A listener that is being served.
struct Edge {
    address: SocketAddr,
    connections: Arc<Semaphore>,
    begun: Arc<Semaphore>,
    gate: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
}

impl Edge {
    async fn new(limits: Limits) -> Self {
        Self::with_connections(limits, 100).await
    }

    async fn with_connections(limits: Limits, most: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::on(Listener::Tcp(listener), address, limits, most)
    }

    fn on(listener: impl Into<Door>, address: SocketAddr, limits: Limits, most: usize) -> Self {
        Self::sharing(listener, address, limits, Arc::new(Semaphore::new(most)))
    }

    fn sharing(
        listener: impl Into<Door>,
        address: SocketAddr,
        limits: Limits,
        connections: Arc<Semaphore>,
    ) -> Self {
        let begun = Arc::new(Semaphore::new(0));
        let (gate, opened) = watch::channel(false);
        let (stop, stopped) = oneshot::channel();
        let paths = Paths { gate: opened, begun: begun.clone() };
        let shutdown = async { stopped.await.unwrap_or_default() };
        let served =
            tokio::spawn(serve(listener.into(), limits, connections.clone(), paths, shutdown));
        Self { address, connections, begun, gate, stop: Some(stop), served }
    }

    async fn connect(&self) -> Wire {
        Wire(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends bytes over a connection of its own and reads until the server closes.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut wire = self.connect().await;
        // A server that has heard enough may close before everything is sent.
        let _ = wire.0.write_all(bytes.as_ref()).await;
        wire.rest().await
    }

    /// Waits until an answer is being made.
    async fn has_begun(&self) {
        timeout(PATIENCE, self.begun.acquire()).await.expect("no request came").unwrap().forget();
    }

    /// Lets `/wait` answer.
    fn open(&self) {
        self.gate.send_replace(true);
    }

    /// Begins the end.
    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until the server has ended.
    async fn ended(self) {
        timeout(PATIENCE, self.served).await.expect("it does not end").unwrap();
    }

    /// Waits until `open` connections are there.
    async fn has_open(&self, open: usize, of: usize) {
        let fewer = async {
            while self.connections.available_permits() != of - open {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, fewer).await.expect("a connection is not over");
    }
}

/// The client's end of a connection.
struct Wire(TcpStream);

impl Wire {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until `end` was read.
    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        let reading = async {
            while !text.ends_with(end.as_bytes()) {
                text.push(self.0.read_u8().await.unwrap());
            }
        };
        let done = timeout(PATIENCE, reading).await;
        let text = String::from_utf8(text).unwrap();
        done.unwrap_or_else(|_| panic!("{end:?} did not come: {text}"));
        text
    }

    /// Reads until the server closes. A reset after the last byte is an end too.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.0.read_to_end(&mut bytes)).await;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = read.unwrap_or_else(|_| panic!("it does not close: {text}"));
        text
    }
}

/// A request with this line.
fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")
}

/// The status codes in what a connection brought.
fn statuses(text: &str) -> Vec<u16> {
    let heads = text.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().unwrap()).collect()
}
