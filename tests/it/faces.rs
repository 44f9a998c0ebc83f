//! Each face of Keyward (the server, the proxy, the layer, and each dialect of `/-/verify`) gives
//! the same verdict on each request of a corpus.

mod changes;
pub mod corpus;
pub mod fixture;
mod hosts;
mod methods;
mod paths;
mod places;
mod records;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use corpus::{TestRequest, client_view, corpus, exchange, verdict};
use fixture::{Fixture, TIMEOUT, send_through};
use http::Method;
use keyward::{
    ClientSource, GuardLayer,
    handlers::{BodyLimits, Handlers},
    model::Handler,
    server::{BoundSocket, ConnectionLimits, Public, Service, Verify, serve},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::Semaphore};

/// The error code of the fixture's `on_response` hook.
const WITHHELD_CODE: &str = "KEPT";

/// Starts the public listener and the verify listener, which trusts proxies on this machine.
async fn listen(fixture: &Fixture) -> (SocketAddr, SocketAddr) {
    let handlers =
        Handlers::new(fixture.accounts.clone(), BodyLimits { bytes: 1 << 20, read: TIMEOUT });
    let verify = Verify::new(fixture.gate.clone(), handlers.clone())
        .with_trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    let public = Public::new(fixture.gate.clone(), handlers, None);
    (listen_with(public).await, listen_with(verify).await)
}

/// Starts a listener with this service.
async fn listen_with(service: impl Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ConnectionLimits {
        header_bytes: 16_384,
        headers: 100,
        header_read: TIMEOUT,
        idle: TIMEOUT,
        http2_streams: 16,
        drain: Duration::from_millis(100),
    };
    let connections = Arc::new(Semaphore::new(64));
    tokio::spawn(serve(
        BoundSocket::Tcp(listener),
        limits,
        connections,
        service,
        std::future::pending(),
    ));
    address
}

/// Starts an upstream that reads the whole request and then sends the body `in`. Returns its URL.
async fn upstream() -> String {
    use axum::{Router, body::Bytes};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let routes = Router::new().fallback(async |_: Bytes| "in");
    tokio::spawn(async { axum::serve(listener, routes).await });
    url
}

/// A dialect of `/-/verify`: how a proxy describes the request of its client.
struct Dialect {
    /// The last part of the path below `/-/verify`.
    name: &'static str,
    /// The header fields for method, target and host. `None` means that the verify request has the
    /// method, the path and the host of the client's request.
    fields: Option<[&'static str; 3]>,
}

const FORWARDED: Option<[&str; 3]> =
    Some(["x-forwarded-method", "x-forwarded-uri", "x-forwarded-host"]);
const DIALECTS: [Dialect; 7] = [
    Dialect { name: "", fields: FORWARDED },
    Dialect {
        name: "/nginx",
        fields: Some(["x-original-method", "x-original-uri", "x-original-host"]),
    },
    // ingress-nginx sends the target as a URL, which contains the host.
    Dialect { name: "/nginx", fields: Some(["x-original-method", "x-original-url", ""]) },
    Dialect { name: "/caddy", fields: FORWARDED },
    Dialect { name: "/traefik", fields: FORWARDED },
    Dialect { name: "/envoy", fields: None },
    Dialect { name: "/haproxy", fields: FORWARDED },
];

impl Dialect {
    /// Sends a verify request, as a proxy with this dialect does, and returns the status and the
    /// error code.
    ///
    /// Keyward sends nginx only 200, 401 or 403, and puts the real status and body of a denial into
    /// two header fields. The nginx configuration restores them. This function restores them in the
    /// same way.
    async fn verdict(
        &self,
        request: &TestRequest,
        client: &str,
        address: SocketAddr,
    ) -> (u16, String) {
        let host = request.headers.iter().find(|(name, _)| *name == "host");
        let host = host.map_or("api.example", |(_, value)| value);
        let (method, path) = (&request.method, request.path);
        let mut text = match self.fields {
            None => format!("{method} /-/verify/envoy{path} HTTP/1.1\r\nhost: {host}\r\n"),
            Some([method_in, target_in, host_in]) => {
                let head = format!("GET /-/verify{} HTTP/1.1\r\nhost: keyward\r\n", self.name);
                let target = format!("{head}{method_in}: {method}\r\n{target_in}: ");
                match host_in {
                    "" => format!("{target}http://{host}{path}\r\n"),
                    _ => format!("{target}{path}\r\n{host_in}: {host}\r\n"),
                }
            }
        };
        text += &format!("connection: close\r\nx-forwarded-for: {client}\r\n");
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != "host") {
            text += &format!("{name}: {value}\r\n");
        }
        let response = exchange(address, &(text + "\r\n")).await;
        let (mut status, mut code) = verdict(&response);
        if let Some(real) = response.headers().get("x-keyward-status") {
            assert_eq!(self.name, "/nginx");
            assert!([401, 403].contains(&status), "{status}");
            status = real.to_str().unwrap().parse().unwrap();
            let body = response.headers()["x-keyward-body"].as_bytes();
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            code = corpus::code(&body);
        }
        (status, code)
    }
}

