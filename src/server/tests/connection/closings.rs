//! Tests of upstreams that close their connections in every way after a complete response: the
//! client gets the response, and the upstream gets the request once.

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use super::*;
use crate::{
    server::tests::{
        support::TestServer,
        upstream::{Upstream, upstream_with},
    },
    tls::{Certificates, test_authority::Authority},
};

/// The ways in which an upstream closes a connection after its response.
#[derive(Debug, Clone, Copy)]
enum Close {
    /// Over TLS, without close_notify.
    Abrupt,
    Reset,
    Half,
}

/// Reads a request with a body of two bytes, and sends the response.
async fn respond<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, response: &str) {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\nhi") && stream.read(&mut byte).await.is_ok_and(|n| n == 1) {
        read.push(byte[0]);
    }
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.flush().await;
}

async fn upstream(
    certificates: Option<Certificates>,
    response: &'static str,
    close: Close,
) -> Upstream {
    upstream_with(move |mut stream, _| {
        let certificates = certificates.clone();
        async move {
            // A reset discards what the kernel holds back.
            stream.set_nodelay(true).unwrap();
            let mut stream = match certificates {
                None => {
                    respond(&mut stream, response).await;
                    stream
                }
                Some(certificates) => {
                    let Ok(mut stream) = certificates.accept(stream).await else { return };
                    respond(&mut stream, response).await;
                    stream.into_inner().0
                }
            };
            match close {
                Close::Abrupt => {}
                Close::Reset => {
                    let socket = socket2::SockRef::from(&stream);
                    socket.set_linger(Some(Duration::ZERO)).unwrap();
                }
                Close::Half => {
                    let _ = stream.shutdown().await;
                    let _ = stream.read(&mut [0]).await;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn complete_response_reaches_the_client_in_whatever_way_the_upstream_closes() {
    let authority = Authority::new();
    // Without `Connection: close`, the next request may meet the end of a pooled connection.
    let responses = [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
    ];
    for (response, body) in responses {
        for close in [Close::Abrupt, Close::Reset, Close::Half] {
            for is_tls in [true, false] {
                let certificates = is_tls.then(|| authority.signs("localhost").loaded());
                let upstream = upstream(certificates, response, close).await;
                let scheme = if is_tls { "https" } else { "http" };
                let url = format!("{scheme}://localhost:{}", upstream.address.port());
                let mut proxy = json!({ "upstreams": [url] });
                if is_tls {
                    proxy["ca"] = authority.certificate.as_str().into();
                }
                let resource =
                    json!({ "id": "x", "handler": "proxy", "path": "/x", "proxy": proxy });
                let server = TestServer::new(&[resource]).await;
                for number in 1..=5 {
                    let response = server.ask("POST", "/x", "", "hi").await;
                    let seen = (response.status, response.text(), response.is_complete);
                    assert_eq!(seen, (200, body, true), "{close:?} {is_tls}: {response:?}");
                    assert_eq!(upstream.connections(), number, "{close:?} {is_tls}");
                }
            }
        }
    }
}
