//! One client cannot switch off a script for the other clients, in each face: requests that are too
//! large are the client's fault, and a client that exceeds the budget is shut out alone.

use crate::{
    faces::fixture::{Fixture, send_through},
    harness::{Server, Site},
};

use super::*;

/// Twice the number of requests after which a script was once switched off.
const ATTEMPTS: usize = 10;

/// A hook that splits what clients send without a bound, and that spins if a client asks for it.
const NAIVE: &str = r#"
fn split_all(req) {
    req.query.split("&");
    req.path.split("/");
    for value in req.headers("X-List") { value.split(","); }
    if req.param("spin") != () { loop {} }
}
"#;

fn many(separator: &str) -> String {
    separator.repeat(2000)
}

/// Requests that are too large for `NAIVE`: the target, the value of `X-List`, and the status.
fn large_requests(path: &str) -> [(String, String, u16); 3] {
    [
        (format!("{path}?{}", many("&")), String::new(), 400),
        (format!("{path}{}", "/a".repeat(1100)), String::new(), 400),
        (path.to_owned(), many(","), 431),
    ]
}

fn start(site: Site) -> Server {
    // The test counts responses of its own address.
    site.with_env("KEYWARD_LIMITS__FAILURES_PER_ADDRESS", "0")
        .with_env("KEYWARD_SCRIPTS__OPERATIONS", "20000")
        .start()
}

#[test]
fn too_large_request_is_the_clients_fault_in_each_function() {
    let hook = |signature: &str| format!("{NAIVE} fn {signature} {{ split_all(req); }}");
    let files = [
        ("hooks.rhai", hook("on_request(req)")),
        ("resources/permitted.rhai", hook("on_permit(req, identity, resource)")),
        ("resources/authenticated.rhai", hook("on_authenticated(req, identity)")),
        ("resources/responded.rhai", hook("on_response(req, identity, response)")),
        (
            "handlers/naive.rhai",
            format!("{NAIVE} fn handle(req, identity) {{ split_all(req); 1.to_string() }}"),
        ),
    ];
    for (file, text) in files {
        let server = start(site(&[(file, &text)]));
        for id in ["permitted", "authenticated", "responded"] {
            create_resource(&server, id, &format!("/{id}/{{*rest}}"), json!({}));
        }
        if file.starts_with("handlers/") {
            create_resource(
                &server,
                "handled",
                "/handled/{*rest}",
                json!({ "handler": "script:naive" }),
            );
        }
        let id = file.trim_end_matches(".rhai").rsplit('/').next().unwrap();
        let path = match id {
            "hooks" => "/permitted/x",
            "naive" => "/handled/x",
            id => &format!("/{id}/x"),
        };
        for (target, list, expected) in large_requests(path) {
            for _ in 0..ATTEMPTS {
                let request = server.request_as_admin("GET", &target).header("X-List", &list);
                let (status, code) = status_and_code(&request.send());
                let is_right =
                    status == expected && ["INPUT_TOO_LARGE", "HEADER_TOO_LARGE"].contains(&&*code);
                assert!(is_right, "{file}: {status} {code}");
            }
        }
        let response = server.request_as_admin("GET", path).send();
        assert_eq!(response.status, 200, "{file}: {}", response.body);
        assert_eq!(problem_count(&server), 0, "{file}");
    }
}

#[test]
fn shipped_scripts_survive_two_thousand_separators() {
    let scripts = ["query_key", "hmac", "jwt", "legacy_sha256"];
    let files = scripts
        .map(|name| (format!("auth/{name}.rhai"), shipped(&format!("scripts/auth/{name}.rhai"))));
    let site = site(&files.each_ref().map(|(file, text)| (file.as_str(), text.as_str())));
    write_secret(&site, "hmac-llama", "a secret");
    write_secret(&site, "jwt", "a secret of at least thirty-two bytes");
    let server = start(site);
    let key = server.user_with_permissions("llama", &[]);
    create_resource(&server, "all", "/all/{*rest}", json!({ "buffer_body": true }));
    for name in scripts {
        let record = json!({ "id": name, "name": name, "type": name });
        let response = admin_request(&server, "POST", "/api/v1/applications").json(&record).send();
        assert_eq!(response.status, 201, "{}", response.body);
    }
    let send = |app: &str, query: &str, authorization: &str, digest: &str| {
        let mut request =
            server.request("GET", &format!("/all/x{query}")).header("AUTH-METHOD", app);
        for (name, value) in [("Authorization", authorization), ("Content-Digest", digest)] {
            if !value.is_empty() {
                request = request.header(name, value);
            }
        }
        if app == "legacy_sha256" {
            request = request.header("API-KEY", authorization);
        }
        request.header("X-Signature-Created", now().to_string()).send().status
    };
    for _ in 0..ATTEMPTS {
        for (app, query, authorization, digest) in [
            ("query_key", format!("?{}", many("&")), String::new(), String::new()),
            ("query_key", format!("?api_key={}", many("&=")), String::new(), String::new()),
            ("hmac", String::new(), format!("HMAC-SHA256 {}", many("a ")), String::new()),
            ("hmac", String::new(), format!("HMAC-SHA256 {}", many(":")), String::new()),
            (
                "hmac",
                String::new(),
                format!("HMAC-SHA256 {}:nonce-0001:x", "a".repeat(10_000)),
                String::new(),
            ),
            ("hmac", String::new(), "HMAC-SHA256 llama:nonce-0001:x".into(), many(",")),
            ("jwt", String::new(), format!("Bearer {}", many("a ")), String::new()),
            ("jwt", String::new(), format!("Bearer {}", many(".")), String::new()),
            ("legacy_sha256", String::new(), many(":"), String::new()),
        ] {
            let status = send(app, &query, &authorization, &digest);
            assert!([400, 401, 431].contains(&status), "{app}: {status}");
        }
    }
    assert_eq!(send("query_key", &format!("?api_key={}", key.text), "", ""), 200);
    assert_eq!(problem_count(&server), 0);
}

