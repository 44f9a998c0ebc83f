//! Scenarios that every proxy with its shipped configuration must pass.

use std::sync::atomic::Ordering::SeqCst;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    client::{Response, get_from, send},
    environment::Environment,
    program::{Kind, Program, Version},
};

/// Header fields that a client could forge: an identity in several spellings, and the description
/// of another request.
const FORGED: &str = "X-Keyward-User: root\r\nx-keyward-user-id: 1\r\nX_Keyward_User: root\r\nX-Keyward_Roles: root\r\n\
                      X-KEYWARD-ROLES: root\r\nX-Keyward-Key-Id: root\r\nX_Keyward-Application: root\r\n\
                      X-Original-URL: /root\r\nX-Rewrite-URL: /root\r\nX-HTTP-Method-Override: ROOT\r\n\
                      X-Forwarded-For: 203.0.113.1\r\nX-Forwarded-Uri: /open\r\nX-Original-URI: /open\r\n\
                      X-Forwarded-Method: GET\r\nX-Original-Method: GET\r\nX-Forwarded-Host: root\r\n";

/// Runs all scenarios against one proxy.
pub async fn run_all(kind: Kind) {
    let mut environment = Environment::new().await;
    let keyward = if kind == Kind::EnvoyGrpc { environment.grpc } else { environment.verify };
    let Some(program) = Program::start(kind, keyward, environment.application.address) else {
        return;
    };
    let scenarios = Scenarios { environment: &environment, program: &program };
    scenarios.authorized_request_passes_with_its_identity().await;
    scenarios.denied_request_gets_the_reason().await;
    scenarios.forged_header_fields_do_not_pass().await;
    scenarios.anonymous_request_has_no_identity().await;
    scenarios.client_address_is_passed_on().await;
    scenarios.rate_limited_request_gets_the_limit_header_fields().await;
    scenarios.body_arrives_completely().await;
    scenarios.odd_paths_are_decided_as_by_the_built_in_proxy().await;
    environment.stop().await;
    no_request_passes_while_keyward_is_down(&environment, &program).await;
}

/// Tests a proxy that forwards connections. Keyward decides by the client address from the PROXY
/// protocol, and passes this address to the application.
pub async fn forwards_connections(version: Version) {
    let environment = Environment::new().await;
    let kind = Kind::HaproxyTcp(version);
    let Some(program) =
        Program::start(kind, environment.behind_proxy, environment.application.address)
    else {
        return;
    };
    for (from, credential, status) in [
        ("127.0.0.1", &environment.ada, 200),
        ("127.0.0.2", &environment.ada, 200),
        ("127.0.0.1", &environment.ada_here, 200),
        ("127.0.0.2", &environment.ada_here, 401),
        ("127.0.0.1", &environment.ada_elsewhere, 401),
    ] {
        let credential = format!("API-KEY: {credential}\r\n");
        let response =
            get_from(from.parse().unwrap(), program.address, "/files/a", &credential).await;
        assert_eq!(response.status, status, "{from}: {response:?} {}", program.log());
        if status == 200 {
            assert_eq!(received(&response.json(), "x-forwarded-for"), [from]);
        }
    }
    // A client that connects directly to the listener behind the proxy is disconnected.
    let connected = tokio::net::TcpStream::connect(environment.behind_proxy).await;
    let mut stream = connected.unwrap();
    stream.write_all(b"GET /files/a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    assert_eq!(text, "");
}

struct Scenarios<'a> {
    environment: &'a Environment,
    program: &'a Program,
}

/// The values of a header field in the request that the application received, without empty values.
fn received<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let all = request["headers"].as_array().unwrap().iter();
    let values = all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap());
    values.filter(|value| !value.is_empty()).collect()
}

