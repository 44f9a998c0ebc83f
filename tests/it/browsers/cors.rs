//! CORS: which pages of other origins may use a resource. Keyward itself responds to preflights.

use serde_json::json;

use super::{Fixture, cors_fields};
use crate::{
    faces::fixture::{self as layer_fixture, send_through},
    harness::{Response, exchange},
};

/// The `Vary` of each response to a preflight.
const PREFLIGHT_VARY: &str =
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
const APP: &str = "https://app.example";

fn fixture() -> Fixture {
    let fixture = Fixture::new();
    let cors = json!({ "origins": [APP, "https://*.pages.example:8443", "null"] });
    fixture.forward("proxied", "/proxied/{case}", json!({ "cors": cors }));
    let fixed = json!({ "handler": "respond", "cors": cors, "respond": { "body": "1" } });
    fixture.create("fixed", "/fixed/{case}", fixed);
    fixture
}

/// Asserts that a preflight is allowed, and returns its CORS fields in one line.
#[track_caller]
fn allowed(response: &Response) -> String {
    assert_eq!((response.status, response.body.as_str()), (204, ""), "{response:?}");
    assert_eq!(response.header("vary"), Some(PREFLIGHT_VARY));
    assert_eq!(response.header("www-authenticate"), None);
    let mut fields: Vec<String> = cors_fields(response)
        .into_iter()
        .map(|name| format!("{}: {}", &name[15..], response.header(name).unwrap()))
        .collect();
    fields.sort();
    fields.join("; ")
}

#[track_caller]
fn refused(response: &Response) {
    assert_eq!(response.status, 403, "{response:?}");
    assert_eq!(cors_fields(response), [""; 0], "{response:?}");
    assert_eq!(response.header("vary"), Some(PREFLIGHT_VARY));
    assert_eq!(response.json()["error"], "CORS_REFUSED");
}

#[test]
fn preflight_is_answered_without_a_credential() {
    let fixture = fixture();
    for path in ["/proxied/plain", "/fixed/a", "/fixed/x?q=1", "//fixed/./b"] {
        let response = fixture.preflight(path).send();
        assert_eq!(
            allowed(&response),
            "allow-headers: AUTH-METHOD, API-KEY, Content-Type; allow-methods: GET, HEAD, POST; \
             allow-origin: https://app.example; max-age: 600"
        );
    }
    // A credential makes no difference, not even a wrong one.
    let response = fixture.preflight("/fixed/a").header("API-KEY", "!").send();
    allowed(&response);
    let asked = fixture.preflight_from(APP, "POST", "/fixed/a");
    let fields = "api-key,CONTENT-type , auth-method,,";
    allowed(&asked.header("Access-Control-Request-Headers", fields).send());
    allowed(&fixture.preflight_from(APP, "HEAD", "/fixed/a").send());
    for origin in ["https://a.pages.example:8443", "https://b.a.pages.example:8443", "null"] {
        let response = fixture.preflight_from(origin, "GET", "/fixed/a").send();
        assert!(allowed(&response).contains(&format!("allow-origin: {origin};")), "{response:?}");
    }
    assert!(fixture.application.take_received().is_empty());
}

#[test]
fn preflight_for_another_origin_method_or_field_is_refused() {
    let fixture = fixture();
    for origin in [
        "https://evil.example",
        "http://app.example",
        "https://app.example:444",
        "https://app.example.evil",
        "https://app.example/",
        "https://pages.example:8443",
        "https://.pages.example:8443",
        "https://a.pages.example",
        "https://evilpages.example:8443",
        "*",
        "",
    ] {
        refused(&fixture.preflight_from(origin, "GET", "/fixed/a").send());
    }
    for method in ["PUT", "DELETE", "get", "OPTIONS", "*"] {
        refused(&fixture.preflight_from(APP, method, "/fixed/a").send());
    }
    for name in ["x-other", "cookie", "authorization", "*", "api-key, x-other", "a b"] {
        let asked = fixture.preflight("/fixed/a").header("Access-Control-Request-Headers", name);
        refused(&asked.send());
    }
    // The text says what is not allowed, and the log also says which list of which resource.
    let response = fixture.preflight_from(APP, "PUT", "/fixed/a").send();
    let text = "Pages of other origins may not use this resource: method PUT.";
    assert_eq!(response.json()["error_description"], text);
    fixture.server.wait_for_log("the method PUT is not in cors.methods of the resource fixed");
    assert!(fixture.application.take_received().is_empty());
}

