//! Tests of the verify endpoints: the response that a proxy in front gets, in each dialect.

use serde_json::{Value, json};

use super::{
    support::{PATIENCE, TestResponse, TestServer, listen_for_verify, send_to},
    upstream::{Protocol, echo},
};
use crate::handlers::{BodyLimits, Handlers};

const DIALECTS: [&str; 6] = ["", "/nginx", "/caddy", "/traefik", "/envoy", "/haproxy"];

fn orders() -> Value {
    json!({
        "id": "orders",
        "handler": "decide",
        "host": "api.example",
        "path": "/orders/{id}",
        "methods": ["GET", "POST"],
        "permissions": { "POST": ["read"] },
    })
}

async fn start() -> TestServer {
    TestServer::new(&[orders()]).await
}

/// The verify request that a proxy of this dialect sends for a client's request.
fn verify_request(dialect: &str, method: &str, target: &str, more: &str) -> String {
    let (line, fields) = match dialect {
        "/envoy" => {
            (format!("{method} /-/verify/envoy{target}"), "Host: API.example\r\n".to_owned())
        }
        "/nginx" => (
            "GET /-/verify/nginx".into(),
            format!(
                "Host: keyward\r\nX-Original-Method: {method}\r\nX-Original-URI: {target}\r\nX-Original-Host: API.example\r\n"
            ),
        ),
        other => (
            format!("GET /-/verify{other}"),
            format!(
                "Host: keyward\r\nX-Forwarded-Method: {method}\r\nX-Forwarded-Uri: {target}\r\nX-Forwarded-Host: API.example\r\n"
            ),
        ),
    };
    format!(
        "{line} HTTP/1.1\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.7\r\n{fields}{more}\r\n"
    )
}

async fn ask(
    server: &TestServer,
    dialect: &str,
    method: &str,
    target: &str,
    more: &str,
) -> TestResponse {
    send_to(server.verify, verify_request(dialect, method, target, more).as_bytes()).await
}

fn api_key(credential: &str) -> String {
    format!("API-KEY: {credential}\r\n")
}

/// The status that the client of the proxy gets.
fn client_status(dialect: &str, response: &TestResponse) -> u16 {
    match (dialect, response.status) {
        ("/nginx", 401 | 403) => response.header("x-keyward-status").unwrap().parse().unwrap(),
        ("/nginx", 200) => 200,
        ("/nginx", other) => panic!("nginx turns {other} into a 500"),
        (_, status) => status,
    }
}

#[tokio::test]
async fn allowed_request_gets_identity_fields_in_every_dialect() {
    let server = start().await;
    let forged = format!("{}X-Keyward-User: root\r\n", api_key(&server.ada_credential));
    for dialect in DIALECTS {
        let response = ask(&server, dialect, "POST", "/orders/./7?a=b", &forged).await;
        assert_eq!((response.status, response.text()), (200, ""), "{dialect}");
        let is_user = |field: &&(String, String)| field.0 == "x-keyward-user";
        let users: Vec<_> = response.headers.iter().filter(is_user).map(|field| &field.1).collect();
        assert_eq!(users, ["ada"]);
        assert_eq!(response.header("x-keyward-roles"), Some("reader"));
        assert_eq!(response.header("x-keyward-uri"), Some("/orders/7?a=b"), "{dialect}");
        assert_eq!(response.header("cache-control"), Some("no-store"));
    }
}

