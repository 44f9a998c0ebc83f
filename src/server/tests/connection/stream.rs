//! Tests of the streams of an HTTP/2 connection.

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;

use super::*;
use crate::server::tests::{
    support::{self, TestServer},
    upstream::{head, upstream_with},
};

fn get_of(path: &str) -> Request<http_body_util::Empty<Bytes>> {
    Request::get(format!("http://x{path}")).body(http_body_util::Empty::new()).unwrap()
}

/// One stream takes no bytes, and another one is in flight.
#[tokio::test]
async fn stream_that_takes_no_bytes_is_reset_and_its_connection_lives_on() {
    let listener = TestListener::new(ConnectionLimits { idle: SHORT, ..generous_limits() }).await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(10);
    let io = TokioIo::new(listener.connect().await.0);
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut other = sender.clone();
    let waiting = tokio::spawn(async move { other.send_request(get_of("/wait")).await });
    listener.wait_for_request().await;

    let stalled = sender.send_request(get_of("/large")).await.unwrap();
    let mut body = std::pin::pin!(stalled.into_body());
    // hyper's client opens the window when a frame is taken. So the frame is kept in its queue, and
    // the end of the stream is seen after it.
    sleep(SHORT * 4).await;
    let end = async {
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok::<_, hyper::Error>(())
    };
    let end = timeout(PATIENCE, end).await.expect("the stream should end");
    assert!(end.is_err(), "the stream was not reset");

    listener.release_waiting_requests();
    let response = timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "GET /wait");
    assert!(!connection.is_finished());
    let response = sender.send_request(get_of("/a")).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn reset_of_a_stalled_stream_releases_its_upstream() {
    let (ended, end) = oneshot::channel();
    let ended = Arc::new(parking_lot::Mutex::new(Some(ended)));
    let upstream = upstream_with(move |mut stream, _| {
        let ended = ended.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            while stream.write_all(&[0; 65_536]).await.is_ok() {}
            ended.lock().take().unwrap().send(()).unwrap_or_default();
        }
    })
    .await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let resource = json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy });
    let limits = ConnectionLimits { idle: SHORT, ..support::limits() };
    let server = TestServer::with_limits(limits, &[resource]).await;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut sender, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = get_of("/x");
    request.headers_mut().insert("api-key", server.ada_credential.parse().unwrap());
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    timeout(PATIENCE, end).await.expect("the upstream's connection should end").unwrap();
    drop(response);
}