impl Scenarios<'_> {
    async fn send(
        &self,
        method: &str,
        path: &str,
        credential: &str,
        header_lines: &str,
    ) -> Response {
        let header_lines = match credential {
            "" => header_lines.to_owned(),
            credential => format!("API-KEY: {credential}\r\n{header_lines}"),
        };
        send(self.program.address, method, path, &header_lines, b"").await
    }

    /// The number of requests that reached the application.
    fn requests(&self) -> usize {
        self.environment.application.requests.load(SeqCst)
    }

    async fn authorized_request_passes_with_its_identity(&self) {
        let response = self
            .send(
                "GET",
                "/orders/7?a=%2Fb",
                &self.environment.ada,
                "X-Mine: 1\r\nAUTH-METHOD: default\r\n",
            )
            .await;
        assert_eq!(response.status, 200, "{response:?} {}", self.program.log());
        let request = response.json();
        assert_eq!(
            (&request["method"], &request["target"]),
            (&json!("GET"), &json!("/orders/7?a=%2Fb"))
        );
        assert_eq!(received(&request, "x-mine"), ["1"]);
        assert_eq!(received(&request, "x-keyward-user"), ["ada"]);
        assert_eq!(received(&request, "x-keyward-roles"), ["writer"]);
        assert_eq!(received(&request, "x-keyward-application"), ["default"]);
        for name in ["x-keyward-user-id", "x-keyward-key-id"] {
            assert_eq!(received(&request, name).len(), 1, "{name}");
        }
        for name in ["api-key", "auth-method"] {
            assert_eq!(received(&request, name), [""; 0], "{name}");
        }
        assert!(!request.to_string().contains(&self.environment.ada));
    }

    async fn denied_request_gets_the_reason(&self) {
        let (ada, bob) = (&self.environment.ada, &self.environment.bob);
        let before = self.requests();
        let code = |code: &str| json!({ "error": code });
        for (method, path, credential, header_lines, status, expected) in [
            ("GET", "/orders/7", "", "", 401, code("MISSING_API_KEY_HEADER")),
            ("GET", "/orders/7", "bm9ib2R5Ong=", "", 404, code("USER_DOES_NOT_EXIST")),
            ("GET", "/orders/7", "!", "", 401, code("INVALID_API_KEY_FORMAT")),
            ("GET", "/orders/7", "", "AUTH-METHOD: other\r\n", 400, code("INVALID_APPLICATION_ID")),
            (
                "POST",
                "/orders/7",
                bob,
                "",
                403,
                json!({ "message": "The 'write' permission is required." }),
            ),
            (
                "GET",
                "/other",
                ada,
                "",
                404,
                json!({ "message": "No route found for \"GET http://api.example/other\"" }),
            ),
        ] {
            let response = self.send(method, path, credential, header_lines).await;
            assert_eq!(response.status, status, "{method} {path} {header_lines} {response:?}");
            let body = response.json();
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(&body[name], value, "{method} {path}");
            }
            let challenges = usize::from(status == 401);
            assert_eq!(response.count("www-authenticate"), challenges, "{response:?}");
            assert_eq!(response.count("content-type"), 1, "{response:?}");
        }
        let response = self.send("DELETE", "/orders/7", ada, "").await;
        assert_eq!((response.status, response.header("allow")), (405, Some("GET, POST, HEAD")));
        assert_eq!(self.requests(), before);
    }

    async fn forged_header_fields_do_not_pass(&self) {
        let response = self.send("GET", "/orders/7", &self.environment.ada, FORGED).await;
        assert_eq!(response.status, 200, "{response:?}");
        let request = response.json();
        assert_eq!(request["target"], "/orders/7");
        assert!(!request.to_string().to_lowercase().contains("root"), "{request}");
        assert_eq!(received(&request, "x-keyward-user"), ["ada"]);
        // Keyward decides about the real request, not about the request in the forged fields.
        let before = self.requests();
        assert_eq!(self.send("GET", "/orders/7", "", FORGED).await.status, 401);
        assert_eq!(self.send("POST", "/orders/7", &self.environment.bob, FORGED).await.status, 403);
        assert_eq!(self.requests(), before);
    }

    async fn anonymous_request_has_no_identity(&self) {
        let response = self.send("GET", "/open", "", FORGED).await;
        assert_eq!(response.status, 200, "{response:?}");
        let request = response.json();
        assert!(!request.to_string().to_lowercase().contains("root"), "{request}");
        for name in ["user", "user-id", "roles", "key-id", "application"] {
            assert_eq!(received(&request, &format!("x-keyward-{name}")), [""; 0], "{name}");
        }
    }

    async fn client_address_is_passed_on(&self) {
        let (here, elsewhere) = (&self.environment.ada_here, &self.environment.ada_elsewhere);
        assert_eq!(self.send("GET", "/orders/7", here, "").await.status, 200);
        let forged = "X-Forwarded-For: 203.0.113.1\r\nX-Real-IP: 203.0.113.1\r\nForwarded: for=203.0.113.1\r\n";
        for header_lines in ["", forged] {
            assert_eq!(
                self.send("GET", "/orders/7", elsewhere, header_lines).await.status,
                401,
                "{header_lines}"
            );
        }
    }

    async fn rate_limited_request_gets_the_limit_header_fields(&self) {
        let limited_key = &self.environment.ada_once;
        let first = self.send("GET", "/orders/7", limited_key, "").await;
        assert_eq!(first.status, 200, "{first:?}");
        // Caddy and Traefik cannot copy header fields of an allowing verify response to the client.
        if !matches!(self.program.kind, Kind::Caddy | Kind::Traefik) {
            assert_eq!(first.header("ratelimit"), Some("\"key\";r=0;t=3600"), "{first:?}");
            assert_eq!(first.header("ratelimit-policy"), Some("\"key\";q=1;w=3600"));
        }
        // The application does not get the limit header field.
        assert_eq!(received(&first.json(), "ratelimit"), [""; 0]);
        let before = self.requests();
        let second = self.send("GET", "/orders/7", limited_key, "").await;
        assert_eq!(second.status, 429, "{second:?}");
        assert_eq!(second.json()["error"], "RATE_LIMITED");
        let seconds: u32 = second.header("retry-after").unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&seconds), "{seconds}");
        for (name, beginning) in
            [("ratelimit", "\"key\";r=0;t=35"), ("ratelimit-policy", "\"key\";q=1;w=3600")]
        {
            assert_eq!(second.count(name), 1, "{name}: {second:?}");
            let value = second.header(name).unwrap();
            assert!(value.starts_with(beginning) || value == "\"key\";r=0;t=3600", "{value}");
        }
        assert_eq!(self.requests(), before);
        // A key without a limit gets no limit header fields.
        let other = self.send("GET", "/orders/7", &self.environment.ada, "").await;
        assert_eq!((other.status, other.count("ratelimit")), (200, 0), "{other:?}");
    }

    async fn body_arrives_completely(&self) {
        let body: Vec<u8> = (0..900_000_u32).flat_map(|n| n.to_le_bytes()).take(900_000).collect();
        let credential = format!("API-KEY: {}\r\n", self.environment.ada);
        let response = send(self.program.address, "POST", "/orders/7", &credential, &body).await;
        assert_eq!(response.status, 200, "{response:?}");
        let request = response.json();
        assert_eq!(request["length"], body.len());
        assert_eq!(request["digest"], blake3::hash(&body).to_hex().as_str());
    }

    /// Whether the application gets the same target from Keyward's built-in proxy and from the
    /// other proxy. nginx passes on the normalized target that Keyward returns, so both targets
    /// must be equal. With another proxy, the two targets must be equal after normalization.
    fn is_same_target(&self, built_in: &Value, other: &Value) -> bool {
        match self.program.kind {
            Kind::Nginx => built_in == other,
            _ => normalized(built_in) == normalized(other),
        }
    }

    async fn odd_paths_are_decided_as_by_the_built_in_proxy(&self) {
        let mut differences = Vec::new();
        for path in ODD_PATHS {
            let credential = format!("API-KEY: {}\r\n", self.environment.ada);
            let built_in = send(self.environment.keyward, "GET", path, &credential, b"").await;
            let other = send(self.program.address, "GET", path, &credential, b"").await;
            let is_equivalent = match (built_in.status, other.status) {
                (200, 200) => {
                    self.is_same_target(&built_in.json()["target"], &other.json()["target"])
                }
                // The other proxy may reject an ambiguous path before it asks Keyward.
                (200, status) => status == 400,
                // The other proxy may normalize the path before the verify request. In this case
                // Keyward must allow the normalized path.
                (_, 200) => {
                    let target = other.json()["target"].as_str().unwrap().to_owned();
                    let built_in =
                        send(self.environment.keyward, "GET", &target, &credential, b"").await;
                    built_in.status == 200 && built_in.json()["target"] == target
                }
                (built_in, other) => built_in >= 400 && other >= 400,
            };
            if !is_equivalent {
                differences.push(format!("{path}: {} and {}", built_in.status, other.status));
            }
        }
        assert!(differences.is_empty(), "{:?}: {differences:#?}", self.program.kind);
    }
}

