//! Tests of the handler `proxy`, from a client's socket to an upstream's.

mod forwarded;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    support::{PATIENCE, TestResponse, TestServer},
    upstream::{Protocol, Upstream, echo, head, upstream_sending, upstream_with},
};

/// A resource at `/api` that forwards to these upstreams. `more` contains additional settings of
/// the handler `proxy`.
fn resource_to(upstreams: &[&Upstream], more: Value) -> Value {
    let urls: Vec<String> = upstreams.iter().map(|upstream| upstream.url()).collect();
    resource_to_urls(&urls, more)
}

fn resource_to_urls(urls: &[String], more: Value) -> Value {
    let mut proxy = json!({ "upstreams": urls });
    for (name, value) in more.as_object().unwrap() {
        proxy[name] = value.clone();
    }
    json!({ "id": "api", "handler": "proxy", "path": "/api/{*rest}", "proxy": proxy })
}

async fn start(upstream: &Upstream, more: Value) -> TestServer {
    TestServer::new(&[resource_to(&[upstream], more)]).await
}

/// The values of a header field that the upstream received.
fn received<'a>(echo: &'a Value, name: &str) -> Vec<&'a str> {
    let all = echo["headers"].as_array().unwrap().iter();
    all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[track_caller]
fn assert_denied(response: &TestResponse, status: u16, code: &str) {
    let body = response.json();
    assert_eq!((response.status, &body["error"]), (status, &json!(code)), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn request_and_response_pass_through() {
    for (speaks, protocol) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let upstream = echo(speaks).await;
        let server = start(&upstream, json!({ "protocol": protocol })).await;
        let response =
            server.ask("POST", "/api/./a/../b%7e?x=%2F&y", "X-Mine: 1\r\n", "body").await;
        assert_eq!((response.status, response.header("x-from")), (200, Some("upstream")));
        let echo = response.json();
        assert_eq!(echo["method"], "POST");
        assert_eq!(echo["target"], "/api/b~?x=%2F&y");
        assert_eq!((&echo["body"], received(&echo, "x-mine")), (&json!("body"), vec!["1"]));
        assert_eq!(received(&echo, "content-length"), ["4"]);
        let host = upstream.address.to_string();
        match speaks {
            Protocol::Http1 => assert_eq!(received(&echo, "host"), [host]),
            Protocol::Http2 => assert_eq!(echo["authority"], host),
        }
        assert_eq!(response.header("x-secret-of-hop"), None);
    }
}

#[tokio::test]
async fn denied_request_does_not_reach_the_upstream() {
    let upstream = echo(Protocol::Http1).await;
    let mut resource = resource_to(&[&upstream], json!({}));
    resource["permissions"] = json!({ "GET": ["read"] });
    let server = TestServer::new(&[resource]).await;
    assert_eq!(server.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!(server.ask_as("", "GET", "/api/x", "", "").await.status, 401);
    let bob = format!("API-KEY: {}\r\n", server.bob_credential);
    assert_eq!(server.ask_as(&bob, "GET", "/api/x", "", "").await.status, 403);
    assert_eq!(server.ask("GET", "/api/%2e%2e/%2e%2e/x", "", "").await.status, 400);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn identity_and_forwarded_fields_come_only_from_keyward() {
    let upstream = echo(Protocol::Http1).await;
    let server = start(&upstream, json!({})).await;
    let forged = "X-Keyward-User: root\r\nX_Keyward_User: root\r\nx-keyward.roles: boss\r\nX-Keyward-Other: 1\r\n\
                  Connection: X-Keyward-User\r\nAUTH-METHOD: default\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\
                  X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nForwarded: for=9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n";
    let default =
        server.accounts.directory().policy().applications.default().unwrap().record.id.clone();
    let forged = forged.replace("default", &default);
    let echo = server.ask("GET", "/api/x", &forged, "").await.json();
    assert_eq!(received(&echo, "x-keyward-user"), ["ada"]);
    assert_eq!(received(&echo, "x-keyward-roles"), ["reader"]);
    assert_eq!(received(&echo, "x-keyward-application"), [default]);
    let id = server.ada_key.split('_').nth(1).unwrap();
    assert_eq!(received(&echo, "x-keyward-key-id"), [id]);
    let uid: Vec<_> = received(&echo, "x-keyward-user-id");
    assert!(uid.len() == 1 && uid[0].parse::<u64>().is_ok(), "{uid:?}");
    let text = echo.to_string();
    for removed in
        ["root", "boss", "x-keyward-other", "9.9.9.9", "/admin", "DELETE", "auth-method", "api-key"]
    {
        assert!(!text.contains(removed), "{removed} in {text}");
    }
    assert!(!text.contains(&server.ada_key) && !text.contains(&server.ada_credential));
    assert_eq!(received(&echo, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received(&echo, "x-forwarded-proto"), ["http"]);
    assert_eq!(received(&echo, "x-forwarded-host"), ["api.example"]);
    assert_eq!(received(&echo, "forwarded"), ["for=127.0.0.1;host=\"api.example\";proto=http"]);
    assert_eq!(received(&echo, "connection"), [""; 0]);
}

#[tokio::test]
async fn credential_is_forwarded_only_with_keep_credential() {
    let upstream = echo(Protocol::Http1).await;
    let server = start(&upstream, json!({ "keep_credential": true, "preserve_host": true })).await;
    let echo = server.ask("GET", "/api/x", "Authorization: Bearer theirs\r\n", "").await.json();
    assert_eq!(received(&echo, "api-key"), [server.ada_credential.as_str()]);
    assert_eq!(received(&echo, "authorization"), ["Bearer theirs"]);
    assert_eq!(received(&echo, "host"), ["api.example"]);
}

#[tokio::test]
async fn anonymous_request_is_forwarded_without_identity_and_credential() {
    let upstream = echo(Protocol::Http1).await;
    let mut resource = resource_to(&[&upstream], json!({}));
    resource["authentication"] = json!(["anonymous"]);
    let server = TestServer::new(&[resource]).await;
    let echo = server.ask_as("", "GET", "/api/x", "X-Keyward-User: root\r\n", "").await.json();
    assert_eq!(received(&echo, "x-keyward-user"), [""; 0]);
    assert!(!echo.to_string().contains("root"));
    // A disabled application does not read the credential, but Keyward removes the credential from
    // the request.
    let disable = |application: &mut crate::model::Application| {
        application.enabled = false;
        Ok::<_, crate::accounts::AccountError>(())
    };
    let id = server.accounts.directory().policy().applications.default().unwrap().record.id.clone();
    server
        .accounts
        .as_actor(crate::model::Actor::Program)
        .change(&id, None, disable)
        .await
        .unwrap();
    let echo = server.ask("GET", "/api/x", "", "").await.json();
    assert_eq!(received(&echo, "api-key"), [""; 0], "{echo}");
}

#[tokio::test]
async fn prefix_is_stripped_and_the_base_path_is_added() {
    let upstream = echo(Protocol::Http1).await;
    let url = format!("{}/v1/", upstream.url());
    let strips = json!({ "strip_prefix": "/api" });
    let server = TestServer::new(&[resource_to_urls(&[url], strips)]).await;
    let echo = server.ask("GET", "/api/a%20b/?q", "", "").await.json();
    assert_eq!(echo["target"], "/v1/a%20b/?q");
}

#[tokio::test]
async fn connections_are_reused_and_closed_connections_are_replaced() {
    let upstream = echo(Protocol::Http1).await;
    let server = start(&upstream, json!({})).await;
    for _ in 0..5 {
        assert_eq!(server.ask("POST", "/api/x", "", "body").await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    // Each connection serves one request and is closed without `Connection: close`.
    let closing_upstream = upstream_sending("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let server = start(&closing_upstream, json!({})).await;
    for number in 1..=5 {
        let response = server.ask("POST", "/api/x", "", "body").await;
        assert_eq!((response.status, response.text()), (200, "ok"), "request {number}");
    }
    assert_eq!(closing_upstream.connections(), 5);
}

#[tokio::test]
async fn only_idempotent_requests_are_retried_after_the_upstream_may_have_read_them() {
    // Each connection serves one request. The connection reads a second request, but does not
    // respond to it.
    let unanswered = Arc::new(AtomicUsize::new(0));
    let count = unanswered.clone();
    let upstream = upstream_with(move |mut stream, _| {
        let count = count.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            if !head(&mut stream).await.is_empty() {
                count.fetch_add(1, SeqCst);
            }
        }
    })
    .await;
    let server = start(&upstream, json!({})).await;
    assert_eq!(server.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!(server.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!((unanswered.load(SeqCst), upstream.connections()), (1, 2));
    assert_denied(
        &server.ask("POST", "/api/x", "Content-Length: 0\r\n", "").await,
        502,
        "UPSTREAM_BROKEN",
    );
    assert_eq!((unanswered.load(SeqCst), upstream.connections()), (2, 2));
}

#[tokio::test]
async fn trailers_pass_in_both_directions_without_identity_fields() {
    for (upstream_protocol, protocol) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
        let upstream = echo(upstream_protocol).await;
        let server = start(&upstream, json!({ "protocol": protocol })).await;
        let request = format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close, TE\r\nTE: trailers\r\n\
             Trailer: x-sum, x-keyward-user\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 9\r\nx-keyward-user: root\r\n\r\n",
            server.ada_credential
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("\r\n0\r\nx-checksum: 7\r\n\r\n"), "{text}");
        assert!(text.contains(r#""trailers":[["x-sum","9"]]"#), "{text}");
        assert!(text.contains(r#""body":"body""#) && !text.contains("root"), "{text}");
    }
}

#[tokio::test]
async fn body_is_streamed_piece_by_piece() {
    // The client and the upstream wait for each other's pieces, so Keyward must not buffer a piece.
    let upstream = upstream_with(|mut stream, _| async move {
        head(&mut stream).await;
        let mut piece = [0; 8];
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"3\r\none\r\n");
        let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n";
        stream.write_all(events.as_bytes()).await.unwrap();
        stream.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"3\r\ntwo\r\n");
        stream.write_all(b"data: 2\n\n").await.unwrap();
    })
    .await;
    let server = start(&upstream, json!({})).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        server.ada_credential
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.windows(9).any(|nine| nine == b"data: 1\n\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read_buf(&mut text)).await;
        assert_ne!(read.unwrap().unwrap(), 0, "{}", String::from_utf8_lossy(&text));
    }
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    stream.read_to_end(&mut text).await.unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("text/event-stream") && text.contains("data: 2\n\n"), "{text}");
}

#[tokio::test]
async fn expect_100_continue_is_decided_by_the_upstream() {
    let accepting_upstream = upstream_with(|mut stream, _| async move {
        let head = head(&mut stream).await;
        assert!(head.contains("expect: 100-continue"), "{head}");
        // The body must not come before the 100.
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(early.is_err());
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nread").await.unwrap();
    })
    .await;
    let refusing_upstream =
        upstream_sending("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    for (upstream, continues, body) in
        [(&accepting_upstream, true, "read"), (&refusing_upstream, false, "no")]
    {
        let server = start(upstream, json!({})).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            server.ada_credential
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(first.starts_with(b"HTTP/1.1 100"), continues);
        if continues {
            stream.write_all(b"body").await.unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with(body), "{text}");
    }
}

#[tokio::test]
async fn connection_with_an_unsent_body_is_closed() {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let upstream = upstream_with(move |mut stream, _| {
        let sender = sender.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let sender = sender.lock().take().unwrap();
            sender.send(rest).unwrap();
        }
    })
    .await;
    let server = start(&upstream, json!({})).await;
    let fields = "Expect: 100-continue\r\nContent-Length: 4\r\n";
    assert_eq!(server.ask("POST", "/api/x", fields, "").await.text(), "no");
    let rest = tokio::time::timeout(PATIENCE, receiver).await.unwrap().unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn failing_upstream_is_a_502_and_slow_upstream_is_a_504() {
    let closed_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = closed_listener.local_addr().unwrap();
    drop(closed_listener);
    let server =
        TestServer::new(&[resource_to_urls(&[format!("http://{unreachable}")], json!({}))]).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_denied(&response, 502, "UPSTREAM_UNREACHABLE");
    assert!(!response.text().contains(&unreachable.to_string()));

    for malformed in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let server = start(&upstream_sending(malformed).await, json!({})).await;
        assert_denied(&server.ask("GET", "/api/x", "", "").await, 502, "UPSTREAM_BROKEN");
        assert_denied(&server.ask("POST", "/api/x", "", "body").await, 502, "UPSTREAM_BROKEN");
    }
    let silent_upstream = upstream_with(|stream, _| async move {
        tokio::time::sleep(PATIENCE).await;
        drop(stream);
    })
    .await;
    let server = start(&silent_upstream, json!({ "response_seconds": 1 })).await;
    assert_denied(&server.ask("POST", "/api/x", "", "body").await, 504, "UPSTREAM_TIMEOUT");
}

#[tokio::test]
async fn incomplete_response_is_incomplete_for_the_client() {
    let truncating_upstream =
        upstream_sending("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let server = start(&truncating_upstream, json!({})).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_eq!((response.text(), response.is_complete), ("half", false));
    let truncating_upstream =
        upstream_sending("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .await;
    let server = start(&truncating_upstream, json!({})).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_eq!((response.text(), response.is_complete), ("half", false));
    let stalling_upstream = upstream_with(|mut stream, _| async move {
        head(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        stream.write_all(begun).await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    })
    .await;
    let server = start(&stalling_upstream, json!({ "idle_seconds": 1 })).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_eq!((response.text(), response.is_complete), ("half", false));
}

#[tokio::test]
async fn client_that_does_not_send_its_body_gets_a_408() {
    let upstream = echo(Protocol::Http1).await;
    let server = start(&upstream, json!({ "response_seconds": 1 })).await;
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAPI-KEY: {}\r\nContent-Length: 9\r\n\r\nhalf",
        server.ada_credential
    );
    assert_denied(&server.send(head.as_bytes()).await, 408, "REQUEST_TIMEOUT");
}

#[tokio::test]
async fn failing_upstream_is_ejected_if_there_are_other_upstreams() {
    let working = echo(Protocol::Http1).await;
    let failing = upstream_sending("").await;
    let settings = json!({ "eject_after": 2, "eject_seconds": 60 });
    let server = TestServer::new(&[resource_to(&[&failing, &working], settings.clone())]).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(server.ask("POST", "/api/x", "", "body").await.status);
    }
    // A POST that has reached an upstream is not retried. After two failures, the failing upstream
    // gets no more requests.
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2, "{statuses:?}");
    assert_eq!(failing.connections(), 2);
    let second_failing = upstream_sending("").await;
    let server = TestServer::new(&[resource_to(&[&failing, &second_failing], settings)]).await;
    for _ in 0..4 {
        assert_denied(&server.ask("POST", "/api/x", "", "body").await, 502, "UPSTREAM_BROKEN");
    }
    let response = server.ask("POST", "/api/x", "", "body").await;
    assert_denied(&response, 503, "UPSTREAM_UNAVAILABLE");
    let seconds: u32 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds));
}

#[tokio::test]
async fn unreachable_upstream_fails_no_request_if_there_are_other_upstreams() {
    let working = echo(Protocol::Http1).await;
    let closed_listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = format!("http://{}", closed_listener.local_addr().unwrap());
    drop(closed_listener);
    let server =
        TestServer::new(&[resource_to_urls(&[unreachable, working.url()], json!({}))]).await;
    for _ in 0..6 {
        let response = server.ask("POST", "/api/x", "", "body").await;
        assert_eq!((response.status, &response.json()["body"]), (200, &json!("body")));
    }
}

#[tokio::test]
async fn head_and_bodiless_responses_keep_the_fields_of_the_upstream() {
    let with_length = upstream_sending("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let server = start(&with_length, json!({})).await;
    let response = server.ask("HEAD", "/api/x", "", "").await;
    assert_eq!((response.status, response.header("content-length")), (200, Some("1234")));
    assert_eq!(response.body, b"");
    let without_length =
        upstream_sending("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let server = start(&without_length, json!({})).await;
    let response = server.ask("HEAD", "/api/x", "", "").await;
    assert_eq!((response.status, response.header("content-length")), (200, None));
    // A response of the upstream that looks like a rejection by hyper is not replaced.
    let empty_rejection =
        upstream_sending("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let server = start(&empty_rejection, json!({})).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_eq!((response.status, response.text()), (400, ""));
    let not_modified = upstream_sending("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n").await;
    let server = start(&not_modified, json!({})).await;
    let response = server.ask("GET", "/api/x", "", "").await;
    assert_eq!((response.status, response.header("etag")), (304, Some("\"1\"")));
}

#[tokio::test]
async fn resource_of_the_decide_handler_is_not_served() {
    let resource = json!({ "id": "there", "handler": "decide", "path": "/there/{*rest}" });
    let server = TestServer::new(&[resource]).await;
    assert_eq!(server.ask_as("", "GET", "/there/x", "", "").await.status, 401);
    assert_eq!(server.ask("GET", "/there/x", "", "").await.status, 421);
}
