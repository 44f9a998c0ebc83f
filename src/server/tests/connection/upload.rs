//! Tests of the limits of request bodies: those of the server, and those of a resource.

use ::http::StatusCode;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::*;
use crate::{
    handlers::BodyLimits,
    server::tests::{
        support::{TestResponse, TestServer},
        upstream::{Protocol, Upstream, echo, upstream_with},
    },
};

fn proxy(id: &str, upstream: &Upstream, protocol: &str, more: &Value) -> Value {
    let settings = json!({ "upstreams": [upstream.url()], "protocol": protocol });
    let path = format!("/{id}");
    let mut resource = json!({ "id": id, "handler": "proxy", "path": path, "proxy": settings });
    for (name, value) in more.as_object().unwrap() {
        resource[name] = value.clone();
    }
    resource
}

fn chunked(size: usize) -> String {
    format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size))
}

/// Sends a body without `Content-Length`.
async fn send_chunked(server: &TestServer, path: &str, body: &str) -> TestResponse {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAPI-KEY: {}\r\nTransfer-Encoding: chunked\r\n\r\n{body}",
        server.ada_credential
    );
    server.send(request.as_bytes()).await
}

#[tokio::test]
async fn size_limit_holds_for_each_handler() {
    let (http1, http2) = (echo(Protocol::Http1).await, echo(Protocol::Http2).await);
    let limits = BodyLimits { bytes: 1000, read: PATIENCE };
    let server = TestServer::with_body_limits(
        limits,
        &[
            proxy("http1", &http1, "http1", &json!({})),
            proxy("http2", &http2, "http2", &json!({})),
            proxy("buffered", &http1, "http1", &json!({ "buffer_body": true })),
            json!({ "id": "respond", "handler": "respond", "path": "/respond" }),
            json!({ "id": "own", "handler": "respond", "path": "/own", "body_bytes": 10 }),
            proxy("large", &http1, "http1", &json!({ "body_bytes": 100_000 })),
            proxy("none", &http1, "http1", &json!({ "body_bytes": "none" })),
            proxy("small", &http2, "http2", &json!({ "body_bytes": 10 })),
        ],
    )
    .await;
    for (path, limit) in [
        ("/http1", 1000),
        ("/http2", 1000),
        ("/buffered", 1000),
        ("/small", 10),
        ("/large", 100_000),
    ] {
        let fits = server.ask("POST", path, "", &"x".repeat(limit)).await;
        assert_eq!(fits.status, 200, "{path}: {}", fits.text());
        let fits = send_chunked(&server, path, &chunked(limit)).await;
        assert_eq!(fits.status, 200, "{path}: {}", fits.text());
        for response in [
            server.ask("POST", path, "", &"x".repeat(limit + 1)).await,
            send_chunked(&server, path, &chunked(limit + 1)).await,
        ] {
            assert_eq!(response.status, 413, "{path}: {}", response.text());
            let message = format!("The request's body is larger than {limit} bytes.");
            assert_eq!(response.json()["message"], message, "{path}");
        }
    }
    let too_large = "x".repeat(1001);
    let question = format!(
        "GET /-/verify HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1001\r\n\r\n{too_large}"
    );
    assert_eq!(support::send_to(server.verify, question.as_bytes()).await.status, 413);
    // These handlers do not read the body, but refuse a size that is too large.
    for (path, limit) in [("/respond", 1000), ("/own", 10), ("/user/1", 1000)] {
        let response = server.ask("GET", path, "", &"x".repeat(limit + 1)).await;
        assert_eq!(response.status, 413, "{path}: {}", response.text());
        let response = server.ask("GET", path, "", &"x".repeat(limit)).await;
        assert_ne!(response.status, 413, "{path}");
    }
    let unlimited = server.ask("POST", "/none", "", &"x".repeat(3_000_000)).await;
    assert_eq!(unlimited.json()["body"].as_str().unwrap().len(), 3_000_000);
    // A refusal of the credential comes first.
    let anonymous = server.ask_as("", "POST", "/http1", "", &"x".repeat(1001)).await;
    assert_eq!(anonymous.status, 401);
}

/// The upstream sees the beginning of the body, and never its end.
#[tokio::test]
async fn upload_that_exceeds_a_limit_midway_is_aborted() {
    let (seen, mut all_seen) = tokio::sync::mpsc::unbounded_channel();
    let upstream = upstream_with(move |mut stream, _| {
        let seen = seen.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            seen.send(String::from_utf8(bytes).unwrap()).unwrap();
        }
    })
    .await;
    let limits = BodyLimits { bytes: 1000, read: SHORT };
    let server =
        TestServer::with_body_limits(limits, &[proxy("x", &upstream, "http1", &json!({}))]).await;
    let part = format!("384\r\n{}\r\n", "x".repeat(900));
    for (rest, status) in [("384\r\n", 413), ("", 408)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
            server.ada_credential
        );
        stream.write_all(format!("{head}{part}{rest}").as_bytes()).await.unwrap();
        if status == 413 {
            stream.write_all("x".repeat(900).as_bytes()).await.unwrap();
        }
        let response = TestResponse::read(&mut stream).await;
        assert_eq!(response.status, status, "{}", response.text());
        let seen = timeout(PATIENCE, all_seen.recv()).await.unwrap().unwrap();
        assert!(seen.contains("xxx"), "the upstream should see the beginning: {seen}");
        assert!(!seen.ends_with("0\r\n\r\n"), "the upstream saw the end: {seen}");
    }
}

#[tokio::test]
async fn time_limit_of_a_resource_replaces_the_limit_of_the_server() {
    let upstream = echo(Protocol::Http1).await;
    let limits = BodyLimits { bytes: 1000, read: SHORT };
    let server = TestServer::with_body_limits(
        limits,
        &[
            proxy("none", &upstream, "http1", &json!({ "body_read_seconds": "none" })),
            proxy("long", &upstream, "http1", &json!({ "body_read_seconds": 60 })),
            proxy("x", &upstream, "http1", &json!({})),
        ],
    )
    .await;
    for (path, status) in [("/none", 200), ("/long", 200), ("/x", 408)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAPI-KEY: {}\r\nContent-Length: 8\r\n\r\nhalf",
            server.ada_credential
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        sleep(SHORT * 4).await;
        let _ = stream.write_all(b"rest").await;
        let response = TestResponse::read(&mut stream).await;
        assert_eq!(response.status, status, "{path}: {}", response.text());
    }
}

#[tokio::test]
async fn limit_holds_for_a_stream_of_http2() {
    let upstream = echo(Protocol::Http2).await;
    let limits = BodyLimits { bytes: 1000, read: PATIENCE };
    let resources = [proxy("x", &upstream, "http2", &json!({}))];
    let server = TestServer::with_body_limits(limits, &resources).await;
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    for (size, status) in [(1000, StatusCode::OK), (1001, StatusCode::PAYLOAD_TOO_LARGE)] {
        // A body without a declared size.
        let pieces = [Bytes::from(vec![b'x'; size - 1]), Bytes::from("x")];
        let frames = pieces.map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::post("http://a/x").header("api-key", &server.ada_credential);
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{size}");
    }
}
