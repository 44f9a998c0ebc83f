//! Preflights and refusals for browsers. A stub decides, so that every kind of response is tried:
//! each proxy must deliver the stub's status and its fields for browsers.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use crate::{
    client::send,
    program::{Kind, Program},
    upstream::{Upstream, find},
};

/// The fields of a browser's question before the request itself.
const PREFLIGHT: &str = "Origin: https://app.example\r\nAccess-Control-Request-Method: POST\r\n\
                         Access-Control-Request-Headers: api-key\r\n";

/// The fields that a browser needs.
const FIELDS: [(&str, &str); 8] = [
    ("access-control-allow-origin", "https://app.example"),
    ("access-control-allow-credentials", "true"),
    ("access-control-allow-methods", "GET, POST"),
    ("access-control-allow-headers", "API-KEY, Content-Type"),
    ("access-control-expose-headers", "Retry-After"),
    ("access-control-max-age", "600"),
    ("access-control-allow-private-network", "true"),
    ("vary", "Origin, Access-Control-Request-Method"),
];

/// A server that answers each question with the same response.
struct Stub {
    address: SocketAddr,
    response: Arc<Mutex<String>>,
    questions: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stub = Self { address, response: Arc::default(), questions: Arc::default() };
        let (response, questions) = (stub.response.clone(), stub.questions.clone());
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                let mut buffer = [0; 8192];
                while find(&head, b"\r\n\r\n").is_none() {
                    match stream.read(&mut buffer) {
                        Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
                        _ => break,
                    }
                }
                questions.lock().unwrap().push(String::from_utf8_lossy(&head).to_lowercase());
                let _ = stream.write_all(response.lock().unwrap().as_bytes());
            }
        });
        stub
    }

    /// Sets the response with which Keyward ends a request with this status. A proxy passes a
    /// request for which it gets 204, and nginx supports only 401 and 403, so fields describe other
    /// responses.
    fn end_request(&self, kind: Kind, status: u16, body: &str) {
        let (shown, more) = match (kind, status) {
            (Kind::Envoy | Kind::Traefik, 204) => (204, String::new()),
            (_, 204) => (403, "X-Keyward-Status: 204\r\n".to_owned()),
            (Kind::Nginx, 401 | 403) => {
                (status, format!("X-Keyward-Status: {status}\r\nX-Keyward-Body: {body}\r\n"))
            }
            (Kind::Nginx, _) => {
                (403, format!("X-Keyward-Status: {status}\r\nX-Keyward-Body: {body}\r\n"))
            }
            _ => (status, String::new()),
        };
        self.respond(shown, &more, body, "/x");
    }

    fn respond(&self, status: u16, more: &str, body: &str, uri: &str) {
        let fields: String =
            FIELDS.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = match status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        *self.response.lock().unwrap() = format!(
            "HTTP/1.1 {status} Stub\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Cache-Control: no-store\r\nX-Keyward-Uri: {uri}\r\n\
             X-Keyward-Cache-Control: private\r\n{fields}{more}{length}\r\n{body}"
        );
    }
}

/// Envoy over gRPC needs the messages of a real server, so it is not tried with the stub.
pub async fn run(kind: Kind) {
    let (stub, upstream) = (Stub::start(), Upstream::start());
    let Some(program) = Program::start(kind, stub.address, upstream.address) else { return };
    for (status, body) in [(204, ""), (401, "{\"a\":1}"), (403, "{\"a\":1}"), (429, "{\"a\":1}")] {
        stub.end_request(kind, status, body);
        let response = send(program.address, "OPTIONS", "/x", PREFLIGHT, b"").await;
        assert_eq!(response.status, status, "{kind:?}: {response:?} {}", program.log());
        for (name, value) in FIELDS {
            let values: Vec<_> =
                response.headers.iter().filter(|(known, _)| known == name).collect();
            assert!(
                values.iter().any(|(_, found)| found == value),
                "{kind:?} {name}: {response:?}"
            );
            assert!(values.len() == 1 || name == "vary", "{kind:?} {name}: {response:?}");
        }
        assert_eq!(String::from_utf8_lossy(&response.body), body, "{kind:?} {status}");
        assert!(upstream.take().is_empty(), "{kind:?}");
    }
    // Keyward sees the fields by which it decides about a preflight.
    let question = stub.questions.lock().unwrap().pop().unwrap();
    for line in PREFLIGHT.trim().split("\r\n") {
        assert!(question.contains(&line.to_lowercase()), "{kind:?}: {question}");
    }
    if kind == Kind::Traefik {
        // Traefik hands preflights to Keyward, which cannot pass them on.
        return;
    }
    // A preflight that Keyward allows reaches the application.
    stub.respond(200, "", "", "/x");
    let response = send(program.address, "OPTIONS", "/x", PREFLIGHT, b"").await;
    let recorded = upstream.take();
    assert_eq!((response.status, recorded.len()), (200, 1), "{kind:?}: {response:?}");
    assert_eq!((recorded[0].method(), recorded[0].target()), ("OPTIONS", "/x"), "{kind:?}");
    // The response to the browser's request has Keyward's fields.
    let origin = "Origin: https://app.example\r\n";
    let response = send(program.address, "GET", "/x", origin, b"").await;
    for name in [
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "access-control-expose-headers",
        "vary",
    ] {
        let (_, value) = FIELDS.into_iter().find(|(known, _)| *known == name).unwrap();
        assert_eq!(response.header(name), Some(value), "{kind:?}: {response:?}");
        assert_eq!(response.count(name), 1, "{kind:?}: {response:?}");
    }
    assert_eq!(response.header("cache-control"), Some("private"), "{kind:?}: {response:?}");
    let recorded = upstream.take();
    assert_eq!(recorded.len(), 1, "{kind:?}");
    assert_eq!(recorded[0].field("x-keyward-cache-control"), [""; 0], "{kind:?}");
}

/// Keyward may forward another target than the client's: without the credential in the query.
pub async fn run_targets(kind: Kind) {
    let (stub, upstream) = (Stub::start(), Upstream::start());
    let Some(program) = Program::start(kind, stub.address, upstream.address) else { return };
    for (target, decided) in [
        ("/x?api_key=secret&b=2", "/x?b=2"),
        ("/x?b=2&api_key=secret", "/x?b=2"),
        ("/x?api_key=secret", "/x"),
        ("/a/../x?api_key=secret&c=%7e{d}&&", "/x?c=%7e{d}&&"),
        ("/api_key=secret?api_key=secret", "/api_key=secret"),
    ] {
        stub.respond(200, "X-Keyward-User: ada\r\n", "", decided);
        let response = send(program.address, "GET", target, "", b"").await;
        let recorded = upstream.take();
        match &recorded[..] {
            [request] => {
                // Traefik cannot change the query: docs/faces.md says so.
                let is_decided = request.target() == decided;
                assert!(is_decided || kind == Kind::Traefik, "{kind:?} {target}: {request:?}");
                assert_eq!(request.field("x-keyward-user"), ["ada"], "{kind:?} {target}");
            }
            _ => assert_eq!((response.status, recorded.len()), (400, 0), "{kind:?} {target}"),
        }
        assert!(response.status == 200 || target.starts_with("/api_key"), "{kind:?} {target}");
    }
}
