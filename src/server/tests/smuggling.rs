//! Tests of request smuggling: a request that two programs could interpret differently must not
//! reach an upstream.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    support::{PATIENCE, TestResponse, TestServer},
    upstream::{Protocol, echo, upstream_with},
};

/// Ambiguous requests. `KEY` stands for the credential's header field.
const AMBIGUOUS: [&str; 20] = [
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nG",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\ntransfer-encoding: chunked\r\nX: y\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 1, 2\r\n\r\nab",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: +1\r\n\r\na",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nContent-Length: 0x1\r\n\r\na",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.1\r\nHost: a\r\nKEY\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST /x HTTP/1.0\r\nHost: a\r\nKEY\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\r\n b\r\n\r\n",
    "GET /x HTTP/1.1\r\n Host: a\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\nHost: a\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\n\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\0b\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\nX: a\rb\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nKEY\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nKEY\r\n: x\r\n\r\n",
];

#[tokio::test]
async fn ambiguous_request_is_rejected_and_reaches_no_upstream() {
    let upstream = echo(Protocol::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let server =
        TestServer::new(&[json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy })])
            .await;
    let key = format!("API-KEY: {}\r\nConnection: close", server.ada_credential);
    let plain =
        AMBIGUOUS[0].replace("Content-Length: 6\r\n", "").replace('G', "").replace("KEY", &key);
    assert_eq!(server.send(plain.as_bytes()).await.status, 200);
    let mut passed = Vec::new();
    for request in AMBIGUOUS {
        let response = server.send(request.replace("KEY", &key).as_bytes()).await;
        // A transfer coding that is not known is 501.
        if ![400, 501].contains(&response.status) || upstream.connections() != 1 {
            passed.push(format!("{}: {request:?}", response.status));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[tokio::test]
async fn malformed_chunk_aborts_the_request_to_the_upstream() {
    // The upstream records the bytes that reach it, and does not respond.
    let received = Arc::new(Mutex::new(Vec::new()));
    let upstream = upstream_with({
        let received = received.clone();
        move |mut stream, _| {
            let received = received.clone();
            async move {
                let mut bytes = Vec::new();
                let _ = stream.read_to_end(&mut bytes).await;
                received.lock().push(String::from_utf8(bytes).unwrap());
            }
        }
    })
    .await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let server =
        TestServer::new(&[json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy })])
            .await;
    for chunk in [
        "g\r\na",
        "-1\r\na",
        "1\na\n",
        "1\r\nab\r\n",
        "ffffffffffffffffff\r\na",
        " 1\r\na",
        "1;\nx\r\na",
    ] {
        let begun = format!(
            "POST /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            server.ada_credential
        );
        let rest = format!("{chunk}\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        // In one piece, the malformed request is rejected before the upstream sees any of it.
        let response = server.send([&*begun, &rest].concat().as_bytes()).await;
        assert_eq!(response.status, 400, "{chunk:?} {response:?}");
        let connections = upstream.connections();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        timeout(PATIENCE, async {
            while upstream.connections() == connections {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        stream.write_all(rest.as_bytes()).await.unwrap();
        let response = TestResponse::read(&mut stream).await;
        assert_eq!(response.status, 400, "{chunk:?} {response:?}");
    }
    // Each connection to the upstream ends with its request. The upstream then records the request.
    timeout(PATIENCE, async {
        while received.lock().len() < upstream.connections() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    let received = received.lock();
    assert!(
        received.iter().any(|request| request.contains("abc")),
        "the upstream received no bytes before the malformed chunk"
    );
    for request in received.iter() {
        assert!(request.is_empty() || request.starts_with("POST /x "), "{request:?}");
        let requests = usize::from(!request.is_empty());
        assert_eq!(request.matches(" HTTP/1.1").count(), requests, "{request:?}");
        // Without the last chunk, no server takes the body for complete.
        assert!(!request.contains("\r\n0\r\n"), "{request:?}");
    }
}