#[tokio::test]
async fn denials_have_their_status_in_every_dialect() {
    let server = start().await;
    let (ada, bob, unknown) = (
        api_key(&server.ada_credential),
        api_key(&server.bob_credential),
        "AUTH-METHOD: unknown\r\n".to_owned(),
    );
    for dialect in DIALECTS {
        for (status, method, target, more) in [
            (401, "GET", "/orders/7", ""),
            (401, "GET", "/orders/7", "API-KEY: !\r\n"),
            (400, "GET", "/orders/7", &unknown),
            (403, "POST", "/orders/7", &bob),
            (404, "GET", "/elsewhere", &ada),
            (405, "DELETE", "/orders/7", &ada),
            (400, "GET", "/orders/%2f", &ada),
            (400, "GET", "/orders/../../..", &ada),
            (400, "GET", "/orders/7", "API-KEY: a\r\nAPI-KEY: b\r\n"),
        ] {
            let response = ask(&server, dialect, method, target, more).await;
            // A repeated credential is a 401, because the application cannot read two values.
            let expected = if more.matches("API-KEY").count() > 1 { 401 } else { status };
            assert_eq!(
                client_status(dialect, &response),
                expected,
                "{dialect} {method} {target} {more}"
            );
            assert_eq!(
                expected == 401,
                response.header("www-authenticate").is_some(),
                "{response:?}"
            );
            assert_eq!(response.header("x-keyward-user"), None);
            if dialect == "/nginx" {
                let body: Value =
                    serde_json::from_str(response.header("x-keyward-body").unwrap()).unwrap();
                assert_eq!(body, response.json());
            }
        }
    }
}

#[tokio::test]
async fn anonymous_request_gets_empty_identity_fields() {
    let mut resource = orders();
    resource["authentication"] = json!(["anonymous"]);
    let server = TestServer::new(&[resource]).await;
    for dialect in DIALECTS {
        let response = ask(&server, dialect, "GET", "/orders/7", "").await;
        assert_eq!(response.status, 200);
        for name in ["user", "user-id", "roles", "key-id", "application"] {
            assert_eq!(response.header(&format!("x-keyward-{name}")), Some(""), "{dialect} {name}");
        }
    }
}

#[tokio::test]
async fn proxy_that_is_not_trusted_is_denied() {
    let server = start().await;
    let handlers =
        Handlers::new(server.accounts.clone(), BodyLimits { bytes: 1 << 20, read: PATIENCE });
    let trusted: [ipnet::IpNet; 2] = ["10.0.0.0/8", "::1/128"].map(|text| text.parse().unwrap());
    let others = listen_for_verify(&server.accounts, handlers.clone(), trusted).await;
    let nobody = listen_for_verify(&server.accounts, handlers, []).await;
    for address in [others, nobody] {
        for dialect in DIALECTS.into_iter().chain(["/unknown"]) {
            let credential = api_key(&server.ada_credential);
            let request = verify_request(dialect, "GET", "/orders/7", &credential);
            let response = send_to(address, request.as_bytes()).await;
            let code = &response.json()["error"];
            assert_eq!((response.status, code), (403, &json!("UNTRUSTED_PROXY")), "{dialect}");
        }
    }
}

#[tokio::test]
async fn public_listener_has_no_verify_endpoints() {
    let server = TestServer::with(&[orders()], |public| {
        public.with_trusted_proxies(["127.0.0.0/8".parse().unwrap()])
    })
    .await;
    let credential = api_key(&server.ada_credential);
    for dialect in DIALECTS {
        assert_eq!(ask(&server, dialect, "GET", "/orders/7", &credential).await.status, 200);
        let request = verify_request(dialect, "GET", "/orders/7", &credential);
        let response = server.send(request.as_bytes()).await;
        assert_eq!(response.status, 404, "{dialect}");
        let message = response.json()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("No route found for"), "an ordinary path: {message}");
        assert_eq!(response.header("x-keyward-user"), None);
    }
    let upstream = echo(Protocol::Http1).await;
    let everything = json!({
        "id": "all",
        "handler": "proxy",
        "path": "/{*rest}",
        "authentication": ["*"],
        "proxy": { "upstreams": [upstream.url()] },
    });
    let server = TestServer::new(&[everything]).await;
    let echo = server.ask("GET", "/-/verify/nginx", "", "").await.json();
    assert_eq!(echo["target"], "/-/verify/nginx", "an ordinary path of a resource");
}

