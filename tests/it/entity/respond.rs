//! Tests of the handler `respond`, which sends a configured response to each authorized request.

use serde_json::{Value, json};

use super::Fixture;
use crate::harness::{Request, Server};

/// A fixture with a new server that has this resource.
fn fixture_with(resource: Value) -> Fixture {
    let fixture = Fixture::new(Server::new());
    let mut record = json!({
        "id": "motd", "handler": "respond", "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
    });
    record.as_object_mut().unwrap().extend(resource.as_object().unwrap().clone());
    fixture.call_admin_api("POST", "/api/v1/resources", &record);
    fixture
}

#[test]
fn the_configured_response_is_sent() {
    let fixture = fixture_with(json!({
        "path": "/motd",
        "respond": { "status": 203, "content_type": "text/plain; charset=utf-8", "body": "Grüße\n" },
    }));
    let response = fixture.request_as(&fixture.admin(), "GET", "/motd").send();
    assert_eq!((response.status, response.body.as_str()), (203, "Grüße\n"));
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = fixture.request_as(&fixture.admin(), "HEAD", "/motd").send();
    assert_eq!((head.status, head.body.as_str()), (203, ""));
    assert_eq!(head.header("content-length"), Some("8"));
    // A change takes effect with the next request.
    let change = json!({ "respond": { "status": 200, "body": "other" } });
    fixture.call_admin_api("PATCH", "/api/v1/resources/motd", &change);
    let response = fixture.request_as(&fixture.admin(), "GET", "/motd").send();
    assert_eq!((response.status, response.body.as_str()), (200, "other"));
}

#[test]
fn the_default_response_is_empty_json() {
    let fixture = fixture_with(json!({ "path": "/empty" }));
    let response = fixture.request_as(&fixture.admin(), "GET", "/empty").send();
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[test]
fn a_response_requires_authentication_and_permissions() {
    let fixture = fixture_with(json!({
        "path": "/motd", "methods": ["GET", "POST"],
        "permissions": { "GET": ["read it"], "POST": ["read it", "write it"] },
    }));
    let request = fixture.server.request("GET", "/motd").send();
    request.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    let (user, reader) = (fixture.user(&[]), fixture.user(&["read it"]));
    fixture
        .request_as(&user, "GET", "/motd")
        .send()
        .assert_message(403, "The 'read it' permission is required.");
    assert_eq!(fixture.request_as(&reader, "GET", "/motd").send().status, 200);
    fixture
        .request_as(&reader, "POST", "/motd")
        .send()
        .assert_message(403, "The 'write it' permission is required.");
    let writer = fixture.user(&["read it", "write it"]);
    assert_eq!(fixture.request_as(&writer, "POST", "/motd").send().status, 200);
    let response = fixture.request_as(&writer, "PUT", "/motd").send();
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, POST, HEAD")));
    fixture.call_admin_api("PATCH", "/api/v1/resources/motd", &json!({ "enabled": false }));
    let message = format!("No route found for \"GET {}/motd\"", fixture.origin());
    fixture.request_as(&writer, "GET", "/motd").send().assert_message(404, &message);
}

#[test]
fn anonymous_requests_are_allowed_where_anonymous_is_listed() {
    let fixture = fixture_with(json!({ "path": "/open", "authentication": ["anonymous"] }));
    assert_eq!(fixture.server.request("GET", "/open").send().status, 200);
    // The resource does not list the application of this request, so the request is rejected
    // although its key is valid.
    let message = "The used authentication method is not allowed on this route.";
    fixture.request_as(&fixture.admin(), "GET", "/open").send().assert_message(403, message);
}

#[test]
fn only_the_formats_of_the_resource_are_accepted() {
    let fixture = fixture_with(json!({
        "path": "/form", "methods": ["GET", "POST"], "formats": ["xml", "form"],
    }));
    let message = "No route found for the specified format. Supported formats: form, xml.";
    fixture
        .request_as(&fixture.admin(), "GET", "/form?_format=json")
        .send()
        .assert_message(406, message);
    assert_eq!(fixture.request_as(&fixture.admin(), "GET", "/form?_format=xml").send().status, 200);
    let post = |media_type: &str| {
        let request = fixture.request_as(&fixture.admin(), "POST", "/form");
        request.header("Content-Type", media_type).body("x").send()
    };
    for media_type in ["application/xml", "text/xml", "application/x-www-form-urlencoded"] {
        assert_eq!(post(media_type).status, 200, "{media_type}");
    }
    let message = "No route found that matches \"Content-Type: application/json\"";
    post("application/json").assert_message(415, message);
    let any = fixture_with(json!({ "path": "/any", "methods": ["GET", "POST"] }));
    let request = any.request_as(&any.admin(), "POST", "/any?_format=whatever");
    assert_eq!(request.body("x").send().status, 200);
}

#[test]
fn the_path_of_a_resource_may_be_a_pattern() {
    let fixture = fixture_with(json!({ "path": "/orders/{id}/lines" }));
    let status = |path: &str| fixture.request_as(&fixture.admin(), "GET", path).send().status;
    for path in ["/orders/1/lines", "/orders/a%20b/lines", "//orders/./1/x/../lines"] {
        assert_eq!(status(path), 200, "{path}");
    }
    for path in
        ["/orders//lines", "/orders/1", "/orders/1/lines/", "/orders/1/2/lines", "/Orders/1/lines"]
    {
        assert_eq!(status(path), 404, "{path}");
    }
    let fixture = fixture_with(json!({ "path": "/files/{*rest}" }));
    let status = |path: &str| fixture.request_as(&fixture.admin(), "GET", path).send().status;
    assert_eq!([status("/files/a"), status("/files/a/b/c"), status("/files")], [200; 3]);
    // The server resolves dot segments before routing, so `{*rest}` does not match this path.
    assert_eq!(status("/files/../user/1"), 200);
    let entity = fixture.request_as(&fixture.admin(), "GET", "/files/../user/1").send();
    assert_eq!(entity.json()["uid"][0]["value"], json!(1));
    assert_eq!(status("/files/..%2fuser/1"), 400);
}

#[test]
fn the_host_of_a_resource_must_match_the_host_of_the_request() {
    let fixture = fixture_with(json!({ "path": "/hosted", "host": "api.example" }));
    let status = |host: &str| {
        let head = format!(
            "GET /hosted HTTP/1.1\r\nHost: {host}\r\nAPI-KEY: {}\r\nConnection: close\r\n\r\n",
            fixture.admin().credential
        );
        crate::harness::exchange(fixture.server.public, head.as_bytes()).status
    };
    for host in ["api.example", "API.EXAMPLE", "api.example:8080"] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["example", "x.api.example", "127.0.0.1"] {
        assert_eq!(status(host), 404, "{host}");
    }
    assert_eq!(Request::new(fixture.server.public, "GET", "/hosted").send().status, 401);
}