#[test]
fn tenant_paths_example_survives_many_separators() {
    let server = start(site(&[("hooks.rhai", &shipped("examples/scripts/tenant_paths.rhai"))]));
    create_resource(&server, "tenants", "/tenants/{*rest}", json!({}));
    let uid = server.add_user("llama", &[]);
    let key = server.generate_key("llama", &[]);
    set_attributes(&server, uid, json!({ "tenant": "andes" }));
    let send =
        |path: &str| server.request("GET", path).header("API-KEY", &key.credential).send().status;
    for _ in 0..ATTEMPTS {
        assert_eq!(send(&format!("/tenants/alps{}", "/a".repeat(1100))), 403);
        assert_eq!(send(&format!("/tenants/andes{}", "/a".repeat(1100))), 200);
    }
    assert_eq!(send("/tenants/andes/orders"), 200);
}

#[test]
fn too_large_requests_count_as_failures_of_their_address() {
    let text = format!("{NAIVE} fn on_request(req) {{ split_all(req); }}");
    let site = site(&[("hooks.rhai", &text)])
        .with_env("KEYWARD_LIMITS__FAILURE_EXEMPT", "192.0.2.0/24")
        .with_env("KEYWARD_LIMITS__FAILURES_PER_ADDRESS", "3");
    let server = site.start();
    create_resource(&server, "all", "/all", json!({}));
    let target = format!("/all?{}", many("&"));
    let statuses: Vec<u16> =
        (0..5).map(|_| server.request_as_admin("GET", &target).send().status).collect();
    assert_eq!(statuses, [400, 400, 400, 429, 429]);
    assert_eq!(server.request_as_admin("GET", "/all").send().status, 200, "a right key passes");
}

#[test]
fn client_that_exceeds_the_budget_is_shut_out_alone() {
    let text = format!("{NAIVE} fn on_request(req) {{ split_all(req); }}");
    let server = start(site(&[("hooks.rhai", &text)]));
    create_resource(&server, "all", "/all", json!({}));
    // The client's address comes from a proxy in front.
    let send = |client: &str, target: &str| {
        let key = server.admin_credential();
        let request = server.verify_request("GET", "/-/verify").header("API-KEY", &key);
        let request = request.header("X-Forwarded-Method", "GET").header("X-Forwarded-Host", "x");
        let request = request.header("X-Forwarded-Uri", target).header("X-Forwarded-For", client);
        let response = request.send();
        if response.status == 200 { (200, String::new()) } else { status_and_code(&response) }
    };
    for _ in 0..5 {
        assert_eq!(send("192.0.2.1", "/all?spin=1"), error(503, "SCRIPT_ERROR"));
    }
    for _ in 0..ATTEMPTS {
        assert_eq!(send("192.0.2.1", "/all?spin=1"), error(429, "TOO_EXPENSIVE"));
        assert_eq!(send("192.0.2.1", "/all"), error(429, "TOO_EXPENSIVE"));
        assert_eq!(send("192.0.2.2", "/all"), (200, String::new()));
    }
    assert_eq!(problem_count(&server), 0);
    // Five clients together switch the script off for everybody.
    for client in 3..7 {
        for _ in 0..5 {
            send(&format!("192.0.2.{client}"), "/all?spin=1");
        }
    }
    assert_eq!(send("192.0.2.2", "/all"), error(503, "SCRIPT_ERROR"));
    assert_eq!(problem_count(&server), 1);
    server.wait_for_log("is switched off for 60 s");
}

#[test]
fn too_large_request_is_refused_behind_another_proxy() {
    let text = format!("{NAIVE} fn on_request(req) {{ split_all(req); }}");
    let server = start(site(&[("hooks.rhai", &text)]));
    create_resource(&server, "all", "/all/{*rest}", json!({}));
    let verify = |target: &str, list: &str| {
        let key = server.admin_credential();
        let request = server.verify_request("GET", "/-/verify").header("API-KEY", &key);
        let request = request
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Host", "x")
            .header("X-List", list);
        request.header("X-Forwarded-Uri", target).header("X-Forwarded-For", "192.0.2.1").send()
    };
    for (target, list, _) in large_requests("/all/x") {
        for _ in 0..ATTEMPTS {
            let status = verify(&target, &list).status;
            assert!([400, 401, 403, 431].contains(&status), "{status}");
        }
    }
    assert_eq!(verify("/all/x", "").status, 200);
}

#[tokio::test]
async fn too_large_request_is_refused_by_the_layer() {
    let fixture =
        Fixture::with_hooks(&format!("{NAIVE} fn on_request(req) {{ split_all(req); }}")).await;
    let layer = keyward::GuardLayer::new(fixture.gate.clone(), keyward::ClientSource::unknown())
        .requires_user();
    for (target, list, expected) in large_requests("/all/x") {
        for _ in 0..ATTEMPTS {
            let request = http::Request::get(&target).header("api-key", &fixture.ada);
            let request = request.header("x-list", &list).body(http_body_util::Full::default());
            let (response, received) = send_through(&layer, request.unwrap()).await;
            assert_eq!(response.status(), expected);
            assert!(received.lock().unwrap().is_empty());
        }
    }
    let request = http::Request::get("/all").header("api-key", &fixture.ada);
    let request = request.body(http_body_util::Full::default()).unwrap();
    assert_eq!(send_through(&layer, request).await.0.status(), 200);
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