#[test]
fn request_that_is_no_preflight_is_decided_as_before() {
    let fixture = fixture();
    fixture.create("other", "/other", json!({ "handler": "respond" }));
    let options = |path: &str| fixture.server.request("OPTIONS", path);
    let method = "Access-Control-Request-Method";
    for request in [
        options("/fixed/a"),
        options("/fixed/a").header("Origin", APP),
        options("/fixed/a").header(method, "GET"),
        options("/fixed/a").header("Origin", APP).header("Origin", APP).header(method, "GET"),
        options("/fixed/a").header("Origin", APP).header(method, "GET").header(method, "GET"),
        fixture.preflight("/fixed/a").body("x"),
        fixture.get("/fixed/a").header("Origin", APP).header(method, "GET"),
        // A resource without CORS settings.
        fixture.preflight("/other"),
    ] {
        let response = request.send();
        assert_eq!(response.status, 401, "{response:?}");
        assert!(response.header("access-control-allow-methods").is_none(), "{response:?}");
    }
    let response = fixture.ada("OPTIONS", "/fixed/a").send();
    assert_eq!(response.status, 405);
    assert_eq!(fixture.preflight("/nowhere").send().status, 401);
    assert_eq!(fixture.preflight("/fixed/%2f").send().status, 400);
}

#[test]
fn preflight_has_the_settings_of_the_resource_that_has_the_method() {
    let fixture = Fixture::new();
    let one =
        |method: &str, cors| json!({ "handler": "respond", "methods": [method], "cors": cors });
    let read = json!({ "origins": ["*"], "headers": ["*"], "max_age": 0, "private_network": true });
    let write = json!({
        "origins": [APP], "headers": ["X-Mine"], "credentials": true, "expose": ["X-Total"],
    });
    fixture.create("read", "/both", one("GET", read));
    fixture.create("write", "/both", one("POST", write));
    fixture.create("plain", "/both", json!({ "handler": "respond", "methods": ["DELETE"] }));
    let asked = fixture.preflight_from("https://any.example", "GET", "/both");
    let asked = asked.header("Access-Control-Request-Headers", "authorization, x-any");
    assert_eq!(
        allowed(&asked.send()),
        "allow-headers: authorization, x-any; allow-methods: GET, HEAD; allow-origin: *; max-age: 0"
    );
    assert_eq!(
        allowed(&fixture.preflight_from(APP, "POST", "/both").send()),
        "allow-credentials: true; allow-headers: X-Mine; allow-methods: POST; \
         allow-origin: https://app.example; max-age: 600"
    );
    refused(&fixture.preflight_from("https://any.example", "POST", "/both").send());
    refused(&fixture.preflight_from(APP, "DELETE", "/both").send());
    // Private networks must be asked for, by the page and by the settings.
    let network = "Access-Control-Request-Private-Network";
    let field = "allow-private-network: true";
    let read = fixture.preflight("/both").header(network, "true").send();
    assert!(allowed(&read).contains(field));
    let write = fixture.preflight_from(APP, "POST", "/both").header(network, "true").send();
    assert!(!allowed(&write).contains(field));
}