#[tokio::test]
async fn networks_of_a_key_apply_to_the_client_not_to_the_proxy() {
    let server = start().await;
    let new = crate::accounts::NewKey {
        networks: vec!["203.0.113.0/24".parse().unwrap()],
        ..Default::default()
    };
    let uid = server.accounts.directory().user_by_name("ada").unwrap().uid;
    let key =
        server.accounts.as_actor(crate::model::Actor::Program).issue_key(uid, new).await.unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let credential = api_key(&STANDARD.encode(format!("ada:{}", key.text.expose())));
    for dialect in DIALECTS {
        let request = verify_request(dialect, "GET", "/orders/7", &credential);
        assert_eq!(send_to(server.verify, request.as_bytes()).await.status, 200, "{dialect}");
        for (chain, status) in [
            ("198.51.100.1", 401),
            ("203.0.113.7, 198.51.100.1", 401),
            ("198.51.100.1, 203.0.113.7", 200),
            ("203.0.113.7, 127.0.0.1", 200),
        ] {
            let request = request.replace("203.0.113.7", chain);
            let response = send_to(server.verify, request.as_bytes()).await;
            assert_eq!(client_status(dialect, &response), status, "{dialect} {chain}");
        }
        let without_client = request.replace("X-Forwarded-For: 203.0.113.7\r\n", "");
        assert_eq!(
            client_status(dialect, &send_to(server.verify, without_client.as_bytes()).await),
            400,
            "{dialect}"
        );
    }
}

/// Without the host of the original request, a rule for any host would decide about a path that a
/// rule of one host guards.
#[tokio::test]
async fn question_without_the_original_host_is_refused() {
    let open = json!({
        "id": "open",
        "handler": "decide",
        "path": "/orders/{id}",
        "authentication": ["anonymous"],
    });
    let server = TestServer::new(&[orders(), open]).await;
    for dialect in DIALECTS.into_iter().filter(|dialect| *dialect != "/envoy") {
        let request = verify_request(dialect, "GET", "/orders/7", "");
        let (before, line) = request.split_once("-Host: API.example\r\n").unwrap();
        let name = before.rsplit('\n').next().unwrap();
        let without = format!("{}{line}", before.strip_suffix(name).unwrap());
        let empty = request.replace("-Host: API.example", "-Host: ");
        let two = request.replace(
            "-Host: API.example\r\n",
            &format!("-Host: API.example\r\n{name}-Host: other\r\n"),
        );
        for (bad, message) in [
            (&without, "The proxy does not send "),
            (&empty, "The proxy does not send "),
            (&two, "came more than once"),
        ] {
            let response = send_to(server.verify, bad.as_bytes()).await;
            assert_eq!(client_status(dialect, &response), 400, "{dialect} {bad}");
            assert!(response.text().contains(message), "{dialect} {}", response.text());
        }
        let response = send_to(server.verify, request.as_bytes()).await;
        assert_eq!(client_status(dialect, &response), 401, "{dialect}");
    }
}

#[tokio::test]
async fn forwarded_names_the_client_where_the_list_is_missing() {
    let server = start().await;
    let networks = vec!["203.0.113.0/24".parse().unwrap()];
    let new = crate::accounts::NewKey { networks, ..Default::default() };
    let uid = server.accounts.directory().user_by_name("ada").unwrap().uid;
    let writer = server.accounts.as_actor(crate::model::Actor::Program);
    let key = writer.issue_key(uid, new).await.unwrap();
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let credential = api_key(&STANDARD.encode(format!("ada:{}", key.text.expose())));
    for dialect in DIALECTS {
        let request = verify_request(dialect, "GET", "/orders/7", &credential);
        for (fields, status) in [
            ("Forwarded: for=\"203.0.113.7:1\"\r\n", 200),
            ("Forwarded: for=203.0.113.7, for=198.51.100.1\r\n", 401),
            ("Forwarded: for=_hidden\r\n", 400),
            ("X-Forwarded-For: 203.0.113.7\r\nForwarded: for=203.0.113.7\r\n", 200),
            ("X-Forwarded-For: 203.0.113.7\r\nForwarded: for=198.51.100.1\r\n", 400),
            ("X-Real-IP: 203.0.113.7\r\nTrue-Client-IP: 203.0.113.7\r\n", 400),
        ] {
            let request = request.replace("X-Forwarded-For: 203.0.113.7\r\n", fields);
            let response = send_to(server.verify, request.as_bytes()).await;
            assert_eq!(client_status(dialect, &response), status, "{dialect} {fields}");
        }
    }
}

