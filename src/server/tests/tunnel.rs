//! Tests of upgraded connections, from a client's socket to an upstream's.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    support::{PATIENCE, TestServer},
    upstream::{Upstream, head, upstream_with},
};

/// The first bytes that the client reads: the upstream's greeting, and the echo of the bytes that
/// the client sent with its request.
const FIRST_BYTES: &[u8] = b"helloearly";

/// An upstream that switches to any requested protocol and then echoes all bytes, until it reads
/// `end`.
async fn echoing_upstream() -> Upstream {
    upstream_with(|mut stream, _| async move {
        let head = head(&mut stream).await;
        let requested = head.lines().find_map(|line| line.strip_prefix("upgrade: "));
        let Some(requested) = requested else {
            let _ = stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
            return;
        };
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        assert!(head.contains("x-keyward-user: ada\r\n"), "{head}");
        let response = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {requested}\r\nSec-WebSocket-Accept: x\r\n\r\nhello"
        );
        stream.write_all(response.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if &buffer[..read] == b"end" || stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn start(upstream: &Upstream, idle_seconds: u32) -> TestServer {
    let proxy = json!({ "upstreams": [upstream.url()], "idle_seconds": idle_seconds });
    TestServer::new(&[json!({ "id": "ws", "handler": "proxy", "path": "/ws", "proxy": proxy })])
        .await
}

/// Requests an upgrade, sends `early` as the first bytes of the new protocol, and reads the head of
/// the response.
async fn open_tunnel(server: &TestServer, protocol: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\r\nearly",
        server.ada_credential
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let response = head(&mut stream).await;
    (stream, response)
}

async fn expect_bytes(stream: &mut TcpStream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut read)).await.unwrap().unwrap();
    assert_eq!(read, bytes);
}

async fn expect_end(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn bytes_pass_in_both_directions() {
    let upstream = echoing_upstream().await;
    let server = start(&upstream, 60).await;
    let (mut stream, response) = open_tunnel(&server, "WebSocket").await;
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert!(response.contains("upgrade: WebSocket\r\n"), "{response}");
    assert!(response.contains("sec-websocket-accept: x\r\n"), "{response}");
    expect_bytes(&mut stream, FIRST_BYTES).await;
    for _ in 0..100 {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        expect_bytes(&mut stream, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    }
    stream.write_all(b"end").await.unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn upgrade_is_forwarded_only_for_allowed_protocols() {
    let upstream = echoing_upstream().await;
    let server = start(&upstream, 60).await;
    for protocol in ["h2c", "chat/1", "TLS/1.2"] {
        let (_, response) = open_tunnel(&server, protocol).await;
        assert!(response.starts_with("HTTP/1.1 426 "), "{protocol}: {response}");
    }
    let (_, response) = open_tunnel(&server, "chat, websocket").await;
    assert!(response.contains("upgrade: websocket\r\n"), "{response}");
}

#[tokio::test]
async fn silent_tunnel_is_closed() {
    let upstream = echoing_upstream().await;
    let server = start(&upstream, 1).await;
    let (mut stream, _) = open_tunnel(&server, "websocket").await;
    expect_bytes(&mut stream, FIRST_BYTES).await;
    // The timeout counts from the last bytes.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"x").await.unwrap();
        expect_bytes(&mut stream, b"x").await;
    }
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn tunnel_ends_with_the_listener() {
    let upstream = echoing_upstream().await;
    let mut server = start(&upstream, 60).await;
    let (mut stream, _) = open_tunnel(&server, "websocket").await;
    expect_bytes(&mut stream, FIRST_BYTES).await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(PATIENCE, &mut server.ended).await.unwrap().unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn upstream_that_switches_to_another_protocol_is_a_502() {
    let upstream = super::upstream::upstream_sending(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    )
    .await;
    let server = start(&upstream, 60).await;
    let (_, response) = open_tunnel(&server, "websocket").await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    // A switch that the client did not request is a 502 too.
    assert_eq!(server.ask("GET", "/ws", "", "").await.status, 502);
}