/// Returns the credential in the corpus whose key is not valid from the loopback address, only from
/// a remote network.
fn network_bound(corpus: &[TestRequest]) -> &str {
    let prefix = STANDARD.encode("remote:kw");
    let fields = corpus.iter().flat_map(|request| &request.headers);
    let mut values = fields.map(|(_, value)| value.as_str());
    values.find(|value| value.starts_with(&prefix)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_face_reaches_the_same_verdict() {
    let fixture = Fixture::new().await;
    let (address, verify) = listen(&fixture).await;

    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).rewriting_paths();
    let without_rewriting = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let (mut statuses, corpus) = (BTreeMap::<u16, usize>::new(), corpus(&fixture).await);
    let mut verdicts = Vec::new();
    for request in &corpus {
        let by_server = client_view(&request.send(address).await);
        let (response, received) = send_through(&layer, request.request()).await;
        let mut by_layer = client_view(&response);
        if request.method == Method::HEAD {
            // In a response to HEAD, the layer passes on the body of the service, but the server
            // sends no body.
            by_layer[2] = json!("");
        }
        assert_eq!(by_layer, by_server, "{request:?}");
        // A denied request does not reach the service, except if `on_response` denies the request,
        // because this hook runs after the service.
        let is_withheld = by_server[2].as_str().unwrap().contains(WITHHELD_CODE)
            || request.method == Method::HEAD && request.path.ends_with("secret");
        if !is_withheld {
            assert_eq!(received.lock().unwrap().len(), usize::from(response.status() == 200));
        }
        let (status, code) = verdict(&response);
        verdicts.push((
            status,
            if is_withheld { format!("{WITHHELD_CODE}: Kept back.") } else { code },
        ));
        *statuses.entry(response.status().as_u16()).or_default() += 1;
        let (response, _) = send_through(&without_rewriting, request.request()).await;
        if by_server != client_view(&response) && request.method != Method::HEAD {
            let text = String::from_utf8_lossy(response.body()).into_owned();
            assert!(text.contains("normal form"), "{request:?} {text}");
        }
    }
    // The corpus must contain each of these reasons for a denial.
    for code in [
        "AUTHENTICATION_FAILED: Sorry, you are using an invalid API Key.",
        "AUTHENTICATION_FAILED: The API key has been revoked.",
        "AUTHENTICATION_FAILED: The API key has expired.",
        "CLOSED",
        "INVALID_API_KEY_FORMAT",
        "INVALID_APPLICATION_ID",
        "MISSING_API_KEY_HEADER",
        "RATE_LIMITED",
        "USER_BLOCKED",
        "USER_DOES_NOT_EXIST",
    ] {
        assert!(verdicts.iter().any(|(_, found)| found.starts_with(code)), "{code}");
    }

    let upstream = upstream().await;
    fixture.set_handler(&Handler::Proxy, &upstream).await;
    for (request, expected) in corpus.iter().zip(&verdicts) {
        let (status, code) = verdict(&request.send(address).await);
        assert_eq!(status, expected.0, "proxy {request:?}");
        assert!(request.method == Method::HEAD || code == expected.1, "proxy {code} {request:?}");
    }

    fixture.set_handler(&Handler::Decide, "").await;
    for dialect in &DIALECTS {
        // A verify request contains neither the body of the client's request nor the response. So
        // this loop leaves out the requests that a hook decides by the body or by the response.
        let is_decidable = |(request, (_, code)): &(&TestRequest, &(u16, String))| {
            request.path != "/buffered" && !code.starts_with(WITHHELD_CODE)
        };
        for (request, expected) in corpus.iter().zip(&verdicts).filter(is_decidable) {
            let (status, code) = dialect.verdict(request, "127.0.0.1", verify).await;
            let context = format!("{} {:?} {request:?}", dialect.name, dialect.fields);
            assert_eq!(status, expected.0, "{context}");
            // A denial of a HEAD request has no body, so the layer's verdict contains no code to
            // compare.
            let has_no_body = request.method == Method::HEAD;
            assert!(has_no_body || code == expected.1, "{code} {} {context}", expected.1);
        }
        // A network-bound key is checked against the client address that the proxy reports.
        let elsewhere =
            TestRequest::new(Method::GET, "/orders/7", &[("api-key", network_bound(&corpus))]);
        assert_eq!(
            dialect.verdict(&elsewhere, "203.0.113.7", verify).await.0,
            200,
            "{}",
            dialect.name
        );
        assert_eq!(
            dialect.verdict(&elsewhere, "198.51.100.7", verify).await.0,
            401,
            "{}",
            dialect.name
        );
    }
    assert!(corpus.len() > 500, "{}", corpus.len());
    for status in [200, 400, 401, 403, 404, 405, 406, 415, 429] {
        assert!(statuses.get(&status).is_some_and(|count| *count > 1), "{statuses:?}");
    }
}
