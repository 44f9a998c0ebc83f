//! Tests of HTTP/2 with prior knowledge, on the same port as HTTP/1.1.

use ::http::{Method, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::*;

type Sender = http2::SendRequest<Empty<Bytes>>;

/// Opens a connection. Returns its sender, and the task that ends with the connection.
async fn connect(
    listener: &TestListener,
    sends_pings: bool,
) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if sends_pings {
        builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
        builder.keep_alive_interval(SHORT / 10).keep_alive_timeout(PATIENCE);
    }
    let io = TokioIo::new(listener.connect().await.0);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://x{path}");
    Request::builder().method(method).uri(uri).body(Empty::new()).unwrap()
}

async fn ask(sender: &mut Sender, method: Method, path: &str) -> hyper::Result<(u16, String)> {
    let exchange = async {
        let response = sender.send_request(request(method, path)).await?;
        assert_eq!(response.version(), Version::HTTP_2);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    };
    timeout(PATIENCE, exchange).await.expect("the server should respond")
}

#[tokio::test]
async fn both_versions_share_the_port() {
    let listener = TestListener::new(generous_limits()).await;
    let (mut sender, _connection) = connect(&listener, false).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap(), (200, "GET /a".into()));
    assert_eq!(ask(&mut sender, Method::HEAD, "/a").await.unwrap(), (200, String::new()));
    let text =
        listener.exchange(get("/b").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(text.ends_with("GET /b"), "{text}");
}

/// A slow response does not delay other responses on the same connection.
#[tokio::test]
async fn requests_of_a_connection_run_concurrently() {
    let listener = TestListener::new(generous_limits()).await;
    let (mut sender, _connection) = connect(&listener, false).await;
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask(&mut other, Method::GET, "/wait").await });
    listener.wait_for_request().await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    listener.release_waiting_requests();
    assert_eq!(slow.await.unwrap().unwrap(), (200, "GET /wait".into()));
}

#[tokio::test]
async fn concurrent_requests_are_limited() {
    let listener =
        TestListener::new(ConnectionLimits { http2_streams: 2, ..generous_limits() }).await;
    let (mut sender, _connection) = connect(&listener, false).await;
    // The client knows the limit after its first response.
    ask(&mut sender, Method::GET, "/a").await.unwrap();
    listener.wait_for_request().await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, Method::GET, "/wait").await })
        })
        .collect();
    listener.wait_for_request().await;
    listener.wait_for_request().await;
    sleep(SHORT).await;
    assert_eq!(listener.requests.available_permits(), 0, "a third request came to the service");
    listener.release_waiting_requests();
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap().0, 200);
    }
}

#[tokio::test]
async fn head_larger_than_the_limit_is_rejected() {
    let listener = TestListener::new(generous_limits()).await;
    let (mut sender, _connection) = connect(&listener, false).await;
    ask(&mut sender, Method::GET, "/a").await.unwrap();
    let mut large = request(Method::GET, "/a");
    large.headers_mut().insert("x", "x".repeat(32 * 1024).try_into().unwrap());
    let response =
        timeout(PATIENCE, sender.send_request(large)).await.expect("the server should respond");
    assert_eq!(response.unwrap().status(), 431);
    // The connection stays open.
    ask(&mut sender, Method::GET, "/a").await.unwrap();
}

/// Pings do not count as requests.
#[tokio::test]
async fn idle_connection_is_closed() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    let (mut sender, connection) = connect(&listener, true).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    let began = Instant::now();
    let _ = timeout(PATIENCE, connection).await.expect("the server should close the connection");
    assert!(began.elapsed() >= SHORT * 9 / 10, "{:?}", began.elapsed());
}

/// The client keeps the HTTP/2 windows of its streams closed. The server's writes to the socket
/// never block. Therefore only the idle timeout can close this connection.
#[tokio::test]
async fn connection_without_stream_window_is_closed_when_idle() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    for path in ["/a", "/large"] {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
        builder.keep_alive_interval(SHORT / 10).keep_alive_timeout(PATIENCE);
        builder.initial_stream_window_size(0);
        let io = TokioIo::new(listener.connect().await.0);
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let response = sender.send_request(request(Method::GET, path)).await.unwrap();
        assert_eq!(response.status(), 200);
        let _ =
            timeout(PATIENCE, connection).await.expect("the server should close the connection");
        drop(response);
    }
    listener.wait_for_open(0, 100).await;
}

/// The timeout of a head does not apply to an idle connection.
#[tokio::test]
async fn idle_connection_outlives_the_head_timeout() {
    let listener =
        TestListener::new(ConnectionLimits { header_read: SHORT, ..generous_limits() }).await;
    let (mut sender, connection) = connect(&listener, true).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    sleep(SHORT * 4).await;
    assert!(!connection.is_finished(), "the connection was closed");
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
}

#[tokio::test]
async fn preface_in_pieces_is_accepted() {
    let listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    for piece in ["P", "RI * HTTP", "/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\x04\0\0\0\0\0"] {
        connection.send(piece).await;
        sleep(SHORT / 20).await;
    }
    let mut frames = Vec::new();
    let read = timeout(SHORT * 4, connection.0.read_to_end(&mut frames)).await;
    assert!(read.is_err(), "the connection was closed");
    // The last frame is the server's acknowledgement of the client's settings.
    assert!(frames.ends_with(b"\0\0\0\x04\x01\0\0\0\0"), "{frames:?}");
}

#[tokio::test]
async fn request_in_flight_gets_its_response_at_shutdown() {
    let mut listener = TestListener::new(generous_limits()).await;
    let (sender, connection) = connect(&listener, false).await;
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask(&mut other, Method::GET, "/wait").await });
    listener.wait_for_request().await;
    listener.stop();
    sleep(SHORT / 2).await;
    listener.release_waiting_requests();
    assert_eq!(slow.await.unwrap().unwrap(), (200, "GET /wait".into()));
    drop(sender);
    let _ = timeout(PATIENCE, connection).await.expect("the server should close the connection");
    listener.ended().await;
}

#[tokio::test]
async fn connections_are_closed_after_the_drain_time() {
    let mut listener =
        TestListener::new(ConnectionLimits { drain: SHORT, ..generous_limits() }).await;
    let (mut sender, _connection) = connect(&listener, false).await;
    let never = tokio::spawn(async move { ask(&mut sender, Method::GET, "/never").await });
    listener.wait_for_request().await;
    listener.stop();
    listener.ended().await;
    assert!(never.await.unwrap().is_err());
}