#[test]
fn actual_response_names_the_allowed_origin_only() {
    let fixture = fixture();
    let all = json!({ "origins": ["*"], "expose": ["*"] });
    fixture.forward("all", "/all/{case}", json!({ "cors": all }));
    let credentials =
        json!({ "origins": [APP], "credentials": true, "expose": ["X-Total", "ETag"] });
    fixture.forward("credentials", "/credentials/{case}", json!({ "cors": credentials }));
    fixture.forward("without", "/without/{case}", json!({}));
    let vary = "AUTH-METHOD, API-KEY, Origin";
    for (path, origins, allow_origin, more, vary) in [
        ("/fixed/a", &[APP][..], Some(APP), None, vary),
        ("/proxied/plain", &[APP], Some(APP), None, vary),
        ("/proxied/plain", &["null"], Some("null"), None, vary),
        ("/proxied/plain", &["https://evil.example"], None, None, vary),
        ("/proxied/plain", &[], None, None, vary),
        ("/proxied/plain", &[APP, "https://evil.example"], None, None, vary),
        // The application's own CORS fields are replaced.
        ("/proxied/cors", &[APP], Some(APP), None, "Accept, AUTH-METHOD, API-KEY, Origin"),
        (
            "/proxied/cors",
            &["https://old.example"],
            None,
            None,
            "Accept, AUTH-METHOD, API-KEY, Origin",
        ),
        ("/proxied/not-modified", &[APP], Some(APP), None, vary),
        ("/credentials/plain", &[APP], Some(APP), Some("ETag, X-Total"), vary),
        ("/credentials/stream", &["https://evil.example"], None, None, vary),
        ("/all/plain", &[APP], Some("*"), Some("*"), "AUTH-METHOD, API-KEY"),
        ("/all/cors", &[], Some("*"), Some("*"), "Accept, AUTH-METHOD, API-KEY"),
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let mut request = fixture.ada(method, path);
            for origin in origins {
                request = request.header("Origin", origin);
            }
            let response = request.send();
            let context = format!("{method} {path} {origins:?} {response:?}");
            assert!([200, 304].contains(&response.status), "{context}");
            assert_eq!(response.header("access-control-allow-origin"), allow_origin, "{context}");
            assert_eq!(response.header("access-control-expose-headers"), more, "{context}");
            let credentials = response.header("access-control-allow-credentials");
            let wanted = path.starts_with("/credentials") && allow_origin.is_some();
            assert_eq!(credentials, wanted.then_some("true"), "{context}");
            assert_eq!(response.header("vary"), Some(vary), "{context}");
            assert_eq!(response.header("access-control-allow-methods"), None, "{context}");
        }
    }
    // Without settings, the application's own fields pass.
    let response = fixture.ada("GET", "/without/cors").header("Origin", APP).send();
    assert_eq!(response.header("access-control-allow-origin"), Some("https://old.example"));
    assert_eq!(response.header("access-control-allow-methods"), Some("PUT"));
}

#[test]
fn user_resource_can_be_used_by_pages() {
    let fixture = Fixture::new();
    fixture.server.patch_resource(json!({ "cors": { "origins": [APP] } }));
    let methods =
        |method: &str, path: &str| allowed(&fixture.preflight_from(APP, method, path).send());
    assert!(methods("POST", "/entity/user").contains("allow-methods: POST;"));
    assert!(methods("PATCH", "/user/1").contains("allow-methods: GET, HEAD, PATCH, DELETE;"));
    refused(&fixture.preflight_from(APP, "PUT", "/user/1").send());
    let created = fixture.server.request_as_admin("POST", "/entity/user").header("Origin", APP);
    let created = created.json(&json!({ "name": [{ "value": "page" }] })).send();
    assert_eq!((created.status, created.header("access-control-allow-origin")), (201, Some(APP)));
}

