//! Requests with which a client tries to make the application see another request than the one that
//! Keyward decided about. Every proxy with its shipped configuration must pass these scenarios.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::Response,
    environment::Environment,
    program::{Kind, Program},
    upstream::{Recorded, Upstream},
};

/// The longest time to wait for the end of a connection.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A proxy with its shipped configuration, between the test and an application that records.
pub struct Fixture {
    pub environment: Environment,
    pub upstream: Upstream,
    pub program: Program,
}

/// The response to a request, and the requests that the application got meanwhile.
#[derive(Debug)]
pub struct Outcome {
    pub response: Response,
    pub recorded: Vec<Recorded>,
}

impl Fixture {
    /// `None` means that the program of the proxy is not installed.
    pub async fn start(kind: Kind) -> Option<Self> {
        let environment = Environment::new().await;
        let upstream = Upstream::start();
        let keyward = if kind == Kind::EnvoyGrpc { environment.grpc } else { environment.verify };
        let program = Program::start(kind, keyward, upstream.address)?;
        Some(Self { environment, upstream, program })
    }

    /// Sends these bytes, and reads until the connection ends.
    pub async fn send(&self, request: &str) -> Outcome {
        let bytes = exchange(&self.program, request.as_bytes(), b"").await;
        self.outcome(request, &bytes)
    }

    /// Sends a GET request that ends the connection. `header_lines` includes `Host`.
    pub async fn get(&self, target: &str, header_lines: &str) -> Outcome {
        self.send(&format!("GET {target} HTTP/1.1\r\n{header_lines}Connection: close\r\n\r\n"))
            .await
    }

    /// Sends the bytes `more` after the head of the response.
    pub async fn send_then(&self, request: &str, more: &[u8]) -> (Outcome, Vec<u8>) {
        let bytes = exchange(&self.program, request.as_bytes(), more).await;
        let outcome = self.outcome(request, &bytes);
        (outcome, bytes)
    }

    fn outcome(&self, request: &str, bytes: &[u8]) -> Outcome {
        let response = Response::parse(bytes).unwrap_or_else(|| {
            let answer = String::from_utf8_lossy(bytes);
            panic!("{:?}: {request:?}: {answer:?} {}", self.program.kind, self.program.log())
        });
        Outcome { response, recorded: self.upstream.take() }
    }

    /// The header line with ada's credential.
    pub fn credential(&self) -> String {
        format!("API-KEY: {}\r\n", self.environment.ada)
    }
}

async fn exchange(program: &Program, request: &[u8], more: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(program.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut more = Some(more).filter(|more| !more.is_empty());
        let echo = more.unwrap_or(b"\0");
        while matches!(stream.read_buf(&mut bytes).await, Ok(1..)) && !bytes.ends_with(echo) {
            let response = Response::parse(&bytes);
            match (&response, more.take()) {
                (Some(_), Some(more)) => drop(stream.write_all(more).await),
                (Some(response), None) if is_complete_refusal(response) => return,
                (_, unsent) => more = unsent,
            }
        }
    };
    // A proxy may keep the connection open.
    let _ = tokio::time::timeout(TIMEOUT, exchange).await;
    bytes
}

/// Whether the response is a refusal whose end is known. A proxy may keep the connection open.
fn is_complete_refusal(response: &Response) -> bool {
    let length = response.header("content-length").and_then(|length| length.parse().ok());
    response.status >= 400 && length == Some(response.body.len())
}

impl Outcome {
    pub fn is_refused(&self) -> bool {
        self.response.status >= 400 && self.recorded.is_empty()
    }

    /// The only request that the application got.
    pub fn only_request(&self) -> &Recorded {
        match &self.recorded[..] {
            [request] if self.response.status == 200 => request,
            _ => panic!("{self:#?}"),
        }
    }
}

/// Runs these scenarios one after another, and names all that failed.
macro_rules! run {
    ($fixture:expr, $($scenario:ident)*) => {{
        let mut failed = Vec::new();
        $(
            let fixture = $fixture.clone();
            let scenario = tokio::spawn(async move { fixture.$scenario().await });
            if scenario.await.is_err() {
                failed.push(stringify!($scenario));
            }
        )*
        assert!(failed.is_empty(), "{:?}: {failed:?}", $fixture.program.kind);
    }};
}

