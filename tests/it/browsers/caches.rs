//! A cache in front of Keyward never serves the response for one client to another client.

use std::{fs, net::TcpListener, process::Command, thread, time::Duration};

use bytes::Bytes;
use http::{Method, Request as HttpRequest};
use http_body_util::Full;
use keyward::{ClientSource, GuardLayer, accounts::NewKey};
use serde_json::json;
use tempfile::TempDir;

use super::{Fixture, Running, find_program};
use crate::{
    faces::{
        corpus::TestRequest,
        fixture::{self, send_through, user},
    },
    harness::{Request, Response, Site, TIMEOUT, exchange},
};

const OPEN: &str = "anonymous";

/// nginx with a cache that also stores responses without a word about caches.
struct Cache {
    address: std::net::SocketAddr,
    _nginx: Running,
    _folder: TempDir,
}

impl Cache {
    fn start(program: &std::path::Path, server: std::net::SocketAddr) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;
                uwsgi_temp_path t4; scgi_temp_path t5;
                proxy_cache_path cache keys_zone=all:1m;
                server {{
                    listen {address};
                    location / {{
                        proxy_pass http://{server};
                        proxy_http_version 1.1;
                        proxy_set_header Connection '';
                        proxy_cache all;
                        proxy_cache_valid any 10m;
                        add_header X-Cache $upstream_cache_status always;
                    }}
                }}
            }}"
        );
        fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new(program);
        command.args(["-p", ".", "-c", "nginx.conf"]).current_dir(folder.path());
        let mut nginx = Running::start(command);
        let deadline = std::time::Instant::now() + TIMEOUT;
        while std::net::TcpStream::connect(address).is_err() {
            if nginx.has_ended() || std::time::Instant::now() > deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(10));
        }
        Some(Self { address, _nginx: nginx, _folder: folder })
    }

    /// Sends a request through the cache.
    fn get(&self, path: &str, credential: Option<&str>) -> Response {
        let request = Request::new(self.address, "GET", path);
        match credential {
            Some(credential) => request.header("API-KEY", credential).send(),
            None => request.send(),
        }
    }
}

#[test]
fn shared_cache_never_serves_a_response_to_another_client() {
    let Some(nginx) = find_program("nginx") else { return };
    let site = Site::new();
    let folder = site.path().join("scripts/handlers");
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("greet.rhai"),
        "fn handle(req, identity) { respond(200, #{ hello: identity.name }) }",
    )
    .unwrap();
    let fixture = Fixture::with(site);
    fixture.forward("keys", "/keys/{case}", json!({}));
    fixture.forward("both", "/both/{case}", json!({ "authentication": ["*", OPEN] }));
    fixture.forward("open", "/open/{case}", json!({ "authentication": [OPEN] }));
    fixture.create("text", "/text", json!({ "handler": "respond", "respond": { "body": "1" } }));
    fixture.create("script", "/script", json!({ "handler": "script:greet" }));
    // Another program may take the free port before nginx.
    let cache = (0..5).find_map(|_| Cache::start(&nginx, fixture.server.public)).unwrap();
    let (ada, bob) = (Some(&*fixture.ada.credential), Some(&*fixture.bob.credential));

    for case in ["plain", "public", "s-maxage", "max-age", "expires", "vary", "star"] {
        let path = format!("/keys/{case}");
        for (credential, status, body) in
            [(ada, 200, "ada"), (bob, 200, "bob"), (ada, 200, "ada"), (None, 401, "")]
        {
            let response = cache.get(&path, credential);
            assert_eq!(response.status, status, "{path} {response:?}");
            assert!(status != 200 || response.body == body, "{path} {response:?}");
        }
        let path = format!("/both/{case}");
        for (credential, body) in
            [(None, "nobody"), (ada, "ada"), (None, "nobody"), (bob, "bob"), (ada, "ada")]
        {
            assert_eq!(cache.get(&path, credential).body, body, "{path}");
        }
        let wrong = cache.get(&path, Some("wrong"));
        assert_eq!(wrong.status, 401, "{path}");
        assert_eq!(cache.get(&path, None).body, "nobody", "{path}");
    }
    for path in ["/text", "/script"] {
        assert_eq!(cache.get(path, ada).status, 200);
        assert_eq!(cache.get(path, None).status, 401, "{path}");
    }
    assert_eq!(cache.get("/script", bob).body, r#"{"hello":"bob"}"#);

    // A cache is still of use.
    let hit = |path: &str, credential| {
        cache.get(path, credential);
        cache.get(path, credential).header("x-cache").unwrap().to_owned()
    };
    assert_eq!(hit("/open/plain", None), "HIT");
    assert_eq!(hit("/both/plain", None), "HIT");
    assert_eq!(hit("/keys/public", ada), "HIT");
    assert_ne!(hit("/keys/plain", ada), "HIT");
}

