//! Tests of the memory that the bodies of HTTP/2 requests may use before they are read.

use ::http::{HeaderValue, header::RETRY_AFTER};
use http_body_util::{BodyExt as _, channel::Channel, combinators::BoxBody};
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;

use super::*;
use crate::limits::{BufferLimits, Buffers};

type Body = BoxBody<Bytes, std::convert::Infallible>;
type Sender = http2::SendRequest<Body>;

/// One window is 64 KiB, and one client has 100 KiB.
const LIMITS: BufferLimits = BufferLimits { bytes: 400 << 10, unauthenticated_bytes: 400 << 10 };
const WINDOW: usize = 64 << 10;

async fn listener(buffers: &Buffers, proxies: &[&str]) -> TestListener {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let proxies: Vec<ipnet::IpNet> = proxies.iter().map(|text| text.parse().unwrap()).collect();
    let listener = Listener::from(BoundSocket::Tcp(socket)).with_buffers(buffers.clone(), proxies);
    TestListener::on(listener, address, generous_limits(), 100)
}

/// The tasks of a client's connection, which end with this value.
#[derive(Clone, Default)]
struct Tasks(Arc<parking_lot::Mutex<tokio::task::JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().spawn(task);
    }
}

async fn connect(listener: &TestListener) -> (Sender, Tasks) {
    let io = TokioIo::new(listener.connect().await.0);
    let tasks = Tasks::default();
    let (sender, connection) = http2::Builder::new(tasks.clone()).handshake(io).await.unwrap();
    tasks.execute(async {
        let _ = connection.await;
    });
    (sender, tasks)
}

fn post(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://x{path}")).body(body).unwrap()
}

fn empty() -> Body {
    http_body_util::Empty::new().boxed()
}

fn full(bytes: usize) -> Body {
    http_body_util::Full::new(Bytes::from(vec![b'x'; bytes])).boxed()
}

/// Sends a request whose body never ends to a handler that does not read it. Returns the number of
/// bytes that the client may send.
async fn flood(sender: &mut Sender, listener: &TestListener) -> usize {
    let (mut pieces, body) = Channel::<Bytes>::new(1);
    let mut sender = sender.clone();
    tokio::spawn(async move { sender.send_request(post("/never", body.boxed())).await });
    listener.wait_for_request().await;
    let mut sent = 0;
    const PIECE: usize = 4096;
    while let Ok(Ok(())) = timeout(SHORT, pieces.send_data(Bytes::from(vec![b'x'; PIECE]))).await {
        sent += PIECE;
    }
    // The body goes on as long as the sender exists.
    tokio::spawn(async move {
        let _pieces = pieces;
        pending::<()>().await;
    });
    sent
}

#[tokio::test]
async fn bodies_that_nobody_reads_hold_one_window_per_connection() {
    let buffers = Buffers::new(LIMITS);
    let listener = listener(&buffers, &[]).await;
    let (mut sender, connection) = connect(&listener).await;
    let mut sent = 0;
    for _ in 0..6 {
        sent += flood(&mut sender, &listener).await;
    }
    // hyper's client keeps some pieces of each stream itself.
    assert!((WINDOW / 2..WINDOW * 2).contains(&sent), "{sent}");
    assert_eq!(buffers.usage().bytes, WINDOW);

    // This client has no room for a second window, but its requests without bodies are served.
    let (mut other, _other_connection) = connect(&listener).await;
    let refused = other.send_request(post("/a", full(10))).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers().get(RETRY_AFTER), Some(&HeaderValue::from_static("1")));
    assert_eq!(other.send_request(post("/a", empty())).await.unwrap().status(), 200);
    assert_eq!(buffers.usage().refused, 1);

    // The end of the connection gives the bytes back.
    connection.0.lock().abort_all();
    drop(sender);
    let freed = async {
        while buffers.usage().bytes > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, freed).await.expect("the window should be given back");
    assert_eq!(other.send_request(post("/read", full(10))).await.unwrap().status(), 200);
}

#[tokio::test]
async fn large_body_that_is_read_passes_a_small_window() {
    let buffers = Buffers::new(LIMITS);
    let listener = listener(&buffers, &[]).await;
    let (mut sender, _connection) = connect(&listener).await;
    let response = sender.send_request(post("/read", full(WINDOW * 20))).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), WINDOW * 20);
}

/// The connections of a proxy carry the requests of many clients.
#[tokio::test]
async fn trusted_proxy_may_use_the_whole_budget() {
    let buffers = Buffers::new(LIMITS);
    let listener = listener(&buffers, &["127.0.0.0/8"]).await;
    let mut connections = Vec::new();
    for _ in 0..6 {
        let (mut sender, connection) = connect(&listener).await;
        flood(&mut sender, &listener).await;
        connections.push((sender, connection));
    }
    assert_eq!(buffers.usage().bytes, WINDOW * 6);
    let (mut sender, _connection) = connect(&listener).await;
    assert_eq!(sender.send_request(post("/a", full(10))).await.unwrap().status(), 503);
}