/// Runs all scenarios against one proxy.
pub async fn run_all(kind: Kind) {
    let Some(fixture) = Fixture::start(kind).await.map(Arc::new) else { return };
    run!(
        fixture,
        host_that_routes_is_the_host_that_decides
        host_keeps_its_port
        request_without_one_host_is_refused
        application_gets_the_path_that_was_decided_about
        long_target_passes_or_gets_its_denial
        many_header_fields_do_no_harm
        websocket_passes
        other_upgrade_is_no_tunnel
        connect_is_no_tunnel
        http2_requests_are_decided_one_by_one
        extended_connect_is_decided_about
        forged_fields_do_not_reach_the_application
        forwarded_fields_say_one_thing
        connection_takes_nothing_away
        trailers_carry_no_identity
    );
}

impl Fixture {
    async fn host_that_routes_is_the_host_that_decides(&self) {
        let kind = self.program.kind;
        // The target of a request takes precedence over the field Host (RFC 9112 3.2.2).
        let refused = self.get("http://api.example/v/1", "Host: pub.example\r\n").await;
        assert!(refused.is_refused(), "{kind:?}: {refused:?}");
        let admitted = self.get("http://pub.example/v/1", "Host: api.example\r\n").await;
        if !admitted.is_refused() {
            let request = admitted.only_request();
            assert_eq!((request.target(), request.field("host")), ("/v/1", vec!["pub.example"]));
        }
        let same = self.get("http://pub.example/v/1?a", "Host: pub.example\r\n").await;
        let request = same.only_request();
        assert_eq!((request.target(), request.field("host")), ("/v/1?a", vec!["pub.example"]));
        assert_eq!(request.field("x-forwarded-host"), ["pub.example"], "{kind:?}");
    }

    async fn host_keeps_its_port(&self) {
        let kind = self.program.kind;
        let outcome = self.get("/v/1", "Host: pub.example:8443\r\n").await;
        let request = outcome.only_request();
        for name in ["host", "x-forwarded-host"] {
            assert_eq!(request.field(name), ["pub.example:8443"], "{kind:?} {name}");
        }
        let outcome = self.get("/v/1", "Host: api.example:8443\r\n").await;
        assert!(outcome.is_refused(), "{kind:?}: {outcome:?}");
        let outcome = self.get("/v/1", "Host: PUB.example\r\n").await;
        let host = outcome.only_request().field("host").concat();
        assert!(host.eq_ignore_ascii_case("pub.example"), "{kind:?} {host}");
    }

    async fn request_without_one_host_is_refused(&self) {
        let kind = self.program.kind;
        for hosts in [
            "Host: api.example,pub.example\r\n",
            "Host: pub.example, api.example\r\n",
            "Host: api.example\r\nHost: pub.example\r\n",
            "Host: pub.example\r\nHost: api.example\r\n",
            "Host: pub.example@api.example\r\n",
            "Host: pub.example/\r\n",
            "Host:\r\n",
            "",
        ] {
            let outcome = self.get("/v/1", hosts).await;
            assert!(outcome.is_refused(), "{kind:?} {hosts:?}: {outcome:?}");
        }
        // HTTP/1.0 allows a request without a host.
        let outcome = self.send("GET /public/x HTTP/1.0\r\n\r\n").await;
        assert!(outcome.is_refused(), "{kind:?}: {outcome:?}");
    }

    async fn application_gets_the_path_that_was_decided_about(&self) {
        let kind = self.program.kind;
        for (target, decided) in DECIDED {
            let outcome = self.get(target, "Host: api.example\r\n").await;
            assert_eq!(outcome.only_request().target(), *decided, "{kind:?} {target}");
        }
        for target in OFTEN_REFUSED {
            let outcome = self.get(target, "Host: api.example\r\n").await;
            if outcome.is_refused() {
                continue;
            }
            // A proxy may write a character in another way before it asks. Then the built-in proxy
            // must leave the result unchanged.
            let sent = outcome.only_request().target();
            assert_eq!(self.normal_form(sent).await, sent, "{kind:?} {target}");
        }
        // These paths lead to a resource that asks for a credential.
        for target in
            ["/public/../secret/x", "/public/%2e%2e/secret/x", "//secret/x", "/%73ecret/x"]
        {
            let outcome = self.get(target, "Host: api.example\r\n").await;
            assert!(outcome.is_refused(), "{kind:?} {target}: {outcome:?}");
        }
    }

