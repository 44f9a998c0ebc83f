//! Tests of what the handler `proxy` passes on: lengths, trailers, upgrades, and responses that say
//! in two ways how long they are.

use serde_json::{Value, json};
use socket2::SockRef;

use super::*;
use crate::server::tests::{
    support::TestServer,
    upstream::{Protocol, Upstream, echo, head, upstream_sending, upstream_with},
};

async fn start(upstream: &Upstream, more: Value) -> TestServer {
    let mut proxy = json!({ "upstreams": [upstream.url()] });
    for (name, value) in more.as_object().unwrap() {
        proxy[name] = value.clone();
    }
    TestServer::new(&[json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy })]).await
}

fn received<'a>(echo: &'a Value, part: &str, name: &str) -> Vec<&'a str> {
    let all = echo[part].as_array().unwrap().iter();
    all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

/// No body and a body of length 0 are two things.
#[tokio::test]
async fn length_of_zero_is_passed_on() {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    for (protocol, speaks) in [("http1", Protocol::Http1), ("http2", Protocol::Http2)] {
        let server = start(&echo(speaks).await, json!({ "protocol": protocol })).await;
        let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
            let with = server.ask(method, "/x", "Content-Length: 0\r\n", "").await.json();
            assert_eq!(received(&with, "headers", "content-length"), ["0"], "{method} {protocol}");
            let without = server.ask(method, "/x", "", "").await.json();
            assert_eq!(received(&without, "headers", "content-length"), [""; 0], "{method}");
            assert_eq!(received(&without, "headers", "transfer-encoding"), [""; 0], "{method}");

            let request = Request::builder().method(method).uri("http://a/x");
            let request = request.header("api-key", &server.ada_credential);
            let request = request.header("content-length", "0");
            let body = http_body_util::Empty::<Bytes>::new();
            let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let echo: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(received(&echo, "headers", "content-length"), ["0"], "{method} {protocol}");
        }
    }
}

#[tokio::test]
async fn response_with_two_lengths_is_a_502_and_its_rest_is_no_response() {
    let rest = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n0\r\n\r\n{rest}");
        let upstream = upstream_sending(Box::leak(text.into_boxed_str())).await;
        let server = start(&upstream, json!({})).await;
        for method in ["GET", "POST"] {
            let response = server.ask(method, "/x", "", "").await;
            assert_eq!(response.status, 502, "{fields:?} {response:?}");
            assert_eq!(response.json()["error"], "UPSTREAM_BROKEN");
        }
    }
    // A malformed chunk ends the response, whose head was passed on already.
    let malformed =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\nsmuggled";
    let server = start(&upstream_sending(malformed).await, json!({})).await;
    let response = server.ask("GET", "/x", "", "").await;
    assert_eq!((response.text(), response.is_complete), ("abc", false));
}

/// The upstream sends more bytes than its response has.
#[tokio::test]
async fn bytes_behind_a_response_reach_no_other_request() {
    let upstream = upstream_with(|mut stream, _| async move {
        while !head(&mut stream).await.is_empty() {
            let own = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
            let other = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
            let _ = stream.write_all(format!("{own}{other}").as_bytes()).await;
        }
    })
    .await;
    let server = start(&upstream, json!({})).await;
    for number in 0..20 {
        let response = server.ask("GET", "/x", "", "").await;
        assert_eq!((response.status, response.text()), (200, "own"), "{number}");
    }
}

/// The upstream resets the connection right after its response.
#[tokio::test]
async fn complete_response_counts_whatever_follows() {
    for response in [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        "HTTP/1.1 413 Large\r\nContent-Length: 4\r\n\r\nbody",
    ] {
        let upstream = upstream_with(move |mut stream, _| async move {
            head(&mut stream).await;
            stream.write_all(response.as_bytes()).await.unwrap();
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        })
        .await;
        let server = start(&upstream, json!({})).await;
        for number in 0..20 {
            for (method, body) in [("GET", ""), ("POST", "a body")] {
                let seen = server.ask(method, "/x", "", body).await;
                let is_passed_on =
                    seen.status == response[9..12].parse::<u16>().unwrap() && seen.is_complete;
                assert!(is_passed_on, "{method} {number} {response:?}: {seen:?}");
            }
        }
    }
}

