//! The CORS settings of a resource: the command line, the admin API, export and apply, explain, and
//! the messages for invalid settings.

use std::fs;

use serde_json::{Value, json};

use super::{Fixture, cors_fields};

fn show(fixture: &Fixture) -> Value {
    fixture.server.site.json(&["resource", "show", "page"])["cors"].clone()
}

#[test]
fn options_of_the_command_line_set_change_and_remove_the_settings() {
    let fixture = Fixture::new();
    let site = &fixture.server.site;
    let add = [
        "resource",
        "add",
        "page",
        "--handler",
        "respond",
        "--path",
        "/page",
        "--method",
        "GET",
        "--method",
        "POST",
        "--format",
        "any",
        "--authentication",
        "*",
        "--cors-origin",
        "https://app.example",
        "--cors-origin",
        "http://localhost:3000",
        "--cors-credentials",
    ];
    site.json(&add);
    let before = json!({
        "origins": ["http://localhost:3000", "https://app.example"], "credentials": true,
        "max_age": 600, "preflight": "answer",
    });
    assert_eq!(show(&fixture), before);
    site.json(&[
        "resource",
        "edit",
        "page",
        "--cors-method",
        "GET",
        "--cors-header",
        "X-Mine",
        "--cors-expose",
        "X-Total",
        "--cors-max-age",
        "5",
        "--cors-credentials=false",
        "--cors-private-network",
    ]);
    let changed = json!({
        "origins": ["http://localhost:3000", "https://app.example"], "methods": ["GET"],
        "headers": ["X-Mine"], "expose": ["X-Total"], "credentials": false, "max_age": 5,
        "preflight": "answer", "private_network": true,
    });
    assert_eq!(show(&fixture), changed);
    // Other options leave the settings as they are.
    site.json(&["resource", "edit", "page", "--body", "new"]);
    assert_eq!(show(&fixture), changed);
    assert_eq!(fixture.preflight("/page").send().status, 204);
    // A change is in force at once.
    site.json(&["resource", "edit", "page", "--cors-origin", "https://other.example"]);
    assert_eq!(fixture.preflight("/page").send().status, 403);
    site.json(&["resource", "edit", "page", "--no-cors"]);
    assert_eq!(show(&fixture), Value::Null);
    assert_eq!(fixture.preflight("/page").send().status, 401);
    let both = ["resource", "edit", "page", "--no-cors", "--cors-origin", "https://app.example"];
    assert_eq!(site.run(&both).status.code(), Some(2));
    let passed = ["resource", "edit", "page", "--cors-origin", "*", "--cors-preflight", "pass"];
    let output = site.run(&passed);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && text.contains("The handler respond has no application"),
        "{text}"
    );
}

#[test]
fn invalid_settings_are_refused_with_place_reason_and_remedy() {
    let fixture = Fixture::new();
    for (cors, location, message, fix) in [
        (json!({}), "cors.origins", "CORS needs at least one origin.", "leave cors out"),
        (json!({ "origins": "*" }), "cors.origins", "This is not a list.", "list of strings"),
        (
            json!({ "origins": ["https://app.example/"] }),
            "cors.origins",
            "\"https://app.example/\" cannot be an origin: an origin has no path, not even a slash at its end.",
            "https://app.example.com",
        ),
        (
            json!({ "origins": ["app.example"] }),
            "cors.origins",
            "it does not begin with a scheme",
            "http://localhost:3000",
        ),
        (json!({ "origins": ["https://*"] }), "cors.origins", "first label", "scheme and host"),
        (
            json!({ "origins": ["*"], "credentials": true }),
            "cors.origins",
            "Credentials cannot be allowed for every origin.",
            "Name the origins, or set cors.credentials to false",
        ),
        (json!({ "origins": ["*", "null"] }), "cors.origins", "* allows every origin", "Leave"),
        (
            json!({ "origins": ["*"], "methods": ["PUT"] }),
            "cors.methods",
            "\"PUT\" is not a method of the resource.",
            "leave cors.methods out",
        ),
        (
            json!({ "origins": ["*"], "headers": ["a b"] }),
            "cors.headers",
            "\"a b\" is not the name of a header field.",
            "X-Request-Id",
        ),
        (
            json!({ "origins": ["*"], "expose": [""] }),
            "cors.expose",
            "\"\" is not the name",
            "X-Request-Id",
        ),
        (
            json!({ "origins": ["null"], "expose": ["*"], "credentials": true }),
            "cors.expose",
            "browsers do not read *",
            "Name the header fields",
        ),
        (
            json!({ "origins": ["*"], "max_age": 86401 }),
            "cors.max_age",
            "86401 is out of range.",
            "86400",
        ),
        (
            json!({ "origins": ["*"], "max_age": -1 }),
            "cors.max_age",
            "This is not a number in the allowed range.",
            "whole number",
        ),
        (
            json!({ "origins": ["*"], "preflight": "both" }),
            "cors.preflight",
            "\"both\" is not a way",
            "answer or pass",
        ),
        (
            json!({ "origins": ["*"], "preflight": "pass" }),
            "cors.preflight",
            "The handler respond has no application",
            "Leave cors.preflight out",
        ),
        (
            json!({ "origins": ["*"], "max-age": 1 }),
            "cors.max-age",
            "There is no such field.",
            "Did you mean max_age?",
        ),
    ] {
        let response =
            fixture.try_create("page", "/page", json!({ "handler": "respond", "cors": cors }));
        assert_eq!(response.status, 422, "{cors} {}", response.body);
        let errors = response.json()["errors"].clone();
        let is_it = |error: &Value| {
            let text = |name: &str| error[name].as_str().unwrap().to_owned();
            text("location") == location
                && text("message").contains(message)
                && text("fix").contains(fix)
        };
        assert!(errors.as_array().unwrap().iter().any(is_it), "{cors} {errors:#}");
    }
    let many: Vec<String> = (0..101).map(|number| format!("https://a{number}.example")).collect();
    let cors = json!({ "origins": many });
    assert_eq!(
        fixture.try_create("page", "/page", json!({ "handler": "respond", "cors": cors })).status,
        422
    );
}