    /// The target that Keyward reports for an allowed target.
    async fn normal_form(&self, target: &str) -> String {
        let fields = format!(
            "X-Forwarded-Method: GET\r\nX-Forwarded-Host: api.example\r\nX-Forwarded-For: 203.0.113.9\r\n\
             X-Forwarded-Uri: {target}\r\n"
        );
        let keyward = self.environment.verify;
        let response = crate::client::send(keyward, "GET", "/-/verify", &fields, b"").await;
        assert_eq!(response.status, 200, "{target}: {response:?}");
        response.header("x-keyward-uri").unwrap().to_owned()
    }

    async fn long_target_passes_or_gets_its_denial(&self) {
        let kind = self.program.kind;
        let fields = format!("Host: api.example\r\n{}", self.credential());
        for length in [3_800, 4_000, 8_100] {
            let target = format!("/secret/x?q={}", "a".repeat(length - 12));
            let outcome = self.get(&target, &fields).await;
            assert_eq!(outcome.only_request().target().len(), length, "{kind:?}");
            // The denial repeats the path.
            let target = format!("/none/{}", "a".repeat(length - 6));
            let outcome = self.get(&target, &fields).await;
            assert_eq!(outcome.response.status, 404, "{kind:?} {length}: {outcome:?}");
            let message = outcome.response.json()["message"].to_string();
            assert!(message.contains(&target), "{kind:?} {message}");
        }
    }

    async fn many_header_fields_do_no_harm(&self) {
        let kind = self.program.kind;
        for count in [80, 90, 95, 100, 101, 105, 120, 150, 210, 300] {
            // Host, Connection and the credential are fields too.
            let more: String = (3..count).map(|index| format!("X-Field-{index}: 1\r\n")).collect();
            let fields = format!("Host: api.example\r\n{}{more}", self.credential());
            let outcome = self.get("/secret/x", &fields).await;
            match outcome.response.status {
                200 => assert_eq!(outcome.only_request().field("x-keyward-user"), ["ada"]),
                status => {
                    assert!(count > 90, "{kind:?} {count}: {outcome:?}");
                    assert!((400..500).contains(&status) || kind.is_envoy(), "{kind:?} {count}");
                    assert!(outcome.recorded.is_empty(), "{kind:?} {count}: {outcome:?}");
                }
            }
        }
        let fields = format!("Host: api.example\r\n{}", self.credential());
        self.get("/secret/x", &fields).await.only_request();
    }
}

/// Targets that a client may spell in several ways, and the spelling that was decided about.
const DECIDED: &[(&str, &str)] = &[
    ("/public/x", "/public/x"),
    ("/admin/../public/x", "/public/x"),
    ("//admin/../public/x", "/public/x"),
    ("/%61dmin/../public/x", "/public/x"),
    ("/a/%2e%2e/public/b", "/public/b"),
    ("/a/%2E./public/b", "/public/b"),
    ("/public/./x", "/public/x"),
    ("/public//x", "/public/x"),
    ("http://api.example/admin/../public/x", "/public/x"),
    ("http://api.example/%61dmin/../public/x?a=/../b", "/public/x?a=/../b"),
    ("/public/%7Ea", "/public/~a"),
    ("/public/%c3%bc", "/public/%C3%BC"),
    ("/public/a%20b", "/public/a%20b"),
    ("/public/a:b@c", "/public/a:b@c"),
    ("/public/$metadata", "/public/$metadata"),
    ("/public/x?q={env.HOME}", "/public/x?q={env.HOME}"),
    ("/public/x?a=%7e&&b=", "/public/x?a=%7e&&b="),
    ("/public/x?a?b", "/public/x?a?b"),
    ("/public/x?", "/public/x?"),
];

/// Targets that some proxies refuse or write in another way before they ask.
const OFTEN_REFUSED: &[&str] = &[
    "/../public/x",
    "/public/x#fragment",
    "/public/x#/../../secret/x",
    "/public/%2561",
    "/public/a%2Fb",
    "/public/a%3Fb",
    "/public/a%23b",
    "/public/a;b=c",
    "/public/{env.HOME}",
    "/public/[a]|b\"c",
    "/public/%24a/../$b",
    "/public/a\\b",
    "/public/%00",
    "/public/%",
    "/public/%zz",
    "/public/\u{fc}",
    "/public/x?\u{fc}",
    "http://api.example?/public/x",
    "http://api.example",
    "//api.example/public/x",
    "*",
    "public/x",
    "?/public/x",
];