#[tokio::test]
async fn path_after_the_envoy_endpoint_leads_to_no_other_endpoint() {
    let upstream = echo(Protocol::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let open = json!({ "id": "open", "handler": "proxy", "path": "/open", "authentication": ["anonymous"], "proxy": proxy });
    let server = TestServer::new(&[open]).await;
    for target in ["/../../../open", "/%2e%2e/%2e%2e/%2e%2e/open", "/..%2f..%2f..%2fopen"] {
        let response =
            ask(&server, "/envoy", "GET", target, &api_key(&server.ada_credential)).await;
        assert_eq!(response.status, 400, "{target}: {response:?}");
    }
    assert_eq!(ask(&server, "/envoy", "GET", "/x/../open", "").await.status, 200);
    assert_eq!(upstream.connections(), 0, "a verify request is never forwarded");
    for path in ["/-/verify/other", "/-/verify/", "/x/../-/verify", "/%2d/verify"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n");
        let response = send_to(server.verify, request.as_bytes()).await;
        assert_eq!(response.status, 404, "{path}");
        assert_eq!(server.ask("GET", path, "", "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn verify_endpoints_and_proxy_give_a_request_the_same_status() {
    let upstream = echo(Protocol::Http1).await;
    let proxy = json!({ "upstreams": [upstream.url()] });
    let mut orders = orders();
    orders["handler"] = json!("proxy");
    orders["proxy"] = proxy;
    orders["formats"] = json!(["json"]);
    let server = TestServer::new(&[orders]).await;
    let paths = [
        "/orders/7",
        "//orders/7",
        "/orders//7",
        "/orders/7/",
        "/orders/",
        "/orders",
        "/orders/./7",
        "/orders/../orders/7",
        "/x/../orders/7",
        "/orders/%37",
        "/orders/%2e%2e/x",
        "/orders/%2e",
        "/orders/7%2f8",
        "/orders/7%5c",
        "/orders/7;a=b",
        "/orders/7%3b",
        "/orders/%00",
        "/orders/7%0a",
        "/orders/%",
        "/orders/%zz",
        "/orders/%2537",
        "/orders/%c3%bc",
        "/orders/%ff",
        "/orders/..",
        "/../orders/7",
        "/..",
        "/orders/7?x",
        "/orders/7?x=%2f..",
        "/ORDERS/7",
        "/orders/7.json",
        "/orders/~7",
        "/orders/a:b",
        "/orders/a@b",
        "/orders/7?_format=xml",
        "/orders/7?_format=json",
        "/-/verify",
        "/",
    ];
    let credentials = [
        api_key(&server.ada_credential),
        api_key(&server.bob_credential),
        String::new(),
        api_key("!"),
        "AUTH-METHOD: x\r\n".to_owned(),
    ];
    let (mut allowed, mut denied) = (0, 0);
    for path in paths {
        for (method, more) in
            [("GET", ""), ("POST", "Content-Type: application/json\r\n"), ("POST", "")]
        {
            for credential in &credentials {
                let more = format!("{credential}{more}");
                let served = server.ask_as("", method, path, &more, "").await;
                for dialect in DIALECTS {
                    let response = ask(&server, dialect, method, path, &more).await;
                    let verified = client_status(dialect, &response);
                    assert_eq!(verified, served.status, "{dialect} {method} {path} {more}");
                }
                match served.status {
                    200 => allowed += 1,
                    _ => denied += 1,
                }
            }
        }
    }
    assert!(allowed > 30 && denied > 200, "{allowed} {denied}");
}