const ODD_PATHS: [&str; 34] = [
    "/files/a",
    "/files//a",
    "//files/a",
    "/files/a/",
    "/files/",
    "/files",
    "/files/./a",
    "/files/a/..",
    "/files/../files/a",
    "/x/../files/a",
    "/files/../x",
    "/files/%61",
    "/files/%2e%2e/x",
    "/x/%2e%2e/files/a",
    "/files/a%2fb",
    "/files/a%2Fb",
    "/files/%5c",
    "/files/a;b=c",
    "/files/a%3bb",
    "/files/%00",
    "/files/a%0a",
    "/files/%",
    "/files/%zz",
    "/files/%2561",
    "/files/%252e%252e/x",
    "/files/%c3%bc",
    "/files/%ff",
    "/../files/a",
    "/files/../../x",
    "/files/a?b=/../c",
    "/FILES/a",
    "/files/~a",
    "/files/a:b@c",
    "/files/a%20b",
];

/// The normal form of a target. Handles only the spellings that occur in `ODD_PATHS`.
fn normalized(target: &Value) -> String {
    let target = target.as_str().unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut segments: Vec<&str> = Vec::new();
    let path = path.replace("%61", "a").replace("%2e", ".").replace("%2E", ".");
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    format!("/{}?{query}", segments.join("/")).to_lowercase()
}

async fn no_request_passes_while_keyward_is_down(environment: &Environment, program: &Program) {
    let before = environment.application.requests.load(SeqCst);
    for path in ["/orders/7", "/open", "/files/a"] {
        let credential = format!("API-KEY: {}\r\n", environment.ada);
        let response = send(program.address, "GET", path, &credential, b"").await;
        let expected = match program.kind {
            Kind::Caddy | Kind::Traefik => 502,
            _ => 503,
        };
        assert_eq!(response.status, expected, "{response:?}");
    }
    assert_eq!(environment.application.requests.load(SeqCst), before);
}
