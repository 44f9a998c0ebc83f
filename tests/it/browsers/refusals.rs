//! A page can read each refusal of a resource with CORS settings.

use std::{fs, thread, time::Duration};

use serde_json::json;

use super::{Fixture, cors_fields};
use crate::harness::{Request, Site};

const APP: &str = "https://app.example";
const EXPOSED: &str =
    "X-Total, WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy, X-Keyward-Hint";

#[test]
fn page_can_read_every_refusal_of_the_resource() {
    let site = Site::new()
        .with_env("KEYWARD_LIMITS__BODY_BYTES", "1000")
        .with_env("KEYWARD_SCRIPTS__CALL_MILLISECONDS", "5000");
    fs::create_dir_all(site.path().join("scripts/handlers")).unwrap();
    let hooks = r#"
        fn on_permit(req, identity, resource) {
            if req.path == "/scripted/broken" { throw "broken"; }
            if req.path == "/scripted/refused" || req.path == "/scripted/thrown" { return false; }
        }
        fn on_response(req, identity, response) {
            if req.path == "/scripted/withheld" { deny(451, "WITHHELD", "Withheld."); }
            if req.path == "/scripted/changed" { response.set_header("Access-Control-Allow-Origin", "https://changed.example"); }
        }
        fn on_denied(req, denial) {
            if req.path == "/scripted/thrown" { deny(418, "THROWN", "Thrown."); }
            if req.path == "/scripted/refused" { denial.set_header("Access-Control-Expose-Headers", "X-Changed"); }
        }
    "#;
    fs::write(site.path().join("scripts/hooks.rhai"), hooks).unwrap();
    let fixture = Fixture::with(site);
    let cors = json!({ "origins": [APP], "expose": ["X-Total"], "credentials": true });
    let resource = |changes: serde_json::Value| {
        let mut record = json!({ "handler": "respond", "cors": cors });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        record
    };
    let guarded = json!({ "permissions": { "POST": ["write"] }, "formats": ["json"], "methods": ["GET", "POST"] });
    fixture.create("guarded", "/guarded", resource(guarded));
    fixture.create("buffered", "/buffered", resource(json!({ "buffer_body": true })));
    fixture.create("limited", "/limited", resource(json!({ "rate_limit": "1/1h" })));
    fixture.create("scripted", "/scripted/{case}", resource(json!({})));
    fixture.create("elsewhere", "/elsewhere", resource(json!({ "handler": "decide" })));
    let silent = super::Application::with(|_| {
        thread::sleep(Duration::from_secs(5));
        String::new()
    });
    let upstream = |address: &str| json!({ "upstreams": [format!("http://{address}")], "response_seconds": 1 });
    let proxied =
        |address: &str| resource(json!({ "handler": "proxy", "proxy": upstream(address) }));
    fixture.create("silent", "/silent", proxied(&silent.address.to_string()));
    fixture.create("closed", "/closed", proxied("127.0.0.1:1"));
    fixture.server.patch_resource(json!({ "cors": cors }));
    assert_eq!(fixture.ada("GET", "/limited").send().status, 200);

    let ada = |method: &str, path: &str| fixture.ada(method, path);
    let json = |request: Request| request.header("Content-Type", "application/json");
    for (request, status) in [
        (fixture.get("/guarded"), 401),
        (fixture.get("/guarded").header("API-KEY", "!"), 401),
        (fixture.get("/guarded").header("AUTH-METHOD", "unknown"), 400),
        (json(ada("POST", "/guarded")), 403),
        (ada("DELETE", "/guarded"), 405),
        (ada("POST", "/guarded"), 415),
        (ada("GET", "/guarded?_format=xml"), 406),
        (ada("POST", "/buffered").body("a".repeat(1001)), 413),
        (ada("GET", "/limited"), 429),
        (ada("GET", "/scripted/broken"), 503),
        (ada("GET", "/scripted/withheld"), 451),
        (ada("GET", "/scripted/thrown"), 418),
        (ada("GET", "/elsewhere"), 421),
        (ada("GET", "/silent"), 504),
        (ada("GET", "/closed"), 502),
        (fixture.server.request_as_admin("GET", "/user/99"), 404),
        (fixture.server.request_as_admin("PUT", "/user/1"), 405),
        (json(fixture.server.request_as_admin("POST", "/entity/user")).body("{}"), 422),
    ] {
        let response = request.header("Origin", APP).send();
        let text = format!("{status} {response:?}");
        assert_eq!(response.status, status, "{text}");
        assert_eq!(response.header("access-control-allow-origin"), Some(APP), "{text}");
        assert_eq!(response.header("access-control-allow-credentials"), Some("true"), "{text}");
        assert_eq!(response.header("access-control-expose-headers"), Some(EXPOSED), "{text}");
        assert_eq!(response.header("vary"), Some("Origin"), "{text}");
        assert_eq!(response.header("cache-control"), Some("no-store"), "{text}");
    }
    // Scripts can change the fields.
    let refused = ada("GET", "/scripted/refused").header("Origin", APP).send();
    assert_eq!(refused.header("access-control-expose-headers"), Some("X-Changed"));
    let changed = ada("GET", "/scripted/changed").header("Origin", APP).send();
    assert_eq!(changed.header("access-control-allow-origin"), Some("https://changed.example"));

    // Another origin gets the refusal without CORS fields, and so does a path without settings.
    for request in [
        fixture.get("/guarded").header("Origin", "https://evil.example"),
        fixture.get("/guarded"),
        fixture.get("/nowhere").header("Origin", APP),
        fixture.get("/guarded/%2f").header("Origin", APP),
    ] {
        let response = request.send();
        assert!(response.status >= 400);
        assert_eq!(cors_fields(&response), [""; 0], "{response:?}");
    }
}