#[test]
fn settings_are_exported_and_applied() {
    let fixture = Fixture::new();
    let cors = json!({
        "origins": ["https://*.pages.example"], "headers": ["X-Mine"], "credentials": true,
        "max_age": 9, "preflight": "pass",
    });
    fixture.forward("page", "/page", json!({ "cors": cors }));
    let site = &fixture.server.site;
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    assert!(exported.contains("[resources.cors]"), "{exported}");
    let target = "/api/v1/resources/page";
    let removed = fixture.server.admin_api("PATCH", target).json(&json!({ "cors": null })).send();
    assert_eq!((removed.status, show(&fixture)), (200, Value::Null), "{}", removed.body);
    fs::write(site.path().join("state.toml"), &exported).unwrap();
    let applied = site.run(&["apply", "state.toml"]);
    assert!(applied.status.success(), "{applied:?}");
    assert_eq!(show(&fixture), cors);
    let invalid = exported.replace("https://*.pages.example", "pages.example");
    fs::write(site.path().join("state.toml"), invalid).unwrap();
    let refused = site.run(&["apply", "state.toml"]);
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && text.contains("cannot be an origin"), "{text}");
}

#[test]
fn explain_says_how_a_preflight_would_be_answered() {
    let fixture = Fixture::new();
    let cors = json!({ "origins": ["https://app.example"] });
    fixture.create("page", "/page", json!({ "handler": "respond", "cors": cors }));
    let pass = json!({ "origins": ["https://app.example"], "preflight": "pass" });
    fixture.create("passed", "/passed", json!({ "handler": "decide", "cors": pass }));
    let explain = |method: &str, path: &str, origin: &str| {
        let origin = format!("Origin: {origin}");
        let output = fixture.server.site.run(&[
            "explain",
            path,
            "-X",
            method,
            "-H",
            &origin,
            "-H",
            "Access-Control-Request-Method: POST",
        ]);
        String::from_utf8(output.stdout).unwrap()
    };
    let text = explain("OPTIONS", "/page", "https://app.example");
    for part in [
        "the browser gets 204",
        "access-control-allow-methods: GET, HEAD, POST",
        "CORS preflight, which needs no credential",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let text = explain("OPTIONS", "/page", "https://evil.example");
    assert!(text.contains("the client gets 403 CORS_REFUSED"), "{text}");
    assert!(text.contains("is not in cors.origins of the resource page"), "{text}");
    let text = explain("OPTIONS", "/passed", "https://evil.example");
    assert!(text.contains("the application gets the preflight, without authentication"), "{text}");
    let text = explain("GET", "/page", "https://evil.example");
    assert!(text.contains("its page may not read the response"), "{text}");
    let text = explain("GET", "/page", "https://app.example");
    assert!(text.contains("so its page may read the response"), "{text}");
    let refused = fixture.get("/page").header("Origin", "https://evil.example").send();
    assert_eq!((refused.status, cors_fields(&refused)), (401, vec![]));
}