#[test]
fn preflight_over_http2_is_answered() {
    let fixture = fixture();
    let url = format!("http://{}/fixed/a", fixture.server.public);
    let output = std::process::Command::new("curl")
        .args(["-sS", "--http2-prior-knowledge", "-X", "OPTIONS", "-D", "-", &url])
        .args(["-H", "Origin: https://app.example", "-H", "Access-Control-Request-Method: POST"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("HTTP/2 204"), "{text}");
    assert!(text.contains("access-control-allow-origin: https://app.example\r\n"), "{text}");
}

#[test]
fn target_of_a_preflight_may_be_a_url() {
    let fixture = fixture();
    let text = "OPTIONS http://a/fixed/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                Origin: https://app.example\r\nAccess-Control-Request-Method: GET\r\n\r\n";
    allowed(&exchange(fixture.server.public, text.as_bytes()));
    // `OPTIONS *` is about the server, not about a resource.
    let text = text.replace("http://a/fixed/a", "*");
    assert_ne!(exchange(fixture.server.public, text.as_bytes()).status, 204);
}

#[tokio::test]
async fn layer_treats_preflights_and_responses_like_the_server() {
    use keyward::{
        ClientSource, GuardLayer,
        accounts::AccountError,
        model::{Actor, Cors, Handler, PreflightMode, Resource},
    };
    let fixture = layer_fixture::Fixture::new().await;
    let set = async |preflight: PreflightMode| {
        let change = |resource: &mut Resource| {
            let origins = [APP.to_owned()].into();
            (resource.handler, resource.respond) = (Handler::Decide, None);
            resource.cors = Some(Cors { origins, preflight, ..Cors::default() });
            Ok::<_, AccountError>(())
        };
        fixture.accounts.as_actor(Actor::Program).change("orders", None, change).await.unwrap();
    };
    set(PreflightMode::Answer).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let send = async |method: &str, path: &str, fields: &[(&str, &str)]| {
        let mut request = http::Request::builder().method(method).uri(path).header("host", "a");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = http_body_util::Full::new("body".into());
        send_through(&layer, request.body(body).unwrap()).await
    };
    let preflight = |origin: &'static str| {
        [
            ("origin", origin),
            ("access-control-request-method", "GET"),
            ("api-key", "!"),
            ("cookie", "a=b"),
            ("x-forwarded-user", "root"),
        ]
    };
    let (response, received) = send("OPTIONS", "/orders/7", &preflight(APP)).await;
    assert_eq!(
        (response.status().as_u16(), response.headers()["vary"].to_str().unwrap()),
        (204, PREFLIGHT_VARY)
    );
    assert_eq!(response.headers()["access-control-allow-origin"], APP);
    assert!(received.lock().unwrap().is_empty());
    let (response, _) = send("OPTIONS", "/orders/7", &preflight("https://evil.example")).await;
    assert_eq!(response.status(), 403);
    assert!(!response.headers().contains_key("access-control-allow-origin"));
    let (response, _) =
        send("GET", "/orders/7", &[("origin", APP), ("api-key", &fixture.ada)]).await;
    assert_eq!(
        (response.status().as_u16(), &response.headers()["access-control-allow-origin"]),
        (200, &http::HeaderValue::from_static(APP))
    );
    // Denials by the pipeline, and by the hook `on_response`.
    for (path, credential) in
        [("/orders/7", ""), ("/orders/closed", &*fixture.ada), ("/orders/secret", &*fixture.ada)]
    {
        let (response, _) = send("GET", path, &[("origin", APP), ("api-key", credential)]).await;
        assert!(response.status().is_client_error());
        assert_eq!(response.headers()["access-control-allow-origin"], APP, "{path}");
        let exposed = response.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("WWW-Authenticate"));
    }
    set(PreflightMode::Pass).await;
    let (response, received) = send("OPTIONS", "/orders/7", &preflight(APP)).await;
    assert_eq!(
        (response.status().as_u16(), response.headers()["vary"].to_str().unwrap()),
        (200, PREFLIGHT_VARY)
    );
    let received = received.lock().unwrap();
    let (identity, _, headers, body) = &received[0];
    assert!(identity.is_anonymous() && body.is_empty());
    let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["origin", "access-control-request-method", "host"]);
}