/// `Vary` and `Cache-Control` of a response. No response has two lines of the same field.
fn cache_fields(response: &Response) -> (Option<&str>, Option<&str>) {
    for name in ["vary", "cache-control"] {
        let lines = response.headers.iter().filter(|(known, _)| known == name);
        assert!(lines.count() < 2, "{response:?}");
    }
    (response.header("vary"), response.header("cache-control"))
}

#[test]
fn response_to_an_authenticated_request_says_on_what_it_depends() {
    let fixture = Fixture::new();
    let server = &fixture.server;
    server.site.json(&["app", "add", "partners", "--type", "bearer"]);
    fixture.forward("keys", "/keys/{case}", json!({ "authentication": ["default"] }));
    fixture.forward("all", "/all/{case}", json!({}));
    fixture.forward("both", "/both/{case}", json!({ "authentication": ["partners", OPEN] }));
    fixture.forward("open", "/open/{case}", json!({ "authentication": [OPEN] }));
    let fixed = json!({ "handler": "respond", "respond": { "status": 404, "body": "1" } });
    fixture.create("text", "/text", fixed);
    let (default, all) =
        (Some("AUTH-METHOD, API-KEY"), Some("AUTH-METHOD, API-KEY, Authorization"));
    let private = Some("private");
    for (method, path, vary, cache_control) in [
        ("GET", "/keys/plain", default, private),
        ("HEAD", "/keys/plain", default, private),
        ("POST", "/keys/plain", default, private),
        ("GET", "/all/plain", all, private),
        ("GET", "/text", all, private),
        ("HEAD", "/text", all, private),
        ("GET", "/keys/partial", default, private),
        ("GET", "/keys/not-modified", default, private),
        ("GET", "/keys/stream", default, private),
        ("GET", "/keys/expires", default, private),
        ("GET", "/keys/max-age", default, Some("max-age=600, private")),
        ("GET", "/keys/public", default, Some("public, max-age=600")),
        ("GET", "/keys/s-maxage", default, Some("s-maxage=600")),
        ("GET", "/keys/no-store", default, Some("no-store")),
        ("GET", "/keys/vary", Some("Accept, api-key, AUTH-METHOD"), private),
        ("GET", "/keys/star", Some("*"), private),
    ] {
        let response = fixture.ada(method, path).send();
        assert_eq!(cache_fields(&response), (vary, cache_control), "{method} {path}");
    }
    // An anonymous response depends on the credential if the resource accepts credentials too.
    let depends = Some("AUTH-METHOD, Authorization, API-KEY");
    for (path, vary, cache_control) in [
        ("/both/plain", depends, None),
        ("/both/max-age", depends, Some("max-age=600")),
        ("/open/plain", None, None),
        ("/open/max-age", None, Some("max-age=600")),
        ("/open/vary", Some("Accept, api-key"), None),
    ] {
        let response = fixture.get(path).send();
        assert_eq!(cache_fields(&response), (vary, cache_control), "{path}");
    }
    // The user resource.
    let user = server.request_as_admin("GET", "/user/1").send();
    assert_eq!(cache_fields(&user), (all, Some("no-cache, private")));
    let user = server.request_as_admin("HEAD", "/user/1").send();
    assert_eq!(cache_fields(&user), (all, Some("no-cache, private")));
    // A 101 is not a response that anybody could store.
    let upgrade = format!(
        "GET /keys/switch HTTP/1.1\r\nHost: a\r\nAPI-KEY: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        fixture.ada.credential
    );
    let response = exchange(server.public, upgrade.as_bytes());
    assert_eq!((response.status, cache_fields(&response)), (101, (None, None)));
}

#[test]
fn key_that_is_bound_to_networks_opens_no_shared_response() {
    let fixture = Fixture::new();
    fixture.forward("keys", "/keys/{case}", json!({}));
    let key = fixture.server.generate_key("ada", &["--network", "127.0.0.0/8"]);
    for (case, expected) in
        [("public", "max-age=600, private"), ("s-maxage", "private"), ("plain", "private")]
    {
        let path = format!("/keys/{case}");
        let response = fixture.get(&path).header("API-KEY", &key.credential).send();
        assert_eq!(response.header("cache-control"), Some(expected), "{case}");
        assert_eq!(response.header("x-accel-expires"), None, "{case}");
    }
}

