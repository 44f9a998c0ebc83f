//! Connections that stop to be requests: WebSockets pass, and every other tunnel is refused.

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Bytes, client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{boundaries::Fixture, program::Kind};

/// A request that must not reach the application through a tunnel.
const TUNNELED: &str = "GET /secret/tunnel HTTP/1.1\r\nHost: api.example\r\nX-Keyward-User: root\r\n\
                        Connection: close\r\n\r\n";
const HANDSHAKE: &str =
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

impl Fixture {
    fn handshake(&self, target: &str, credential: &str, upgrade_lines: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: api.example\r\n{credential}{upgrade_lines}{HANDSHAKE}\r\n"
        )
    }

    pub async fn websocket_passes(&self) {
        let kind = self.program.kind;
        let credential = self.credential();
        for upgrade in ["websocket", "WebSocket", "WEBSOCKET"] {
            // The client cannot take the identity away from the application's connection.
            let lines = format!(
                "Connection: keep-alive, Upgrade, X-Keyward-User, X-Keyward-Roles\r\nUpgrade: {upgrade}\r\n"
            );
            let request = self.handshake("/secret/x", &credential, &lines);
            let (mut outcome, bytes) = self.send_then(&request, b"ping over the tunnel").await;
            assert_eq!(outcome.response.status, 101, "{kind:?} {upgrade}: {outcome:?}");
            assert!(bytes.ends_with(b"ping over the tunnel"), "{kind:?} {upgrade}");
            let request = outcome.recorded.remove(0);
            assert!(request.field("upgrade").concat().eq_ignore_ascii_case("websocket"));
            assert!(request.field("connection").concat().eq_ignore_ascii_case("upgrade"));
            assert_eq!(request.field("x-keyward-user"), ["ada"], "{kind:?}");
            assert_eq!(request.field("x-keyward-roles"), ["writer"], "{kind:?}");
            assert_eq!(request.field("api-key"), [""; 0], "{kind:?}");
            assert_eq!(request.tunnel, b"ping over the tunnel", "{kind:?}");
        }
        let lines = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        let (outcome, _) = self.send_then(&self.handshake("/secret/x", "", lines), b"").await;
        assert!(outcome.is_refused(), "{kind:?}: {outcome:?}");
    }

    pub async fn other_upgrade_is_no_tunnel(&self) {
        let kind = self.program.kind;
        let settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        for lines in [
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: h2c\r\n",
            "Connection: upgrade, http2-settings\r\nUpgrade: H2C\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket, h2c\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, websocket\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
            "Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
            "Connection: Upgrade\r\nUpgrade: foo\r\n",
            "Connection: Upgrade\r\nUpgrade: websocket/13\r\n",
            "Connection: Upgrade\r\nUpgrade: wat\r\n",
        ] {
            let lines = format!("{lines}{settings}");
            let request = self.handshake("/secret/x", &self.credential(), &lines);
            let (outcome, _) = self.send_then(&request, TUNNELED.as_bytes()).await;
            // The proxy refuses the request, forwards it without the upgrade, or reads WebSocket
            // from a list of protocols.
            for request in &outcome.recorded {
                let upgrade = request.field("upgrade").join(", ");
                assert!(
                    ["", "websocket"].contains(&upgrade.as_str()),
                    "{kind:?} {lines}{request:?}"
                );
                assert_eq!(request.field("http2-settings"), [""; 0], "{kind:?} {lines}{request:?}");
                assert_eq!(request.target(), "/secret/x", "{kind:?} {lines}");
            }
            let is_tunnel = outcome.response.status == 101;
            assert!(!is_tunnel || lines.contains("websocket"), "{kind:?} {lines}: {outcome:?}");
        }
    }

    pub async fn connect_is_no_tunnel(&self) {
        let kind = self.program.kind;
        for target in ["api.example:80", "/secret/x", "http://api.example/secret/x"] {
            let request = format!(
                "CONNECT {target} HTTP/1.1\r\nHost: {}\r\n{}\r\n",
                if target.contains(":80") { target } else { "api.example" },
                self.credential()
            );
            // A proxy may leave the connection open after its refusal.
            let outcome = self.send(&request).await;
            assert!(outcome.is_refused(), "{kind:?} {target}: {outcome:?}");
        }
    }

    /// Some proxies speak HTTP/2 without TLS with a client that begins with HTTP/2. They must ask
    /// about each request.
    pub async fn http2_requests_are_decided_one_by_one(&self) {
        let kind = self.program.kind;
        let stream = TcpStream::connect(self.program.address).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let Ok((mut sender, connection)) = handshake else { return };
        let connection = tokio::spawn(connection);
        for (target, credential, status) in [
            ("/secret/x", Some(&self.environment.ada), 200),
            ("/secret/y", None, 401),
            ("/admin/../secret/z", None, 401),
            ("/public/x", None, 200),
        ] {
            let mut request = Request::get(format!("http://api.example{target}"));
            if let Some(credential) = credential {
                request = request.header("api-key", credential.as_str());
            }
            let request = request.header("x-keyward-user", "root").body(Empty::<Bytes>::new());
            // A proxy without HTTP/2 ends the connection.
            let Ok(response) = sender.send_request(request.unwrap()).await else { break };
            assert_eq!(response.status(), status, "{kind:?} {target}");
            let recorded = self.upstream.take();
            assert_eq!(
                recorded.len(),
                usize::from(status == 200),
                "{kind:?} {target}: {recorded:?}"
            );
            assert!(!format!("{recorded:?}").contains("root"), "{kind:?} {recorded:?}");
        }
        assert!(self.upstream.take().is_empty());
        connection.abort();
    }

    /// RFC 8441: a WebSocket in a stream of HTTP/2.
    pub async fn extended_connect_is_decided_about(&self) {
        let kind = self.program.kind;
        for (protocol, credential) in
            [("websocket", Some(&self.environment.ada)), ("websocket", None), ("h2c", None)]
        {
            let stream = TcpStream::connect(self.program.address).await.unwrap();
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let Ok((mut sender, connection)) = handshake else { return };
            let connection = tokio::spawn(connection);
            // The client learns from the settings of the server whether it may send the request.
            let first = Request::get("http://api.example/public/x").body(Empty::<Bytes>::new());
            let Ok(first) = sender.send_request(first.unwrap()).await else { return };
            let _ = first.into_body().collect().await;
            self.upstream.take();
            let mut request = Request::builder()
                .method(Method::CONNECT)
                .uri("http://api.example/secret/x")
                .header("sec-websocket-version", "13")
                .extension(Protocol::from_static(protocol));
            if let Some(credential) = credential {
                request = request.header("api-key", credential.as_str());
            }
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let status = match sender.send_request(request).await {
                Ok(response) => response.status(),
                // The server does not support the method, and resets the stream or the connection.
                Err(_) => StatusCode::METHOD_NOT_ALLOWED,
            };
            let recorded = self.upstream.take();
            if credential.is_none() || kind != Kind::Haproxy {
                assert!(
                    recorded.is_empty() && status.as_u16() >= 400,
                    "{kind:?} {status} {recorded:?}"
                );
            }
            for request in recorded {
                assert_eq!((request.method(), request.target()), ("GET", "/secret/x"), "{kind:?}");
                assert_eq!(request.field("x-keyward-user"), ["ada"], "{kind:?}");
            }
            connection.abort();
        }
    }
}
