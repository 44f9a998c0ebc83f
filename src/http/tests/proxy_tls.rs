//! Upstreams with TLS: who is believed, and that nobody else ever gets a byte of a request.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    rig::{Answer, House},
    upstream::{Echo, Speaks, echo, raw, safe_echo},
};
use crate::tls::forge::Authority;

/// A house whose `/api` forwards to this host, on the upstream's port.
async fn house(host: &str, upstream: &Echo, more: Value) -> House {
    let url = format!("https://{host}:{}", upstream.address.port());
    let mut proxy = json!({ "upstreams": [url], "connect_seconds": 2 });
    for (name, value) in more.as_object().unwrap() {
        proxy[name] = value.clone();
    }
    let path = "/api/{*rest}";
    House::new(&[json!({ "id": "api", "handler": "proxy", "path": path, "proxy": proxy })]).await
}

#[track_caller]
fn untrusted(answer: &Answer) {
    let told = answer.json();
    assert_eq!((answer.status, &told["error"]), (502, &json!("UPSTREAM_UNTRUSTED")), "{answer:?}");
    let said = "No secure connection to the upstream server can be made.";
    assert_eq!(told["error_description"], said);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn a_request_goes_to_whom_the_authorities_know() {
    let authority = Authority::new();
    for (host, name) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        for (speaks, protocol) in [(Speaks::Http1, "http1"), (Speaks::Http2, "http2")] {
            let upstream = safe_echo(speaks, authority.signs(name).loaded()).await;
            let more = json!({ "ca": authority.certificate, "protocol": protocol });
            let house = house(host, &upstream, more).await;
            for _ in 0..3 {
                let answer = house.ask("POST", "/api/a?b", "", "body").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let told = answer.json();
                assert_eq!((&told["target"], &told["body"]), (&json!("/api/a?b"), &json!("body")));
            }
            assert_eq!(upstream.connections(), 1, "{protocol}: it is kept");
        }
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for (signer, name, ca) in [
        (&theirs, "localhost", Some(&ours)),
        (&ours, "other.example", Some(&ours)),
        // The public authorities.
        (&ours, "localhost", None),
    ] {
        for protocol in ["http1", "http2"] {
            let upstream = safe_echo(Speaks::Http2, signer.signs(name).loaded()).await;
            let mut more = json!({ "protocol": protocol });
            if let Some(ca) = ca {
                more["ca"] = ca.certificate.clone().into();
            }
            let house = house("localhost", &upstream, more).await;
            untrusted(&house.ask("POST", "/api/a", "", "body").await);
        }
    }
}

/// An upstream that speaks in the clear, and what it hears: a ClientHello and nothing of the request.
#[tokio::test]
async fn nothing_is_said_in_the_clear() {
    let authority = Authority::new();
    let more = json!({ "ca": authority.certificate });
    let clear = echo(Speaks::Http1).await;
    untrusted(&house("localhost", &clear, more.clone()).await.ask("GET", "/api/a", "", "").await);
    let (heard, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let listens = raw(move |mut stream, _| {
        let heard = heard.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            heard.send(bytes[..read].to_vec()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let house = house("localhost", &listens, more).await;
    untrusted(&house.ask("GET", "/api/the-path", "X-Mine: the-header\r\n", "").await);
    let heard = hears.recv().await.unwrap();
    assert_eq!(heard[..2], [0x16, 0x03], "a TLS record with a handshake");
    let text = String::from_utf8_lossy(&heard);
    assert!(text.contains("localhost"), "the name that is called (SNI)");
    for secret in ["the-path", "the-header", &house.ada] {
        assert!(!text.contains(secret), "{secret}");
    }
}

/// Who agrees on another protocol than the resource names is not spoken to.
#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let authority = Authority::new();
    let pair = authority.signs("localhost");
    // One that knows nothing of protocols speaks HTTP/1.1.
    let upstream = safe_echo(Speaks::Http1, pair.loaded_without_protocols()).await;
    let with = |protocol: &str| json!({ "ca": authority.certificate, "protocol": protocol });
    let old = house("localhost", &upstream, with("http1")).await;
    assert_eq!(old.ask("GET", "/api/a", "", "").await.status, 200);
    let new = house("localhost", &upstream, with("http2")).await;
    untrusted(&new.ask("GET", "/api/a", "", "").await);
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_connection() {
    let authority = Authority::new();
    let silent = raw(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let more = json!({ "ca": authority.certificate, "connect_seconds": 1 });
    let answer = house("localhost", &silent, more).await.ask("GET", "/api/a", "", "").await;
    assert_eq!((answer.status, &answer.json()["error"]), (504, &json!("UPSTREAM_TIMEOUT")));
}
