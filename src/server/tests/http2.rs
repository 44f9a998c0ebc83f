//! HTTP/2 with prior knowledge, on the same port.

use ::http::{Method, Version};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::*;

type Sender = http2::SendRequest<Empty<Bytes>>;

/// A connection, and the task that ends with it.
async fn connect(edge: &Edge, is_lively: bool) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    if is_lively {
        builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
        builder.keep_alive_interval(SHORT / 10).keep_alive_timeout(PATIENCE);
    }
    let io = TokioIo::new(edge.connect().await.0);
    let (sender, connection) = builder.handshake(io).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    let uri = format!("http://x{path}");
    Request::builder().method(method).uri(uri).body(Empty::new()).unwrap()
}

async fn ask(sender: &mut Sender, method: Method, path: &str) -> hyper::Result<(u16, String)> {
    let asked = async {
        let answer = sender.send_request(request(method, path)).await?;
        assert_eq!(answer.version(), Version::HTTP_2);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8(body.to_vec()).unwrap()))
    };
    timeout(PATIENCE, asked).await.expect("no answer")
}

#[tokio::test]
async fn both_versions_share_the_port() {
    let edge = Edge::new(wide()).await;
    let (mut sender, _connection) = connect(&edge, false).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap(), (200, "GET /a".into()));
    assert_eq!(ask(&mut sender, Method::HEAD, "/a").await.unwrap(), (200, String::new()));
    let text = edge.exchange(get("/b").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
    assert!(text.ends_with("GET /b"), "{text}");
}

/// An answer that takes its time does not hold up the others of its connection.
#[tokio::test]
async fn requests_run_side_by_side() {
    let edge = Edge::new(wide()).await;
    let (mut sender, _connection) = connect(&edge, false).await;
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask(&mut other, Method::GET, "/wait").await });
    edge.has_begun().await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    edge.open();
    assert_eq!(slow.await.unwrap().unwrap(), (200, "GET /wait".into()));
}

#[tokio::test]
async fn only_so_many_requests_run_at_once() {
    let edge = Edge::new(Limits { http2_streams: 2, ..wide() }).await;
    let (mut sender, _connection) = connect(&edge, false).await;
    // The client knows the limit once something was answered.
    ask(&mut sender, Method::GET, "/a").await.unwrap();
    edge.has_begun().await;
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move { ask(&mut sender, Method::GET, "/wait").await })
        })
        .collect();
    edge.has_begun().await;
    edge.has_begun().await;
    sleep(SHORT).await;
    assert_eq!(edge.begun.available_permits(), 0, "a third one began");
    edge.open();
    for one in waiting {
        assert_eq!(one.await.unwrap().unwrap().0, 200);
    }
}

#[tokio::test]
async fn a_head_has_a_size() {
    let edge = Edge::new(wide()).await;
    let (mut sender, _connection) = connect(&edge, false).await;
    ask(&mut sender, Method::GET, "/a").await.unwrap();
    let mut large = request(Method::GET, "/a");
    large.headers_mut().insert("x", "x".repeat(32 * 1024).try_into().unwrap());
    let answer = timeout(PATIENCE, sender.send_request(large)).await.expect("no answer");
    assert_eq!(answer.unwrap().status(), 431);
    // The connection goes on.
    ask(&mut sender, Method::GET, "/a").await.unwrap();
}

/// Pings are no requests.
#[tokio::test]
async fn a_connection_that_rests_is_closed() {
    let edge = Edge::new(Limits { idle: SHORT, ..wide() }).await;
    let (mut sender, connection) = connect(&edge, true).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    let began = Instant::now();
    let _ = timeout(PATIENCE, connection).await.expect("it is kept for ever");
    assert!(began.elapsed() >= SHORT * 9 / 10, "{:?}", began.elapsed());
}

/// A client that opens no window takes no bytes, and its socket is never full.
#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut() {
    let edge = Edge::new(Limits { idle: SHORT, ..wide() }).await;
    for path in ["/a", "/large"] {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_while_idle(true);
        builder.keep_alive_interval(SHORT / 10).keep_alive_timeout(PATIENCE);
        builder.initial_stream_window_size(0);
        let io = TokioIo::new(edge.connect().await.0);
        let (mut sender, connection) = builder.handshake(io).await.unwrap();
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request(Method::GET, path)).await.unwrap();
        assert_eq!(answer.status(), 200);
        let _ = timeout(PATIENCE, connection).await.expect("it is kept for ever");
        drop(answer);
    }
    edge.has_open(0, 100).await;
}

/// The limit on the head of a request does not cut a connection that rests, however its first bytes came.
#[tokio::test]
async fn a_connection_may_rest_longer_than_a_head_may_take() {
    let edge = Edge::new(Limits { header_read: SHORT, ..wide() }).await;
    let (mut sender, connection) = connect(&edge, true).await;
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
    sleep(SHORT * 4).await;
    assert!(!connection.is_finished(), "it was cut");
    assert_eq!(ask(&mut sender, Method::GET, "/a").await.unwrap().0, 200);
}

#[tokio::test]
async fn a_preface_may_come_in_pieces() {
    let edge = Edge::new(Limits { header_read: SHORT, ..wide() }).await;
    let mut wire = edge.connect().await;
    for piece in ["P", "RI * HTTP", "/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\x04\0\0\0\0\0"] {
        wire.send(piece).await;
        sleep(SHORT / 20).await;
    }
    let mut frames = Vec::new();
    let read = timeout(SHORT * 4, wire.0.read_to_end(&mut frames)).await;
    assert!(read.is_err(), "it was cut");
    // The server's settings, and its acknowledgement of the client's.
    assert!(frames.ends_with(b"\0\0\0\x04\x01\0\0\0\0"), "{frames:?}");
}

#[tokio::test]
async fn what_is_in_flight_is_answered_at_the_end() {
    let mut edge = Edge::new(wide()).await;
    let (sender, connection) = connect(&edge, false).await;
    let mut other = sender.clone();
    let slow = tokio::spawn(async move { ask(&mut other, Method::GET, "/wait").await });
    edge.has_begun().await;
    edge.stop();
    sleep(SHORT / 2).await;
    edge.open();
    assert_eq!(slow.await.unwrap().unwrap(), (200, "GET /wait".into()));
    drop(sender);
    let _ = timeout(PATIENCE, connection).await.expect("it is kept for ever");
    edge.ended().await;
}

#[tokio::test]
async fn what_never_ends_is_cut_off() {
    let mut edge = Edge::new(Limits { drain: SHORT, ..wide() }).await;
    let (mut sender, _connection) = connect(&edge, false).await;
    let never = tokio::spawn(async move { ask(&mut sender, Method::GET, "/never").await });
    edge.has_begun().await;
    edge.stop();
    edge.ended().await;
    assert!(never.await.unwrap().is_err());
}