#[test]
fn denials_are_not_stored() {
    let fixture = Fixture::new();
    fixture.forward("keys", "/keys/{case}", json!({ "permissions": { "POST": ["write"] } }));
    let server = &fixture.server;
    for response in [
        fixture.get("/keys/plain").send(),
        fixture.get("/keys/plain").header("API-KEY", "!").send(),
        fixture.ada("POST", "/keys/plain").send(),
        fixture.ada("GET", "/nowhere").send(),
        fixture.ada("DELETE", "/keys/plain").send(),
        fixture.ada("GET", "/keys/%2f").send(),
        server.request_as_admin("GET", "/user/99").send(),
        server.admin_api("GET", "/api/v1/users/99").send(),
        server.verify_request("GET", "/-/verify").send(),
        exchange(server.public, b"GET / HTTP/1.1\r\n\r\n"),
        exchange(server.public, b"broken\r\n\r\n"),
    ] {
        assert!(response.status >= 400);
        assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
    }
}

#[test]
fn fields_that_scripts_read_are_in_vary() {
    let site = Site::new();
    fs::create_dir_all(site.path().join("scripts/handlers")).unwrap();
    let hooks = r#"
        fn on_request(req) {
            if req.path.starts_with("/open") && req.header("X-Tenant") != "llama" {
                throw #{ status: 403, error: "NO_TENANT", description: "No tenant.", headers: #{ "Cache-Control": "max-age=60" } };
            }
        }
        fn on_response(req, identity, response) {
            if req.headers("X-Wish").len() == 1 { response.set_header("Vary", "X-Other"); }
        }
    "#;
    fs::write(site.path().join("scripts/hooks.rhai"), hooks).unwrap();
    let handler = r#"fn handle(req, identity) { respond(200, #{ language: req.header("Accept-Language") }) }"#;
    fs::write(site.path().join("scripts/handlers/greet.rhai"), handler).unwrap();
    let fixture = Fixture::with(site);
    fixture.forward("open", "/open/{case}", json!({ "authentication": [OPEN] }));
    fixture.forward("keys", "/keys/{case}", json!({ "authentication": ["default"] }));
    let handler = json!({ "handler": "script:greet", "authentication": [OPEN] });
    fixture.create("script", "/script", handler);

    let open = fixture.get("/open/plain").header("X-Tenant", "llama").send();
    assert_eq!((open.status, cache_fields(&open)), (200, (Some("x-tenant, x-wish"), None)));
    let script = fixture.get("/script").send();
    assert_eq!(cache_fields(&script), (Some("accept-language, x-wish"), None));
    // A hook can replace `Vary`, but not remove the fields that decided.
    let keys = fixture.ada("GET", "/keys/plain").header("X-Wish", "1").send();
    let vary = Some("X-Other, AUTH-METHOD, API-KEY, x-wish");
    assert_eq!(cache_fields(&keys), (vary, Some("private")));
    // A denial that a script makes cacheable depends on the same fields.
    let denial = fixture.get("/open/plain").send();
    assert_eq!(denial.status, 403);
    assert_eq!(cache_fields(&denial), (Some("AUTH-METHOD, API-KEY, x-tenant"), Some("max-age=60")));
}

#[tokio::test]
async fn responses_behind_the_layer_have_the_same_fields() {
    let fixture = fixture::Fixture::new().await;
    let network = NewKey { networks: vec!["0.0.0.0/0".parse().unwrap()], ..NewKey::default() };
    let bound = user(&fixture.accounts, "carl", &[], network).await;
    let resources = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let users = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let anyone = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).admits_anyone();
    for (layer, path, credential, private) in [
        (&resources, "/orders/7", &*fixture.ada, true),
        (&resources, "/orders/7", &*bound, true),
        (&resources, "/news", &*fixture.ada, true),
        (&resources, "/news", "", false),
        (&users, "/orders/7", &*fixture.ada, true),
        (&anyone, "/orders/7", &*fixture.ada, true),
        (&anyone, "/orders/7", "", false),
    ] {
        let fields: &[(&str, &str)] =
            if credential.is_empty() { &[] } else { &[("api-key", credential)] };
        let request: HttpRequest<Full<Bytes>> =
            TestRequest::new(Method::GET, path, fields).request();
        let (response, _) = send_through(layer, request).await;
        let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(response.status(), 200);
        assert_eq!(text("vary"), Some("AUTH-METHOD, API-KEY"), "{layer:?} {path}");
        assert_eq!(text("cache-control"), private.then_some("private"), "{layer:?} {path}");
    }
}
