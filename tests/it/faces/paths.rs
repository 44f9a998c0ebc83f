//! Prefixes and their roots, and resources that keep ambiguous characters, in every face.

use http::Method;
use keyward::{
    ClientSource, GuardLayer,
    handlers::{BodyLimits, Handlers},
    model::Resource,
    server::Public,
};
use serde_json::{Value, json};

use super::{
    DIALECTS,
    corpus::TestRequest,
    fixture::{Fixture, TIMEOUT},
    listen,
    records::{echo, merged, put, send, send_to_layer, served},
};

const HOST: (&str, &str) = ("host", "api.example");

/// Sends requests to every face, and compares the status. `key` says whether the requests have one.
async fn every_face_gives(records: &[Value], key: bool, cases: &[(&'static str, u16)]) {
    let fixture = Fixture::new().await;
    let (address, verify) = listen(&fixture).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).rewriting_paths();
    let upstream = echo().await;
    let mut fields = vec![HOST];
    if key {
        fields.push(("api-key", fixture.ada.as_str()));
    }
    for handler in served(&upstream) {
        for record in records {
            put(&fixture, merged(record, &handler)).await;
        }
        for (path, status) in cases {
            let response = send(address, "GET", path, &fields).await;
            assert_eq!(response.status(), *status, "{handler} {path}");
            let (response, seen) = send_to_layer(&layer, "GET", path, &fields).await;
            assert_eq!(response.status(), *status, "layer {path}");
            assert_eq!(seen.is_some(), *status == 200, "layer {path}");
        }
    }
    for record in records {
        put(&fixture, merged(record, &json!({ "handler": "decide" }))).await;
    }
    for dialect in &DIALECTS {
        for (path, status) in cases {
            let request = TestRequest::new(Method::GET, path, &fields);
            let (found, code) = dialect.verdict(&request, "127.0.0.1", verify).await;
            assert_eq!(found, *status, "{} {path} {code}", dialect.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prefix_guards_its_root_in_every_face() {
    let records = [
        json!({ "id": "site", "path": "/site/{*rest}", "authentication": ["anonymous"] }),
        json!({ "id": "admin", "path": "/site/admin/{*rest}" }),
    ];
    let cases = [
        ("/site/admin/users", 401),
        ("/site/admin/", 401),
        ("/site/admin", 401),
        ("/site/admin//", 401),
        ("/site/admin/.", 401),
        ("/site/admin/%2e", 401),
        ("/site/x/../admin", 401),
        ("//site/%61dmin", 401),
        ("/site/", 200),
        ("/site", 200),
        ("/site/administrator", 200),
        ("/sit", 401),
        ("/", 401),
    ];
    every_face_gives(&records, false, &cases).await;
    let everything = [json!({ "id": "all", "path": "/{*rest}" })];
    every_face_gives(&everything, true, &[("/", 200), ("/x", 200), ("/x/", 200), ("//", 200)])
        .await;
    let with_exact = [
        json!({ "id": "all", "path": "/a/{*rest}" }),
        json!({ "id": "exact", "path": "/a", "authentication": ["anonymous"] }),
    ];
    every_face_gives(&with_exact, false, &[("/a", 200), ("/a/", 401), ("/a/b", 401)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_characters_pass_only_where_the_resource_keeps_them() {
    let keep = json!({ "encoded_slashes": "keep", "semicolons": "keep" });
    let records = [
        json!({ "id": "plain", "path": "/plain/{*rest}" }),
        merged(&json!({ "id": "kept", "path": "/kept/{*rest}" }), &keep),
        json!({ "id": "slash", "path": "/slash/{id}", "encoded_slashes": "keep" }),
        json!({ "id": "semicolon", "path": "/semicolon/{id}", "semicolons": "keep" }),
    ];
    let cases = [
        ("/kept/group%2Fproject", 200),
        ("/kept/group%2fproject/x", 200),
        ("/kept/a;b=c", 200),
        ("/kept/a%3bb", 200),
        ("/slash/a%2fb", 200),
        ("/slash/a;b", 400),
        ("/semicolon/a;b", 200),
        ("/semicolon/a%2fb", 400),
        ("/plain/a%2fb", 400),
        ("/plain/a;b", 400),
        ("/nowhere/a%2fb", 400),
        ("/kept/a%5cb", 400),
        ("/kept/a%252fb", 400),
        ("/kept/..%2fplain/x", 400),
        ("/kept/%2e%2e;/plain/x", 400),
        ("/kept/a%2f..", 400),
    ];
    every_face_gives(&records, true, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_reading_of_a_path_is_not_guarded_more_strictly() {
    let keep = json!({ "encoded_slashes": "keep", "semicolons": "keep" });
    let open = json!({ "id": "open", "path": "/{*rest}", "authentication": ["anonymous"] });
    let records = [
        merged(&open, &keep),
        json!({ "id": "admin", "path": "/admin/{*rest}" }),
        json!({ "id": "one", "path": "/a/secret" }),
    ];
    let cases = [
        ("/x%2fy", 200),
        ("/x;y/z", 200),
        ("/admin;x/users", 400),
        ("/admin%2fusers", 400),
        ("/admin%3bx", 400),
        ("/;x/admin", 400),
        ("/a%2fsecret;x", 400),
        ("/a%2fsecret", 400),
        ("/a%2fopen", 200),
        ("/admin/a%2fb", 400),
    ];
    every_face_gives(&records, false, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_characters_have_one_spelling_upstream_and_in_scripts() {
    let hooks =
        r#"fn on_request(req) { if req.path == "/k/a%2Fb;c" { deny(403, "SEEN", "Seen."); } }"#;
    let fixture = Fixture::with_hooks(hooks).await;
    let (address, verify) = listen(&fixture).await;
    let upstream = echo().await;
    let keep = json!({
        "id": "k", "path": "/k/{*rest}", "encoded_slashes": "keep", "semicolons": "keep",
    });
    let fields = [HOST, ("api-key", fixture.ada.as_str())];
    let [_, proxy] = served(&upstream);
    put(&fixture, merged(&keep, &proxy)).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).rewriting_paths();
    for (path, normal) in [
        ("/k/group%2fproject", "/k/group%2Fproject"),
        ("/x/../k//%61%2fb", "/k/a%2Fb"),
        ("/k/a;b%3bc", "/k/a;b%3Bc"),
    ] {
        let response = send(address, "GET", path, &fields).await;
        let seen: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(seen["target"], normal, "{path}");
        let (_, seen) = send_to_layer(&layer, "GET", path, &fields).await;
        assert_eq!(seen.map(|(target, _)| target).as_deref(), Some(normal), "{path}");
        let asked = [
            ("host", "keyward"),
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", path),
            ("x-forwarded-host", "api.example"),
            ("x-forwarded-for", "127.0.0.1"),
            ("api-key", fixture.ada.as_str()),
        ];
        let response = send(verify, "GET", "/-/verify", &asked).await;
        assert_eq!(response.headers()["x-keyward-uri"], normal, "{path}");
    }
    for path in ["/k/a%2fb;c", "/k/./a%2Fb;c", "//k/%61%2fb;c"] {
        assert_eq!(send(address, "GET", path, &fields).await.status(), 403, "{path}");
    }
}

#[tokio::test]
async fn program_can_ask_which_guards_a_resource_opens() {
    let fixture = Fixture::new().await;
    let guard = json!({ "id": "guard", "path": "/g/{*rest}", "handler": "decide" });
    put(&fixture, guard).await;
    let open = |path: &str| -> Resource {
        let record = json!({
            "id": "open", "path": path, "handler": "decide", "enabled": true,
            "granularity": "resource", "methods": ["GET"], "formats": ["any"],
            "authentication": ["anonymous"],
        });
        serde_json::from_value(record).unwrap()
    };
    let opened = fixture.accounts.opened_guards(None, Some(&open("/g/x")));
    assert_eq!(opened.len(), 1);
    assert_eq!((opened[0].guard.as_str(), opened[0].path.as_str()), ("guard", "/g/x"));
    assert!(fixture.accounts.opened_guards(None, Some(&open("/h/x"))).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_check_needs_no_host_and_tells_that_the_server_stops() {
    let fixture = Fixture::new().await;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let limits = BodyLimits { bytes: 1 << 20, read: TIMEOUT };
    let handlers = Handlers::new(fixture.accounts.clone(), limits);
    let public = Public::new(fixture.gate.clone(), handlers, None);
    let address = super::listen_with(public.with_health_path("/healthz", stopping)).await;
    let probe = async |text: &str| {
        let response = super::corpus::exchange(address, text).await;
        (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
    };
    let ok = (200, "ok\n".to_owned());
    assert_eq!(probe("GET /healthz HTTP/1.0\r\n\r\n").await, ok);
    assert_eq!(
        probe("GET /healthz?x HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n").await,
        ok
    );
    assert_eq!(probe("HEAD /healthz HTTP/1.0\r\n\r\n").await, (200, String::new()));
    assert_eq!(probe("POST /healthz HTTP/1.0\r\nhost: a\r\n\r\n").await.0, 401);
    assert_eq!(probe("GET /healthz/x HTTP/1.0\r\nhost: a\r\n\r\n").await.0, 401);
    assert_eq!(probe("GET /other HTTP/1.0\r\n\r\n").await.0, 400);
    stop.send_replace(true);
    assert_eq!(probe("GET /healthz HTTP/1.0\r\n\r\n").await, (503, "stopping\n".to_owned()));
    // Without the setting, the path is a path like any other.
    let (plain, _) = listen(&fixture).await;
    let response = super::corpus::exchange(plain, "GET /healthz HTTP/1.0\r\nhost: a\r\n\r\n").await;
    assert_eq!(response.status(), 401);
}
