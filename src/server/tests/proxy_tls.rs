//! Tests of upstreams with TLS: an upstream that is not trusted gets no byte of a request.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    support::{PATIENCE, TestResponse, TestServer},
    upstream::{Protocol, Upstream, echo, tls_echo, upstream_with},
};
use crate::{
    server::Listener,
    tls::{
        TlsClient,
        test_authority::{Authority, CertificateWithKey},
    },
};

/// A server that forwards `/api` to this host, on the port of `upstream`.
async fn start(host: &str, upstream: &Upstream, more: Value) -> TestServer {
    let url = format!("https://{host}:{}", upstream.address.port());
    let mut proxy = json!({ "upstreams": [url], "connect_seconds": 2 });
    for (name, value) in more.as_object().unwrap() {
        proxy[name] = value.clone();
    }
    let path = "/api/{*rest}";
    TestServer::new(&[json!({ "id": "api", "handler": "proxy", "path": path, "proxy": proxy })])
        .await
}

#[track_caller]
fn assert_untrusted(response: &TestResponse) {
    let body = response.json();
    assert_eq!(
        (response.status, &body["error"]),
        (502, &json!("UPSTREAM_UNTRUSTED")),
        "{response:?}"
    );
    let message = "No secure connection to the upstream server can be made.";
    assert_eq!(body["error_description"], message);
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn request_goes_to_an_upstream_with_a_trusted_certificate() {
    let authority = Authority::new();
    for (host, name) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        for (speaks, protocol) in [(Protocol::Http1, "http1"), (Protocol::Http2, "http2")] {
            let upstream = tls_echo(speaks, authority.signs(name).loaded()).await;
            let more = json!({ "ca": authority.certificate, "protocol": protocol });
            let server = start(host, &upstream, more).await;
            for _ in 0..3 {
                let response = server.ask("POST", "/api/a?b", "", "body").await;
                assert_eq!(response.status, 200, "{response:?}");
                let echo = response.json();
                assert_eq!((&echo["target"], &echo["body"]), (&json!("/api/a?b"), &json!("body")));
            }
            assert_eq!(upstream.connections(), 1, "{protocol}: the connection is reused");
        }
    }
}

#[tokio::test]
async fn upstream_with_another_certificate_is_not_trusted() {
    let (trusted, untrusted) = (Authority::new(), Authority::new());
    for (signer, name, ca) in [
        (&untrusted, "localhost", Some(&trusted)),
        (&trusted, "other.example", Some(&trusted)),
        // Only the public authorities are trusted.
        (&trusted, "localhost", None),
    ] {
        for protocol in ["http1", "http2"] {
            let upstream = tls_echo(Protocol::Http2, signer.signs(name).loaded()).await;
            let mut more = json!({ "protocol": protocol });
            if let Some(ca) = ca {
                more["ca"] = ca.certificate.clone().into();
            }
            let server = start("localhost", &upstream, more).await;
            assert_untrusted(&server.ask("POST", "/api/a", "", "body").await);
        }
    }
}

/// An upstream without TLS receives a ClientHello and no byte of the request.
#[tokio::test]
async fn nothing_of_a_request_is_sent_without_tls() {
    let authority = Authority::new();
    let more = json!({ "ca": authority.certificate });
    let clear = echo(Protocol::Http1).await;
    assert_untrusted(
        &start("localhost", &clear, more.clone()).await.ask("GET", "/api/a", "", "").await,
    );
    let (received, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let recording = upstream_with(move |mut stream, _| {
        let received = received.clone();
        async move {
            let mut bytes = vec![0; 4096];
            let read = stream.read(&mut bytes).await.unwrap_or(0);
            received.send(bytes[..read].to_vec()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let server = start("localhost", &recording, more).await;
    assert_untrusted(&server.ask("GET", "/api/the-path", "X-Mine: the-header\r\n", "").await);
    let received = receiver.recv().await.unwrap();
    assert_eq!(
        received[..2],
        [0x16, 0x03],
        "the upstream should receive a TLS record with a handshake"
    );
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains("localhost"), "the server name (SNI)");
    for secret in ["the-path", "the-header", &server.ada_credential] {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn upstream_that_negotiates_another_protocol_is_not_used() {
    let authority = Authority::new();
    let pair = authority.signs("localhost");
    // An upstream without ALPN speaks HTTP/1.1.
    let upstream = tls_echo(Protocol::Http1, pair.loaded_without_protocols()).await;
    let with = |protocol: &str| json!({ "ca": authority.certificate, "protocol": protocol });
    let old = start("localhost", &upstream, with("http1")).await;
    assert_eq!(old.ask("GET", "/api/a", "", "").await.status, 200);
    let new = start("localhost", &upstream, with("http2")).await;
    assert_untrusted(&new.ask("GET", "/api/a", "", "").await);
}

#[tokio::test]
async fn handshake_has_the_connect_timeout() {
    let authority = Authority::new();
    let silent = upstream_with(|stream, _| async move {
        let _stream = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let more = json!({ "ca": authority.certificate, "connect_seconds": 1 });
    let response = start("localhost", &silent, more).await.ask("GET", "/api/a", "", "").await;
    assert_eq!((response.status, &response.json()["error"]), (504, &json!("UPSTREAM_TIMEOUT")));
}

#[tokio::test]
async fn self_signed_certificate_can_be_trusted() {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let more = json!({ "ca": certificate });
    let upstream =
        tls_echo(Protocol::Http1, CertificateWithKey { certificate, key }.loaded()).await;
    let server = start("localhost", &upstream, more).await;
    assert_eq!(server.ask("GET", "/api/a", "", "").await.status, 200);
}

/// Client and upstream use TLS. All bytes pass through, and so does the end of the stream.
#[tokio::test]
async fn upgraded_connection_passes_through() {
    const LENGTH: usize = 3 << 20;
    let authority = Authority::new();
    let certificates = authority.signs("localhost").loaded();
    let upstream = upstream_with(move |stream, _| {
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
            // Reads to the end, so that no reset overtakes the bytes that were sent.
            let _ = stream.read_to_end(&mut all).await;
        }
    })
    .await;
    let url = format!("https://localhost:{}", upstream.address.port());
    let proxy = json!({ "upstreams": [url], "ca": authority.certificate });
    let resource = json!({ "id": "ws", "handler": "proxy", "path": "/ws", "proxy": proxy });
    let certificates = authority.signs("localhost").loaded();
    let listener = |socket| Listener::from(socket).with_tls(Some(certificates));
    let server = TestServer::with_listener(listener, &[resource], |public| public).await;

    let caller = TlsClient::new("localhost", authority.roots(), b"http/1.1").unwrap();
    let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let mut stream = caller.handshake(tcp).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        server.ada_credential
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_line(&mut stream).await, "HTTP/1.1 101 Switching Protocols");
    while !read_line(&mut stream).await.is_empty() {}
    let sent: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = Vec::new();
    let reading = stream.read_to_end(&mut back);
    tokio::time::timeout(PATIENCE, reading).await.expect("all bytes should arrive").unwrap();
    assert!(back == sent, "{} bytes came back", back.len());
}

async fn read_line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
}
