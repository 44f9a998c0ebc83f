//! Upstreams with TLS: who is believed, and that nobody else ever gets a byte of a request.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    rig::{Answer, House, PATIENCE},
    upstream::{Echo, Speaks, echo, raw, safe_echo},
};
use crate::{
    server::Door,
    tls::{
        Caller,
        forge::{Authority, Pair},
    },
};

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

/// One that signed itself is its own authority.
#[tokio::test]
async fn one_certificate_can_be_all_that_is_believed() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let more = json!({ "ca": certificate });
    let upstream = safe_echo(Speaks::Http1, Pair { certificate, key }.loaded()).await;
    let house = house("localhost", &upstream, more).await;
    assert_eq!(house.ask("GET", "/api/a", "", "").await.status, 200);
}

/// A connection that changes its protocol, with TLS on both sides of us: nothing is held back, and the end is told.
#[tokio::test]
async fn an_upgraded_connection_goes_through() {
    const LENGTH: usize = 3 << 20;
    let authority = Authority::new();
    let certificates = authority.signs("localhost").loaded();
    let upstream = raw(move |stream, _| {
        let certificates = certificates.clone();
        async move {
            let mut stream = certificates.accept(stream).await.map_err(|(e, _)| e).unwrap();
            while !read_line(&mut stream).await.is_empty() {}
            let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(switch).await.unwrap();
            let mut all = vec![0; LENGTH];
            stream.read_exact(&mut all).await.unwrap();
            stream.write_all(&all).await.unwrap();
            stream.shutdown().await.unwrap();
            // Heard out, so that no reset overtakes what was sent.
            let _ = stream.read_to_end(&mut all).await;
        }
    })
    .await;
    let url = format!("https://localhost:{}", upstream.address.port());
    let proxy = json!({ "upstreams": [url], "ca": authority.certificate });
    let resource = json!({ "id": "ws", "handler": "proxy", "path": "/ws", "proxy": proxy });
    let ours = authority.signs("localhost").loaded();
    let door = |listener| Door::from(listener).with_tls(Some(ours));
    let house = House::behind(door, &[resource], |public| public).await;

    let caller = Caller::new("localhost", authority.roots(), b"http/1.1").unwrap();
    let tcp = tokio::net::TcpStream::connect(house.address).await.unwrap();
    let mut stream = caller.call(tcp).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        house.ada
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_line(&mut stream).await, "HTTP/1.1 101 Switching Protocols");
    while !read_line(&mut stream).await.is_empty() {}
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = Vec::new();
    let reading = stream.read_to_end(&mut back);
    tokio::time::timeout(PATIENCE, reading).await.expect("some is held back").unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
}

async fn read_line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
}
