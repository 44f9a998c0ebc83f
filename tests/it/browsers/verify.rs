//! CORS and the fields for caches at the verify endpoints: the proxy learns how to respond to the
//! client.

use serde_json::json;

use super::{Fixture, cors_fields};
use crate::harness::{Request, Response};

const APP: &str = "https://app.example";
const DIALECTS: [&str; 6] = ["", "/nginx", "/caddy", "/traefik", "/envoy", "/haproxy"];
const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    let cors = json!({ "origins": [APP], "credentials": true, "expose": ["ETag"] });
    let decide =
        |cors| json!({ "handler": "decide", "authentication": ["*", "anonymous"], "cors": cors });
    fixture.create("answered", "/answered", decide(cors));
    fixture.create("passed", "/passed", decide(json!({ "origins": [APP], "preflight": "pass" })));
    fixture.create("keys", "/keys", json!({ "handler": "decide" }));
    fixture.create(
        "open",
        "/open",
        json!({ "handler": "decide", "authentication": ["anonymous"] }),
    );
    fixture
}

/// The request of a proxy that describes a request of its client.
fn ask(fixture: &Fixture, dialect: &str, method: &str, path: &str) -> Request {
    let server = &fixture.server;
    let request = match dialect {
        "/envoy" => server.verify_request(method, &format!("/-/verify/envoy{path}")),
        "/nginx" => {
            let request =
                server.verify_request("GET", "/-/verify/nginx").header("X-Original-Method", method);
            request.header("X-Original-URI", path).header("X-Original-Host", "a")
        }
        other => {
            let request = server.verify_request("GET", &format!("/-/verify{other}"));
            let request = request.header("X-Forwarded-Method", method);
            request.header("X-Forwarded-Uri", path).header("X-Forwarded-Host", "a")
        }
    };
    request.header("X-Forwarded-For", "203.0.113.7")
}

fn preflight(fixture: &Fixture, dialect: &str, origin: &str, path: &str) -> Response {
    let request = ask(fixture, dialect, "OPTIONS", path).header("Origin", origin);
    request.header("Access-Control-Request-Method", "POST").send()
}

#[test]
fn answered_preflight_ends_the_request_in_every_dialect() {
    let fixture = fixture();
    for dialect in DIALECTS {
        let response = preflight(&fixture, dialect, APP, "/answered");
        // Most proxies let a request pass for which they get a 2xx.
        let status = if dialect == "/envoy" { (204, None) } else { (403, Some("204")) };
        let found = (response.status, response.header("x-keyward-status"));
        assert_eq!(found, status, "{dialect} {response:?}");
        assert_eq!(response.body, "");
        assert_eq!(response.header("access-control-allow-origin"), Some(APP));
        assert_eq!(response.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(response.header("vary"), Some(PREFLIGHT_VARY));
        assert_eq!(response.header("x-keyward-user"), None);

        let response = preflight(&fixture, dialect, "https://evil.example", "/answered");
        assert_eq!((response.status, cors_fields(&response)), (403, vec![]), "{dialect}");
        assert_eq!(response.header("vary"), Some(PREFLIGHT_VARY));
        let nginx_status = response.header("x-keyward-status");
        assert_eq!(nginx_status, (dialect == "/nginx").then_some("403"));
        // A resource without CORS settings.
        assert_eq!(preflight(&fixture, dialect, APP, "/keys").status, 401, "{dialect}");
    }
}

#[test]
fn passed_preflight_has_no_identity_in_any_dialect() {
    let fixture = fixture();
    for dialect in DIALECTS {
        let request = ask(&fixture, dialect, "OPTIONS", "/passed").header("Origin", APP);
        let request = request.header("Access-Control-Request-Method", "POST");
        let response = request.header("API-KEY", &fixture.ada.credential).send();
        assert_eq!((response.status, cors_fields(&response)), (200, vec![]), "{dialect}");
        for name in ["user", "user-id", "roles", "key-id", "application", "cache-control"] {
            let name = format!("x-keyward-{name}");
            assert_eq!(response.header(&name), Some(""), "{dialect} {name}");
        }
        assert_eq!(response.header("x-keyward-uri"), Some("/passed"));
        assert_eq!(response.header("vary"), Some(PREFLIGHT_VARY));
        // Without the two fields of a preflight, the request is anonymous or denied as before.
        let options = ask(&fixture, dialect, "OPTIONS", "/passed").send();
        assert_eq!(options.header("x-keyward-uri"), None);
        assert_ne!(options.status, 200, "{dialect}");
    }
}

#[test]
fn proxy_learns_the_cors_fields_of_an_allowed_request_and_of_a_denial() {
    let fixture = fixture();
    for dialect in DIALECTS {
        let request = |path: &str| ask(&fixture, dialect, "GET", path).header("Origin", APP);
        let allowed = request("/answered").header("API-KEY", &fixture.ada.credential).send();
        assert_eq!(allowed.status, 200);
        let denied = request("/answered").header("API-KEY", "!").send();
        for response in [&allowed, &denied] {
            assert_eq!(response.header("access-control-allow-origin"), Some(APP), "{dialect}");
            assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
        }
        assert_eq!(allowed.header("access-control-expose-headers"), Some("ETag"));
        let exposed = denied.header("access-control-expose-headers").unwrap();
        assert!(exposed.starts_with("ETag, WWW-Authenticate, "), "{exposed}");
        assert_eq!(denied.header("vary"), Some("Origin"));
        assert_eq!(allowed.header("vary"), Some("AUTH-METHOD, API-KEY, Origin"));
    }
}

#[test]
fn proxy_learns_how_caches_may_store_the_response_of_the_application() {
    let fixture = fixture();
    let ada = fixture.ada.credential.as_str();
    for dialect in DIALECTS {
        for (path, credential, vary, cache_control) in [
            ("/keys", Some(ada), Some("AUTH-METHOD, API-KEY"), "private"),
            ("/answered", Some(ada), Some("AUTH-METHOD, API-KEY, Origin"), "private"),
            ("/answered", None, Some("AUTH-METHOD, API-KEY, Origin"), ""),
            ("/open", None, None, ""),
        ] {
            let mut request = ask(&fixture, dialect, "GET", path);
            if let Some(credential) = credential {
                request = request.header("API-KEY", credential);
            }
            let response = request.send();
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(response.header("vary"), vary, "{dialect} {path}");
            assert_eq!(response.header("x-keyward-cache-control"), Some(cache_control));
            // The decision itself must never be stored.
            assert_eq!(response.header("cache-control"), Some("no-store"));
        }
    }
}
