//! Preflights that Keyward passes on to the application without authentication: nothing but real
//! preflights pass, and the application gets no credential, no identity and no body.

use serde_json::json;

use super::{Application, Fixture};

const APP: &str = "https://app.example";
const VARY: &str = "Accept, Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

fn fixture() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.application = Application::with(|request| {
        let is_preflight = request.head.starts_with("options ");
        let fields = if is_preflight {
            "Access-Control-Allow-Origin: https://from.application\r\nVary: Accept\r\n"
        } else {
            ""
        };
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n")
    });
    let cors = json!({ "origins": [APP], "preflight": "pass" });
    fixture.forward("passed", "/passed/{*rest}", json!({ "cors": cors }));
    fixture
}

#[test]
fn application_gets_the_preflight_without_credentials_and_identities() {
    let fixture = fixture();
    // The origin does not matter, because the application decides.
    for origin in [APP, "https://other.example"] {
        let mut request = fixture.preflight_from(origin, "PUT", "/passed/x/../a?q=1");
        for (name, value) in [
            ("Access-Control-Request-Headers", "x-any"),
            ("Access-Control-Request-Private-Network", "true"),
            ("User-Agent", "browser"),
            ("API-KEY", fixture.ada.credential.as_str()),
            ("AUTH-METHOD", "default"),
            ("Authorization", "Bearer secret"),
            ("Cookie", "session=secret"),
            ("Proxy-Authorization", "secret"),
            ("X-Keyward-User", "root"),
            ("X_Keyward_User", "root"),
            ("X-Signature", "secret"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("X-Original-URL", "/root"),
            ("X-Forwarded-For", "203.0.113.1"),
            ("X-Forwarded-User", "root"),
            ("Upgrade", "websocket"),
            ("Content-Length", "0"),
        ] {
            request = request.header(name, value);
        }
        let response = request.send();
        assert_eq!(response.status, 200, "{response:?}");
        let allow_origin = response.header("access-control-allow-origin");
        assert_eq!(allow_origin, Some("https://from.application"));
        assert_eq!(response.header("vary"), Some(VARY));
        let received = fixture.application.take_received().pop().unwrap();
        assert!(received.head.starts_with("options /passed/a?q=1 http/1.1\n"), "{}", received.head);
        assert_eq!((received.body.as_str(), received.field("origin")), ("", Some(origin)));
        let mut names: Vec<&str> = received
            .head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|line| line.0)
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "access-control-request-headers",
                "access-control-request-method",
                "access-control-request-private-network",
                "forwarded",
                "host",
                "origin",
                "user-agent",
                "x-forwarded-for",
                "x-forwarded-host",
                "x-forwarded-port",
                "x-forwarded-proto",
                "x-real-ip",
            ]
        );
        assert_eq!(received.field("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn nothing_but_a_preflight_passes() {
    let fixture = fixture();
    let method = "Access-Control-Request-Method";
    let request = |name: &str| fixture.server.request(name, "/passed/a").header("Origin", APP);
    for request in [
        request("OPTIONS"),
        request("GET").header(method, "GET"),
        request("POST").header(method, "GET"),
        request("HEAD").header(method, "GET"),
        request("DELETE").header(method, "GET"),
        request("OPTIONS").header(method, "GET").header(method, "PUT"),
        request("OPTIONS").header(method, "GET").header("Origin", APP),
        request("OPTIONS").header(method, "GET").body("body"),
        request("OPTIONS").header(method, "GET").header("Transfer-Encoding", "chunked"),
        request("POST").header(method, "GET").header("X-HTTP-Method-Override", "OPTIONS"),
        fixture.server.request("OPTIONS", "/passed/a").header(method, "GET"),
    ] {
        let response = request.send();
        assert_eq!(response.status, 401, "{response:?}");
    }
    assert!(fixture.application.take_received().is_empty());
    // A disabled resource passes nothing on.
    let target = "/api/v1/resources/passed";
    let disabled = fixture.server.admin_api("PATCH", target).json(&json!({ "enabled": false }));
    assert_eq!(disabled.send().status, 200);
    assert_eq!(fixture.preflight("/passed/a").send().status, 401);
    assert!(fixture.application.take_received().is_empty());
}

#[test]
fn actual_response_has_the_settings_of_the_resource() {
    let fixture = fixture();
    let response = fixture.ada("GET", "/passed/a").header("Origin", APP).send();
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some(APP)));
    let response = fixture.get("/passed/a").header("Origin", APP).send();
    assert_eq!((response.status, response.header("access-control-allow-origin")), (401, Some(APP)));
}