/// The upstream reads the second request of a connection, and closes the connection.
#[tokio::test]
async fn only_idempotent_requests_are_sent_again() {
    let requests = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let upstream = upstream_with({
        let requests = requests.clone();
        move |mut stream, _| {
            let requests = requests.clone();
            async move {
                let first = head(&mut stream).await;
                requests.lock().push(first[..first.find(' ').unwrap()].to_owned());
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                let second = head(&mut stream).await;
                requests.lock().extend(second.split(' ').next().map(str::to_owned));
            }
        }
    })
    .await;
    let server = start(&upstream, json!({})).await;
    for (method, is_repeated) in
        [("GET", true), ("PUT", true), ("DELETE", true), ("PATCH", false), ("POST", false)]
    {
        // The first request opens the connection that the second request finds.
        assert_eq!(server.ask("GET", "/x", "", "").await.status, 200, "{method}");
        requests.lock().clear();
        let response = server.ask(method, "/x", "", "").await;
        let expected = if is_repeated { (200, 2) } else { (502, 1) };
        let sent = requests.lock().iter().filter(|known| *known == method).count();
        assert_eq!((response.status, sent), expected, "{method}");
        // A repeated request leaves a connection that has had one request.
        if is_repeated {
            assert_eq!(server.ask("POST", "/x", "", "").await.status, 502, "{method}");
        }
    }
}

#[tokio::test]
async fn trailers_that_decide_about_a_message_are_not_passed_on() {
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let server = start(&echo(Protocol::Http2).await, json!({ "protocol": "http2" })).await;
    let io = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = ::http::HeaderMap::new();
    for name in ["x-checksum", "authorization", "content-length", "host", "x-keyward-user"] {
        trailers.insert(name, "1".parse().unwrap());
    }
    let body = http_body_util::Full::new(Bytes::from("body"));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let request = Request::post("http://a/x").header("api-key", &server.ada_credential);
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-checksum"], "7");
    let echo: Value = serde_json::from_slice(&collected.to_bytes()).unwrap();
    assert_eq!(echo["trailers"], json!([["x-checksum", "1"]]));
}

/// An upstream may switch only to the protocol that the resource allows and the client requested.
#[tokio::test]
async fn upgrade_to_another_protocol_is_a_502() {
    for (requested, switched, status) in [
        ("websocket", "websocket", 101),
        ("WebSocket", "WEBSOCKET", 101),
        ("websocket, h2c", "websocket", 101),
        ("h2c, websocket", "websocket", 101),
        ("websocket, h2c", "h2c", 502),
        ("websocket", "websocket, h2c", 502),
        ("h2c", "h2c", 502),
        ("TLS/1.0", "TLS/1.0", 502),
        ("x", "x", 502),
    ] {
        let upstream = upstream_with(move |mut stream, _| async move {
            head(&mut stream).await;
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {switched}\r\n\r\n"
            );
            let _ = stream.write_all(response.as_bytes()).await;
        })
        .await;
        let server = start(&upstream, json!({})).await;
        let fields = format!("Connection: upgrade\r\nUpgrade: {requested}\r\n");
        let request = format!(
            "GET /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\n{fields}\r\n",
            server.ada_credential
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let response = timeout(PATIENCE, head(&mut stream)).await.unwrap();
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{requested}: {response}");
    }
}

/// The client half-closes after its request, and the upstream takes its time.
#[tokio::test]
async fn half_closed_client_gets_the_response_of_a_slow_upstream() {
    let upstream = upstream_with(|mut stream, _| async move {
        head(&mut stream).await;
        sleep(SHORT * 3).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbo").await;
        sleep(SHORT * 3).await;
        let _ = stream.write_all(b"dy").await;
    })
    .await;
    let server = start(&upstream, json!({})).await;
    for method in ["GET", "POST"] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "{method} /x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\n\r\n",
            server.ada_credential
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("body"), "{text}");
    }
}
