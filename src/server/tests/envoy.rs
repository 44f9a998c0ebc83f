//! Tests of Envoy over gRPC: the same decisions as at `/-/verify/envoy`, and no decision for
//! malformed calls.

mod health;

use ::http::{HeaderMap as Fields, Method};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::json;

use super::{
    support::{TestServer, limits, send_to},
    *,
};
use crate::{
    handlers::{BodyLimits, Handlers},
    pipeline::Gate,
    server::{
        Verify,
        verify::envoy::{
            Envoy,
            messages::{
                Address, Allowed, AppendAction, AttributeRequest, Attributes, CheckRequest,
                CheckResponse, Denied, HeaderMap, HeaderValue, HttpRequest, HttpResponse, Node,
                SocketAddress,
            },
        },
    },
};

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A server with the HTTP and the gRPC endpoint for Envoy.
struct EnvoyFixture {
    server: TestServer,
    grpc: SocketAddr,
}

/// The result of a gRPC call.
#[derive(Debug)]
struct GrpcResult {
    status: u16,
    code: Option<String>,
    /// The reason of a code other than 0.
    reason: Option<String>,
    message: Option<CheckResponse>,
}

impl EnvoyFixture {
    async fn trusting(network: &str) -> Self {
        let network: ipnet::IpNet = network.parse().unwrap();
        let resources = [
            json!({ "id": "orders", "handler": "decide", "host": "api.example", "path": "/orders/{id}",
                    "permissions": { "POST": ["read"], "PUT": ["write"] } }),
            json!({ "id": "open", "handler": "decide", "path": "/open", "authentication": ["anonymous"] }),
            json!({ "id": "page", "handler": "decide", "path": "/page", "cors": { "origins": ["https://app.example"] } }),
            json!({ "id": "passed", "handler": "decide", "path": "/passed", "cors": { "origins": ["*"], "preflight": "pass" } }),
        ];
        let server = TestServer::new(&resources).await;
        let bodies = BodyLimits { bytes: 64 * 1024, read: PATIENCE };
        let handlers = Handlers::new(server.accounts.clone(), bodies);
        let verify = Verify::new(Gate::new(&server.accounts, 4096), handlers);
        let envoy = Envoy::new(verify.with_trusted_proxies([network]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = listener.local_addr().unwrap();
        let connections = Arc::new(Semaphore::new(100));
        tokio::spawn(serve(BoundSocket::Tcp(listener), limits(), connections, envoy, pending()));
        Self { server, grpc }
    }

    async fn new() -> Self {
        Self::trusting("127.0.0.0/8").await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> GrpcResult {
        let io = TokioIo::new(TcpStream::connect(self.grpc).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap();
        let code = |fields: &Fields| Some(fields.get("grpc-status")?.to_str().unwrap().to_owned());
        let code = code(&head.headers).or_else(|| body.trailers().and_then(code));
        let reason = head.headers.get("grpc-message");
        let reason = reason.map(|text| text.to_str().unwrap().to_owned());
        let bytes = body.to_bytes();
        let message = (!bytes.is_empty()).then(|| {
            assert_eq!(bytes[0], 0);
            assert_eq!(bytes[1..5], u32::try_from(bytes.len() - 5).unwrap().to_be_bytes());
            CheckResponse::decode(&bytes[5..]).unwrap()
        });
        GrpcResult { status: head.status.as_u16(), code, reason, message }
    }

    async fn call(&self, request: CheckRequest) -> CheckResponse {
        let result = self.send(call(&framed(&request.encode_to_vec()))).await;
        assert_eq!((result.status, result.code.as_deref()), (200, Some("0")));
        result.message.unwrap()
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&[0], u32::try_from(message.len()).unwrap().to_be_bytes().as_slice(), message].concat()
}

fn call(body: &[u8]) -> Request<Full<Bytes>> {
    Request::post(format!("http://keyward{CHECK}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::copy_from_slice(body)))
        .unwrap()
}

fn check_request(method: &str, path: &str, fields: &[(&str, &str)], source: &str) -> CheckRequest {
    let headers = fields.iter().map(|(name, value)| HeaderValue {
        key: (*name).into(),
        value: String::new(),
        raw_value: value.as_bytes().to_vec(),
    });
    let http = HttpRequest {
        method: method.into(),
        path: path.into(),
        host: "api.example".into(),
        scheme: "https".into(),
        header_map: Some(HeaderMap { headers: headers.collect() }),
        ..HttpRequest::default()
    };
    let address = Address { socket: Some(SocketAddress { address: source.into() }) };
    CheckRequest {
        attributes: Some(Attributes {
            source: Some(Node { address: Some(address) }),
            request: Some(AttributeRequest { http: Some(http) }),
        }),
    }
}

fn allowed(response: CheckResponse) -> Allowed {
    assert_eq!(response.status.unwrap().code, 0);
    match response.http_response.unwrap() {
        HttpResponse::Allowed(allowed) => allowed,
        denied => panic!("{denied:?}"),
    }
}

fn denied(response: CheckResponse) -> Denied {
    assert_ne!(response.status.unwrap().code, 0);
    match response.http_response.unwrap() {
        HttpResponse::Denied(denied) => denied,
        allowed => panic!("{allowed:?}"),
    }
}

fn value<'a>(
    headers: &'a [crate::server::verify::envoy::messages::HeaderValueOption],
    name: &str,
) -> Option<&'a str> {
    let mut found = headers.iter().filter_map(|option| option.header.as_ref());
    found.find(|header| header.key == name).map(|header| header.value.as_str())
}

#[tokio::test]
async fn grpc_and_http_lead_to_the_same_decision() {
    let fixture = EnvoyFixture::new().await;
    let (ada, bob) =
        (fixture.server.ada_credential.as_str(), fixture.server.bob_credential.as_str());
    let mut allowed_count = 0;
    for (method, path, credential) in [
        ("GET", "/orders/7?a=%2Fb", ada),
        ("POST", "/orders/7", ada),
        ("POST", "/orders/7", bob),
        ("PUT", "/orders/7", ada),
        ("GET", "/orders/7", ""),
        ("GET", "/orders/7", "bm9ib2R5Ong="),
        ("GET", "/orders/7", "!"),
        ("GET", "/orders/%2e%2e/orders/7", ada),
        ("GET", "/orders/a%2fb", ada),
        ("GET", "/orders/%00", ada),
        ("GET", "/other", ada),
        ("GET", "/open", ""),
        ("DELETE", "/open", ada),
    ] {
        let line = match credential {
            "" => String::new(),
            credential => format!("API-KEY: {credential}\r\n"),
        };
        let request = format!(
            "{method} /-/verify/envoy{path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n{line}\r\n"
        );
        let http = send_to(fixture.server.verify, request.as_bytes()).await;
        let mut fields = vec![("x-forwarded-for", "203.0.113.7")];
        if !credential.is_empty() {
            fields.push(("api-key", credential));
        }
        let response = fixture.call(check_request(method, path, &fields, "127.0.0.1")).await;
        let names = [
            "content-type",
            "www-authenticate",
            "allow",
            "x-keyward-user",
            "x-keyward-roles",
            "x-keyward-uri",
        ];
        let (status, headers, body) = match response.http_response.clone().unwrap() {
            HttpResponse::Allowed(allowed) => {
                allowed_count += 1;
                // Over HTTP, the configuration of Envoy removes the credential.
                let names = allowed.headers_to_remove.iter().filter(|name| *name != "api-key");
                for name in names {
                    assert_eq!(http.header(name), Some(""), "{path}: {name}");
                }
                (200, allowed.headers, String::new())
            }
            HttpResponse::Denied(denied) => {
                (denied.status.unwrap().code, denied.headers, denied.body)
            }
        };
        assert_eq!(
            (i32::from(http.status), http.text()),
            (status, body.as_str()),
            "{method} {path}"
        );
        for name in names {
            let over_http = http.header(name).filter(|text| !text.is_empty());
            assert_eq!(over_http, value(&headers, name), "{method} {path}: {name}");
        }
    }
    assert_eq!(allowed_count, 4);
}

#[tokio::test]
async fn envoy_learns_which_fields_to_add_to_the_response_and_which_to_replace() {
    let fixture = EnvoyFixture::new().await;
    let ada = fixture.server.ada_credential.as_str();
    let fields = [("api-key", ada), ("origin", "https://app.example")];
    let response =
        allowed(fixture.call(check_request("GET", "/page", &fields, "203.0.113.7")).await);
    let mut found: Vec<(&str, &str, i32)> = response
        .response_headers_to_add
        .iter()
        .map(|option| (option.header.as_ref().unwrap(), option.append_action))
        .map(|(header, action)| (header.key.as_str(), header.value.as_str(), action))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("access-control-allow-origin", "https://app.example", AppendAction::Replace as i32),
            ("cache-control", "private", AppendAction::AddIfAbsent as i32),
            ("vary", "AUTH-METHOD, API-KEY, Origin", AppendAction::Append as i32),
        ]
    );
    // The application gets none of these fields.
    for name in ["vary", "cache-control", "x-keyward-cache-control", "access-control-allow-origin"]
    {
        assert_eq!(value(&response.headers, name), None, "{name}");
        assert!(!response.headers_to_remove.iter().any(|removed| removed == name), "{name}");
    }
    let open = allowed(fixture.call(check_request("GET", "/open", &[], "203.0.113.7")).await);
    assert_eq!(open.response_headers_to_add, []);
}

#[tokio::test]
async fn preflight_ends_the_request_or_passes_without_an_identity() {
    let fixture = EnvoyFixture::new().await;
    let preflight = |origin| [("origin", origin), ("access-control-request-method", "GET")];
    let ask = async |origin, path| {
        fixture.call(check_request("OPTIONS", path, &preflight(origin), "203.0.113.7")).await
    };
    let answered = denied(ask("https://app.example", "/page").await);
    assert_eq!((answered.status.unwrap().code, answered.body.as_str()), (204, ""));
    let origin = value(&answered.headers, "access-control-allow-origin");
    assert_eq!(origin, Some("https://app.example"));
    let refused = denied(ask("https://evil.example", "/page").await);
    assert_eq!(refused.status.unwrap().code, 403);
    assert_eq!(value(&refused.headers, "access-control-allow-origin"), None);
    let passed = allowed(ask("https://evil.example", "/passed").await);
    assert_eq!(value(&passed.headers, "x-keyward-user"), None);
    assert!(passed.headers_to_remove.iter().any(|name| name == "x-keyward-user"));
}

#[tokio::test]
async fn identity_fields_of_the_client_are_removed() {
    let fixture = EnvoyFixture::new().await;
    let forged = [
        ("x-keyward-user", "root"),
        ("x_keyward_user", "root"),
        ("x-keyward-anything", "root"),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-mine", "1"),
    ];
    let fields =
        [forged.as_slice(), &[("api-key", fixture.server.ada_credential.as_str())]].concat();
    let known =
        allowed(fixture.call(check_request("GET", "/orders/7", &fields, "127.0.0.1")).await);
    assert_eq!(value(&known.headers, "x-keyward-user"), Some("ada"));
    let removed = ["api-key", "x-keyward-anything", "x-keyward-scopes", "x_keyward_user"];
    assert_eq!(known.headers_to_remove, removed);
    let anonymous =
        allowed(fixture.call(check_request("GET", "/open", &forged, "127.0.0.1")).await);
    assert_eq!(value(&anonymous.headers, "x-keyward-user"), None);
    for name in ["user", "user-id", "roles", "key-id", "application", "scopes", "anything"] {
        let name = format!("x-keyward-{name}");
        assert!(anonymous.headers_to_remove.contains(&name), "{name}");
    }
    assert!(anonymous.headers_to_remove.contains(&"x_keyward_user".into()));
    assert!(!anonymous.headers_to_remove.contains(&"x-mine".into()));
}

#[tokio::test]
async fn envoy_removes_the_credential_wherever_a_script_has_read_it() {
    let fixture = EnvoyFixture::new().await;
    let accounts = &fixture.server.accounts;
    let scripts = tempfile::tempdir().unwrap();
    std::fs::create_dir(scripts.path().join("auth")).unwrap();
    let script = r#"
        fn header(req) { req.headers("X-Client")[0] + req.cookie("session") + req.param("k") }
        fn decode(req, presented) { #{ user: "ada" } }
        fn verify(req, user, credential) { true }"#;
    std::fs::write(scripts.path().join("auth/own.rhai"), script).unwrap();
    let (limits, secrets) = Default::default();
    accounts.load_scripts(scripts.path(), limits, secrets, None).unwrap();
    let mut own = crate::model::Application::api_key("own", "Own");
    own.auth_type = crate::model::AuthType::Script("own".into());
    accounts.as_actor(crate::model::Actor::Program).create(own).await.unwrap();
    let fields = [
        ("auth-method", "own"),
        ("x-client", "a"),
        ("x_client", "b"),
        ("cookie", "theme=dark; session=s"),
        ("cookie", "session=t"),
        ("x-http-method-override", "DELETE"),
        ("x-mine", "1"),
    ];
    let request = check_request("GET", "/orders/7?a=1&%6b=2&b&k=3", &fields, "127.0.0.1");
    let known = allowed(fixture.call(request).await);
    assert_eq!(
        known.headers_to_remove,
        [
            "auth-method",
            "x-client",
            "x-http-method-override",
            "x-keyward-key-id",
            "x-keyward-scopes",
            "x_client"
        ]
    );
    assert_eq!(value(&known.headers, "cookie"), Some("theme=dark"));
    assert_eq!(value(&known.headers, "x-keyward-uri"), Some("/orders/7?a=1&b"));
    assert_eq!(known.query_parameters_to_remove, ["%6b", "k"]);
    assert_eq!(value(&known.headers, "x-mine"), None);
}

#[tokio::test]
async fn repeated_credential_is_denied_in_either_form() {
    let fixture = EnvoyFixture::new().await;
    let ada = fixture.server.ada_credential.as_str();
    let two = [("api-key", ada), ("api-key", ada)];
    let refused =
        denied(fixture.call(check_request("GET", "/orders/7", &two, "203.0.113.7")).await);
    assert_eq!(refused.status.unwrap().code, 401);
    let mut joined = check_request("GET", "/orders/7", &[], "203.0.113.7");
    let http = joined.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.header_map = None;
    http.headers = [("api-key".to_owned(), format!("{ada},{ada}"))].into();
    let refused = denied(fixture.call(joined.clone()).await);
    assert_eq!(refused.status.unwrap().code, 401);
    let http = joined.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.headers = [("api-key".to_owned(), ada.to_owned()), (":path".into(), "/x".into())].into();
    allowed(fixture.call(joined).await);
}

#[tokio::test]
async fn client_is_the_peer_of_envoy_unless_the_peer_is_a_trusted_proxy() {
    let fixture = EnvoyFixture::new().await;
    let new = crate::accounts::NewKey {
        networks: vec!["203.0.113.0/24".parse().unwrap()],
        ..Default::default()
    };
    let writer = fixture.server.accounts.as_actor(crate::model::Actor::Program);
    let uid = 2;
    let key = writer.issue_key(uid, new).await.unwrap().text.expose().to_owned();
    use base64::Engine as _;
    let credential = base64::engine::general_purpose::STANDARD.encode(format!("ada:{key}"));
    let listed = |chain: &'static str| Some(("x-forwarded-for", chain));
    let described = |chain: &'static str| Some(("forwarded", chain));
    for (source, report, status) in [
        ("203.0.113.7", None, 200),
        ("198.51.100.1", None, 401),
        // Another trusted proxy is in front of Envoy.
        ("127.0.0.1", listed("203.0.113.7"), 200),
        ("127.0.0.1", listed("203.0.113.7, 198.51.100.1"), 401),
        ("127.0.0.1", described("for=203.0.113.7"), 200),
        ("127.0.0.1", described("for=203.0.113.7, for=198.51.100.1"), 401),
        ("127.0.0.1", described("for=unknown"), 400),
        // The client sends the field itself. It is not a trusted proxy, so the server ignores the
        // field.
        ("198.51.100.1", listed("203.0.113.7"), 401),
        ("198.51.100.1", described("for=203.0.113.7"), 401),
        ("203.0.113.7", described("for=unknown"), 200),
        ("", listed("203.0.113.7"), 200),
        ("", described("for=203.0.113.7"), 200),
        ("", None, 400),
    ] {
        let mut fields = vec![("api-key", credential.as_str())];
        fields.extend(report);
        let response = fixture.call(check_request("GET", "/orders/7", &fields, source)).await;
        let found = match response.http_response.unwrap() {
            HttpResponse::Allowed(_) => 200,
            HttpResponse::Denied(denied) => denied.status.unwrap().code,
        };
        assert_eq!(found, status, "{source} {report:?}");
    }
}

#[tokio::test]
async fn proxy_that_is_not_trusted_gets_no_decision() {
    let fixture = EnvoyFixture::trusting("203.0.113.0/24").await;
    let ada = fixture.server.ada_credential.as_str();
    let refused = denied(
        fixture.call(check_request("GET", "/orders/7", &[("api-key", ada)], "203.0.113.7")).await,
    );
    assert_eq!(refused.status.unwrap().code, 403);
    assert!(refused.body.contains("UNTRUSTED_PROXY"), "{}", refused.body);
    // The server does not read the message of an untrusted proxy.
    let result = fixture.send(call(b"no message")).await;
    assert_eq!(denied(result.message.unwrap()).status.unwrap().code, 403);
}

#[tokio::test]
async fn malformed_call_gets_no_decision() {
    let fixture = EnvoyFixture::new().await;
    let good = framed(&check_request("GET", "/open", &[], "203.0.113.7").encode_to_vec());
    let compressed = [&[1], &good[1..]].concat();
    let empty = framed(&CheckRequest { attributes: None }.encode_to_vec());
    let large = framed(&vec![0; 80 * 1024]);
    let bad_field = framed(&check_request("GET", "/", &[("a b", "")], "127.0.0.1").encode_to_vec());
    for (body, code, reason) in [
        (b"".as_slice(), "3", "The body ends before the length"),
        (&good[..4], "3", "The body ends before the length"),
        (&good[..good.len() - 1], "3", "The length of the message is not"),
        (&[good.as_slice(), b"x"].concat(), "3", "The length of the message is not"),
        (&framed(b"\xff\xff\xff"), "3", "The message is not the protobuf message"),
        (&empty, "3", "The message has no attributes."),
        (&bad_field, "3", "The name or the value of a header field"),
        (&compressed, "12", "The message is compressed"),
        (&large, "8", "The body is larger than limits.body_bytes"),
    ] {
        let result = fixture.send(call(body)).await;
        assert_eq!((result.status, result.code.as_deref()), (200, Some(code)));
        assert!(result.reason.unwrap().starts_with(reason), "{reason}");
        assert!(result.message.is_none());
    }
    let mut other = call(&good);
    *other.uri_mut() = "http://keyward/envoy.service.auth.v2.Authorization/Check".parse().unwrap();
    assert_eq!(fixture.send(other).await.code.as_deref(), Some("12"));
    let mut get = call(b"");
    *get.method_mut() = Method::GET;
    let mut json = call(&good);
    json.headers_mut().insert("content-type", "application/json".parse().unwrap());
    let mut alike = call(&good);
    alike.headers_mut().insert("content-type", "application/grpc-web".parse().unwrap());
    for request in [get, json, alike] {
        let result = fixture.send(request).await;
        assert_eq!((result.status, result.code), (415, None));
    }
    let mut proto = call(&good);
    proto.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    allowed(fixture.send(proto).await.message.unwrap());
}

#[tokio::test]
async fn malformed_method_or_path_is_denied() {
    let fixture = EnvoyFixture::new().await;
    for (method, path) in [("GET", "/open#x"), ("GET", ""), ("GET", "open"), ("G T", "/open")] {
        let refused = denied(fixture.call(check_request(method, path, &[], "203.0.113.7")).await);
        assert_eq!(refused.status.unwrap().code, 400, "{method} {path}");
    }
}

/// The limits of a head hold for the request that Envoy describes.
#[tokio::test]
async fn described_head_larger_than_the_limits_is_denied() {
    let fixture = EnvoyFixture::new().await;
    let credential = ("api-key", fixture.server.ada_credential.as_str());
    let long = "x".repeat(17_000);
    let names: Vec<String> = (0..120).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).chain([credential]).collect();
    let long_path = format!("/orders/1?{long}");
    for (path, fields) in [
        ("/orders/1", &[credential, ("x", &long)][..]),
        ("/orders/1", &many),
        (&long_path, &[credential]),
    ] {
        let response = fixture.call(check_request("GET", path, fields, "203.0.113.7")).await;
        assert_eq!(denied(response).status.unwrap().code, 431);
    }
    let fits = [credential, ("x", &long[..12_000])];
    allowed(fixture.call(check_request("GET", "/orders/1", &fits, "203.0.113.7")).await);
}
