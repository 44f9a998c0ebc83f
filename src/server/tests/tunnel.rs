//! Connections that change their protocol, from a client's socket to an upstream's.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    rig::{House, PATIENCE},
    upstream::{Echo, head, raw},
};

/// An upstream that changes to whatever is asked for and then sends back what comes, until `end` comes.
async fn mirror() -> Echo {
    raw(|mut stream, _| async move {
        let head = head(&mut stream).await;
        let asked = head.lines().find_map(|line| line.strip_prefix("upgrade: "));
        let Some(asked) = asked else {
            let _ = stream.write_all(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n").await;
            return;
        };
        assert!(head.contains("connection: upgrade\r\n"), "{head}");
        assert!(head.contains("x-keyward-user: ada\r\n"), "{head}");
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\nSec-WebSocket-Accept: x\r\n\r\nhello"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            if &buffer[..read] == b"end" || stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn house(upstream: &Echo, idle_seconds: u32) -> House {
    let proxy = json!({ "upstreams": [upstream.url()], "idle_seconds": idle_seconds });
    House::new(&[json!({ "id": "ws", "handler": "proxy", "path": "/ws", "proxy": proxy })]).await
}

/// Asks for a protocol, with the first bytes of it right behind, and reads the head of the answer.
async fn open(house: &House, protocol: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n\r\nearly",
        house.ada
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    (stream, answer)
}

async fn expect(stream: &mut TcpStream, bytes: &[u8]) {
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
async fn what_each_side_says_comes_to_the_other() {
    let upstream = mirror().await;
    let house = house(&upstream, 60).await;
    let (mut stream, answer) = open(&house, "WebSocket").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("upgrade: WebSocket\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-accept: x\r\n"), "{answer}");
    expect(&mut stream, b"helloearly").await;
    for _ in 0..100 {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        expect(&mut stream, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    }
    stream.write_all(b"end").await.unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn only_what_the_resource_lists_can_be_changed_to() {
    let upstream = mirror().await;
    let house = house(&upstream, 60).await;
    for protocol in ["h2c", "chat/1", "TLS/1.2"] {
        let (_, answer) = open(&house, protocol).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{protocol}: {answer}");
    }
    let (_, answer) = open(&house, "chat, websocket").await;
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
}

#[tokio::test]
async fn silence_ends_it() {
    let upstream = mirror().await;
    let house = house(&upstream, 1).await;
    let (mut stream, _) = open(&house, "websocket").await;
    expect(&mut stream, b"helloearly").await;
    // It is timed from the last word and not from the first.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"x").await.unwrap();
        expect(&mut stream, b"x").await;
    }
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn it_ends_with_the_listener() {
    let upstream = mirror().await;
    let mut house = house(&upstream, 60).await;
    let (mut stream, _) = open(&house, "websocket").await;
    expect(&mut stream, b"helloearly").await;
    house.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(PATIENCE, &mut house.ended).await.unwrap().unwrap();
    expect_end(&mut stream).await;
}

#[tokio::test]
async fn an_upstream_that_changes_to_something_else_is_broken() {
    let liar = super::upstream::says(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    )
    .await;
    let house = house(&liar, 60).await;
    let (_, answer) = open(&house, "websocket").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    // And one that changes without being asked.
    assert_eq!(house.ask("GET", "/ws", "", "").await.status, 502);
}
