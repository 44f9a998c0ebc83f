//! The handler `proxy`, from a client's socket to an upstream's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    rig::{Answer, House, PATIENCE},
    upstream::{Echo, Speaks, echo, head, raw, says},
};

/// A resource at `/api` that forwards there, with more settings.
fn to(upstreams: &[&Echo], more: Value) -> Value {
    let urls: Vec<String> = upstreams.iter().map(|one| one.url()).collect();
    to_urls(&urls, more)
}

fn to_urls(urls: &[String], more: Value) -> Value {
    let mut proxy = json!({ "upstreams": urls });
    for (name, value) in more.as_object().unwrap() {
        proxy[name] = value.clone();
    }
    json!({ "id": "api", "handler": "proxy", "path": "/api/{*rest}", "proxy": proxy })
}

async fn house(upstream: &Echo, more: Value) -> House {
    House::new(&[to(&[upstream], more)]).await
}

/// The values of a field as the upstream saw them.
fn seen<'a>(told: &'a Value, name: &str) -> Vec<&'a str> {
    let all = told["headers"].as_array().unwrap().iter();
    all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect()
}

#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) {
    let told = answer.json();
    assert_eq!((answer.status, &told["error"]), (status, &json!(code)), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_request_and_its_answer_go_through() {
    for (speaks, protocol) in [(Speaks::Http1, "http1"), (Speaks::Http2, "http2")] {
        let upstream = echo(speaks).await;
        let house = house(&upstream, json!({ "protocol": protocol })).await;
        let answer = house.ask("POST", "/api/./a/../b%7e?x=%2F&y", "X-Mine: 1\r\n", "body").await;
        assert_eq!((answer.status, answer.header("x-from")), (200, Some("upstream")));
        let told = answer.json();
        assert_eq!(told["method"], "POST");
        assert_eq!(told["target"], "/api/b~?x=%2F&y");
        assert_eq!((&told["body"], seen(&told, "x-mine")), (&json!("body"), vec!["1"]));
        assert_eq!(seen(&told, "content-length"), ["4"]);
        let host = upstream.address.to_string();
        match speaks {
            Speaks::Http1 => assert_eq!(seen(&told, "host"), [host]),
            Speaks::Http2 => assert_eq!(told["authority"], host),
        }
        assert_eq!(answer.header("x-secret-of-hop"), None);
    }
}

#[tokio::test]
async fn nobody_comes_through_who_may_not() {
    let upstream = echo(Speaks::Http1).await;
    let mut resource = to(&[&upstream], json!({}));
    resource["permissions"] = json!({ "GET": ["read"] });
    let house = House::new(&[resource]).await;
    assert_eq!(house.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!(house.ask_as("", "GET", "/api/x", "", "").await.status, 401);
    let bob = format!("API-KEY: {}\r\n", house.bob);
    assert_eq!(house.ask_as(&bob, "GET", "/api/x", "", "").await.status, 403);
    assert_eq!(house.ask("GET", "/api/%2e%2e/%2e%2e/x", "", "").await.status, 400);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn the_upstream_learns_who_asks_from_us_alone() {
    let upstream = echo(Speaks::Http1).await;
    let house = house(&upstream, json!({})).await;
    let forged = "X-Keyward-User: root\r\nX_Keyward_User: root\r\nx-keyward.roles: boss\r\nX-Keyward-Other: 1\r\n\
                  Connection: X-Keyward-User\r\nAUTH-METHOD: default\r\nX-Original-URL: /admin\r\nX-HTTP-Method-Override: DELETE\r\n\
                  X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Proto: https\r\nForwarded: for=9.9.9.9\r\nX_Forwarded_For: 9.9.9.9\r\nX-Real-IP: 9.9.9.9\r\n";
    let default =
        house.accounts.directory().policy().applications.default().unwrap().record.id.clone();
    let forged = forged.replace("default", &default);
    let told = house.ask("GET", "/api/x", &forged, "").await.json();
    assert_eq!(seen(&told, "x-keyward-user"), ["ada"]);
    assert_eq!(seen(&told, "x-keyward-roles"), ["reader"]);
    assert_eq!(seen(&told, "x-keyward-application"), [default]);
    let id = house.ada_key.split('_').nth(1).unwrap();
    assert_eq!(seen(&told, "x-keyward-key-id"), [id]);
    let uid: Vec<_> = seen(&told, "x-keyward-user-id");
    assert!(uid.len() == 1 && uid[0].parse::<u64>().is_ok(), "{uid:?}");
    let text = told.to_string();
    for gone in
        ["root", "boss", "x-keyward-other", "9.9.9.9", "/admin", "DELETE", "auth-method", "api-key"]
    {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    assert!(!text.contains(&house.ada_key) && !text.contains(&house.ada));
    assert_eq!(seen(&told, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen(&told, "x-forwarded-proto"), ["http"]);
    assert_eq!(seen(&told, "x-forwarded-host"), ["api.example"]);
    assert_eq!(seen(&told, "forwarded"), ["for=127.0.0.1;host=\"api.example\";proto=http"]);
    assert_eq!(seen(&told, "connection"), [""; 0]);
}

#[tokio::test]
async fn a_proxy_that_is_trusted_is_believed_about_the_way_before() {
    let upstream = echo(Speaks::Http1).await;
    let loopback = ["127.0.0.0/8".parse().unwrap()];
    let house =
        House::with(&[to(&[&upstream], json!({}))], |public| public.trusting(loopback)).await;
    let way = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\nForwarded: for=203.0.113.7\r\n";
    let told = house.ask("GET", "/api/x", way, "").await.json();
    assert_eq!(seen(&told, "x-forwarded-for"), ["203.0.113.7, 127.0.0.1"]);
    assert_eq!(seen(&told, "x-forwarded-proto"), ["https"]);
    assert_eq!(seen(&told, "x-forwarded-host"), ["shop.example"]);
    let forwarded = "for=203.0.113.7, for=127.0.0.1;host=\"api.example\";proto=http";
    assert_eq!(seen(&told, "forwarded"), [forwarded]);
}

#[tokio::test]
async fn credentials_go_on_only_where_the_resource_says_so() {
    let upstream = echo(Speaks::Http1).await;
    let house = house(&upstream, json!({ "keep_credential": true, "preserve_host": true })).await;
    let told = house.ask("GET", "/api/x", "Authorization: Bearer theirs\r\n", "").await.json();
    assert_eq!(seen(&told, "api-key"), [house.ada.as_str()]);
    assert_eq!(seen(&told, "authorization"), ["Bearer theirs"]);
    assert_eq!(seen(&told, "host"), ["api.example"]);
}

#[tokio::test]
async fn an_anonymous_request_has_no_name_and_no_credential() {
    let upstream = echo(Speaks::Http1).await;
    let mut resource = to(&[&upstream], json!({}));
    resource["authentication"] = json!(["anonymous"]);
    let house = House::new(&[resource]).await;
    let told = house.ask_as("", "GET", "/api/x", "X-Keyward-User: root\r\n", "").await.json();
    assert_eq!(seen(&told, "x-keyward-user"), [""; 0]);
    assert!(!told.to_string().contains("root"));
    // An application that is switched off lets its credential lie.
    let off = |application: &mut crate::model::Application| {
        application.enabled = false;
        Ok::<_, crate::accounts::AccountError>(())
    };
    let id = house.accounts.directory().policy().applications.default().unwrap().record.id.clone();
    house.accounts.acting(crate::model::Actor::Program).change(&id, None, off).await.unwrap();
    let told = house.ask("GET", "/api/x", "", "").await.json();
    assert_eq!(seen(&told, "api-key"), [""; 0], "{told}");
}

#[tokio::test]
async fn a_prefix_is_stripped_and_a_base_is_put_there() {
    let upstream = echo(Speaks::Http1).await;
    let url = format!("{}/v1/", upstream.url());
    let strips = json!({ "strip_prefix": "/api" });
    let house = House::new(&[to_urls(&[url], strips)]).await;
    let told = house.ask("GET", "/api/a%20b/?q", "", "").await.json();
    assert_eq!(told["target"], "/v1/a%20b/?q");
}

#[tokio::test]
async fn connections_are_kept_and_one_that_died_is_replaced() {
    let upstream = echo(Speaks::Http1).await;
    let house = house(&upstream, json!({})).await;
    for _ in 0..5 {
        assert_eq!(house.ask("POST", "/api/x", "", "body").await.status, 200);
    }
    assert_eq!(upstream.connections(), 1);
    // Each connection answers once and ends without a word.
    let hasty = says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let house = self::house(&hasty, json!({})).await;
    for at in 1..=5 {
        let answer = house.ask("POST", "/api/x", "", "body").await;
        assert_eq!((answer.status, answer.text()), (200, "ok"), "request {at}");
    }
    assert_eq!(hasty.connections(), 5);
}

#[tokio::test]
async fn what_an_upstream_may_have_done_is_done_again_only_where_that_is_harmless() {
    // Each connection answers once; what comes next is read and not answered.
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let upstream = raw(move |mut stream, _| {
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
    let house = house(&upstream, json!({})).await;
    assert_eq!(house.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!(house.ask("GET", "/api/x", "", "").await.status, 200);
    assert_eq!((seen.load(SeqCst), upstream.connections()), (1, 2));
    refused(
        &house.ask("POST", "/api/x", "Content-Length: 0\r\n", "").await,
        502,
        "UPSTREAM_BROKEN",
    );
    assert_eq!((seen.load(SeqCst), upstream.connections()), (2, 2));
}

#[tokio::test]
async fn trailers_go_through_both_ways_without_what_is_ours() {
    for (speaks, protocol) in [(Speaks::Http1, "http1"), (Speaks::Http2, "http2")] {
        let upstream = echo(speaks).await;
        let house = house(&upstream, json!({ "protocol": protocol })).await;
        let request = format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close, TE\r\nTE: trailers\r\n\
             Trailer: x-sum, x-keyward-user\r\nTransfer-Encoding: chunked\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: 9\r\nx-keyward-user: root\r\n\r\n",
            house.ada
        );
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("\r\n0\r\nx-checksum: 7\r\n\r\n"), "{text}");
        assert!(text.contains(r#""trailers":[["x-sum","9"]]"#), "{text}");
        assert!(text.contains(r#""body":"body""#) && !text.contains("root"), "{text}");
    }
}

#[tokio::test]
async fn pieces_go_through_as_they_come() {
    // Each side waits for the other's piece: nothing may be kept back.
    let upstream = raw(|mut stream, _| async move {
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
    let house = house(&upstream, json!({})).await;
    let mut stream = TcpStream::connect(house.address).await.unwrap();
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        house.ada
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
async fn a_client_that_asks_first_is_told_by_the_upstream() {
    let wants = raw(|mut stream, _| async move {
        let head = head(&mut stream).await;
        assert!(head.contains("expect: 100-continue"), "{head}");
        // Nothing may come before it was asked for.
        let early = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(early.is_err());
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"body");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nread").await.unwrap();
    })
    .await;
    let refuses = says("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno").await;
    for (upstream, goes_on, said) in [(&wants, true, "read"), (&refuses, false, "no")] {
        let house = house(upstream, json!({})).await;
        let mut stream = TcpStream::connect(house.address).await.unwrap();
        let head = format!(
            "POST /api/x HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            house.ada
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(first.starts_with(b"HTTP/1.1 100"), goes_on);
        if goes_on {
            stream.write_all(b"body").await.unwrap();
        }
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with(said), "{text}");
    }
}

#[tokio::test]
async fn a_body_that_nobody_wanted_holds_no_connection() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
    let upstream = raw(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            let tell = tell.lock().unwrap().take().unwrap();
            tell.send(rest).unwrap();
        }
    })
    .await;
    let house = house(&upstream, json!({})).await;
    let more = "Expect: 100-continue\r\nContent-Length: 4\r\n";
    assert_eq!(house.ask("POST", "/api/x", more, "").await.text(), "no");
    let rest = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn an_upstream_that_fails_is_a_502_and_a_slow_one_a_504() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = deaf.local_addr().unwrap();
    drop(deaf);
    let house = House::new(&[to_urls(&[format!("http://{nobody}")], json!({}))]).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    refused(&answer, 502, "UPSTREAM_UNREACHABLE");
    assert!(!answer.text().contains(&nobody.to_string()));

    for nonsense in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
        let house = self::house(&says(nonsense).await, json!({})).await;
        refused(&house.ask("GET", "/api/x", "", "").await, 502, "UPSTREAM_BROKEN");
        refused(&house.ask("POST", "/api/x", "", "body").await, 502, "UPSTREAM_BROKEN");
    }
    let silent = raw(|stream, _| async move {
        tokio::time::sleep(PATIENCE).await;
        drop(stream);
    })
    .await;
    let house = self::house(&silent, json!({ "response_seconds": 1 })).await;
    refused(&house.ask("POST", "/api/x", "", "body").await, 504, "UPSTREAM_TIMEOUT");
}

#[tokio::test]
async fn an_answer_that_breaks_off_breaks_off_for_the_client() {
    let dies = says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let house = house(&dies, json!({})).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    assert_eq!((answer.text(), answer.is_whole), ("half", false));
    let dies = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let house = self::house(&dies, json!({})).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    assert_eq!((answer.text(), answer.is_whole), ("half", false));
    let stalls = raw(|mut stream, _| async move {
        head(&mut stream).await;
        let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
        stream.write_all(begun).await.unwrap();
        tokio::time::sleep(PATIENCE).await;
    })
    .await;
    let house = self::house(&stalls, json!({ "idle_seconds": 1 })).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    assert_eq!((answer.text(), answer.is_whole), ("half", false));
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_told_so() {
    let upstream = echo(Speaks::Http1).await;
    let house = house(&upstream, json!({ "response_seconds": 1 })).await;
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAPI-KEY: {}\r\nContent-Length: 9\r\n\r\nhalf",
        house.ada
    );
    refused(&house.send(head.as_bytes()).await, 408, "REQUEST_TIMEOUT");
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_out_while_there_are_others() {
    let good = echo(Speaks::Http1).await;
    let bad = says("").await;
    let settings = json!({ "eject_after": 2, "eject_seconds": 60 });
    let house = House::new(&[to(&[&bad, &good], settings.clone())]).await;
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(house.ask("POST", "/api/x", "", "body").await.status);
    }
    // What a POST has reached is not tried again elsewhere; what fails twice is not asked a third time.
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2, "{statuses:?}");
    assert_eq!(bad.connections(), 2);
    let gone = says("").await;
    let house = House::new(&[to(&[&bad, &gone], settings)]).await;
    for _ in 0..4 {
        refused(&house.ask("POST", "/api/x", "", "body").await, 502, "UPSTREAM_BROKEN");
    }
    let answer = house.ask("POST", "/api/x", "", "body").await;
    refused(&answer, 503, "UPSTREAM_UNAVAILABLE");
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&seconds));
}

#[tokio::test]
async fn one_that_cannot_be_reached_costs_no_request_while_there_are_others() {
    let good = echo(Speaks::Http1).await;
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", deaf.local_addr().unwrap());
    drop(deaf);
    let house = House::new(&[to_urls(&[nobody, good.url()], json!({}))]).await;
    for _ in 0..6 {
        let answer = house.ask("POST", "/api/x", "", "body").await;
        assert_eq!((answer.status, &answer.json()["body"]), (200, &json!("body")));
    }
}

#[tokio::test]
async fn head_and_answers_without_a_body_are_what_the_upstream_said() {
    let long = says("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let house = house(&long, json!({})).await;
    let answer = house.ask("HEAD", "/api/x", "", "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    assert_eq!(answer.body, b"");
    let unknown = says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let house = self::house(&unknown, json!({})).await;
    let answer = house.ask("HEAD", "/api/x", "", "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, None));
    // What looks like a refusal of our own is the upstream's, and stays as it is.
    let empty = says("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let house = self::house(&empty, json!({})).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    assert_eq!((answer.status, answer.text()), (400, ""));
    let unchanged = says("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n").await;
    let house = self::house(&unchanged, json!({})).await;
    let answer = house.ask("GET", "/api/x", "", "").await;
    assert_eq!((answer.status, answer.header("etag")), (304, Some("\"1\"")));
}

#[tokio::test]
async fn what_lives_elsewhere_is_not_served_here() {
    let elsewhere = json!({ "id": "there", "handler": "decide", "path": "/there/{*rest}" });
    let house = House::new(&[elsewhere]).await;
    assert_eq!(house.ask_as("", "GET", "/there/x", "", "").await.status, 401);
    assert_eq!(house.ask("GET", "/there/x", "", "").await.status, 421);
}
