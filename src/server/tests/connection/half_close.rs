//! Tests of clients that close their sending half: a whole request gets its response, part of a
//! request is never executed, and a client that is gone ends its request.

use std::{net::Shutdown, time::Instant};

use serde_json::json;
use socket2::SockRef;
use tokio::net::{UnixListener, UnixStream};

use super::*;
use crate::{
    server::tests::{
        support::TestServer,
        upstream::{head, upstream_with},
    },
    tls::{TlsClient, test_authority::Authority},
};

/// Sends a text, closes the sending half at once, and reads until the server closes.
async fn half_closed(listener: &TestListener, text: &str) -> String {
    let mut connection = listener.connect().await;
    connection.send(text).await;
    connection.0.shutdown().await.unwrap();
    connection.rest().await
}

#[tokio::test]
async fn whole_request_gets_its_response() {
    let listener = TestListener::new(generous_limits()).await;
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nwhole";
    let chunked = "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
    for _ in 0..50 {
        assert!(half_closed(&listener, &get("/a")).await.ends_with("GET /a"));
        assert!(half_closed(&listener, post).await.ends_with("\r\n\r\nwhole"));
        assert!(half_closed(&listener, chunked).await.ends_with("\r\n\r\nwhole"));
        let two = half_closed(&listener, &[post, &get("/a")].concat()).await;
        assert_eq!(statuses(&two), [200, 200], "{two}");
    }
    // The connection ends with its last response, not with a timeout.
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn response_that_takes_time_is_sent() {
    let listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/wait")).await;
    connection.0.shutdown().await.unwrap();
    listener.wait_for_request().await;
    sleep(SHORT * 2).await;
    listener.release_waiting_requests();
    assert!(connection.rest().await.ends_with("GET /wait"));
    // A large response is sent to its end.
    assert!(half_closed(&listener, &get("/large")).await.len() > LARGE);
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn unix_socket_and_tls_respond_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let socket = BoundSocket::Unix(UnixListener::bind(&path).unwrap(), path.clone());
    let listener = TestListener::on(socket, "127.0.0.1:1".parse().unwrap(), generous_limits(), 100);
    for _ in 0..20 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(get("/a").as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.ends_with("GET /a"), "{text}");
    }
    listener.wait_for_open(0, 100).await;

    let authority = Authority::new();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let certificates = authority.signs("localhost").loaded();
    let listener = Listener::from(BoundSocket::Tcp(socket)).with_tls(Some(certificates));
    let listener = TestListener::on(listener, address, generous_limits(), 100);
    let client = TlsClient::new("localhost", authority.roots(), b"http/1.1").unwrap();
    for _ in 0..20 {
        let mut stream = client.handshake(listener.connect().await.0).await.unwrap();
        stream.write_all(get("/a").as_bytes()).await.unwrap();
        // Sends close_notify and the end of the TCP stream.
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.ends_with("GET /a"), "{text}");
    }
    listener.wait_for_open(0, 100).await;
}

/// The request behind a whole request is cut: only the whole request is served.
#[tokio::test]
async fn truncated_request_behind_a_whole_request_is_not_served() {
    let listener = TestListener::new(generous_limits()).await;
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    for length in [5, 30, post.len() - 5, post.len() - 1] {
        let text = half_closed(&listener, &[&get("/a"), &post[..length]].concat()).await;
        let statuses = statuses(&text);
        assert!(statuses == [200] || statuses == [200, 400], "{length}: {text}");
    }
    listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn reset_ends_the_request() {
    let listener = TestListener::new(generous_limits()).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/never")).await;
    connection.0.shutdown().await.unwrap();
    listener.wait_for_request().await;
    listener.wait_for_open(1, 100).await;
    SockRef::from(&connection.0).set_linger(Some(Duration::ZERO)).unwrap();
    drop(connection);
    listener.wait_for_open(0, 100).await;
}

/// The end of a client that closes its whole connection reaches the upstream of a stream, whether
/// or not the upstream sends events.
#[tokio::test]
async fn client_that_is_gone_ends_its_event_stream() {
    for is_silent in [false, true] {
        let (ended, end) = oneshot::channel();
        let ended = Arc::new(parking_lot::Mutex::new(Some(ended)));
        let upstream = upstream_with(move |mut stream, _| {
            let ended = ended.clone();
            async move {
                head(&mut stream).await;
                let begun =
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
                stream.write_all(begun).await.unwrap();
                let mut byte = [0];
                loop {
                    match timeout(SHORT, stream.read(&mut byte)).await {
                        Ok(_) => break,
                        Err(_) if is_silent => {}
                        Err(_) if stream.write_all(b"data: 2\n\n").await.is_err() => break,
                        Err(_) => {}
                    }
                }
                ended.lock().take().unwrap().send(()).unwrap_or_default();
            }
        })
        .await;
        let proxy = json!({ "upstreams": [upstream.url()] });
        let resource = json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy });
        let server = TestServer::new(&[resource]).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request =
            format!("GET /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\n\r\n", server.ada_credential);
        stream.write_all(request.as_bytes()).await.unwrap();
        head(&mut stream).await;
        drop(stream);
        timeout(PATIENCE, end).await.expect("the upstream's connection should end").unwrap();
    }
}

/// A response that has begun and writes nothing more keeps its connection for `idle`.
#[tokio::test]
async fn silent_response_to_a_half_closed_client_has_a_timeout() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    let mut connection = listener.connect().await;
    connection.send(&get("/stalled")).await;
    connection.until("half").await;
    // Without the half-close, the handler decides how long the response may take.
    sleep(SHORT * 2).await;
    listener.wait_for_open(1, 100).await;
    let began = Instant::now();
    SockRef::from(&connection.0).shutdown(Shutdown::Write).unwrap();
    connection.rest().await;
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    listener.wait_for_open(0, 100).await;
}
