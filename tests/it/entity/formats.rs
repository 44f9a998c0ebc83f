//! Tests of unsupported methods (405), content types (415) and formats (406).

use serde_json::json;

use super::{fixture, single_value};

#[test]
fn an_unsupported_method_gets_405_with_allow() {
    let fixture = fixture();
    let origin = fixture.origin();
    for (method, target, path, allow) in [
        ("PUT", "/user/1?_format=json", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("POST", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("OPTIONS", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("TRACE", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("Purge", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("PURGE", "/user/999999", "/user/999999", "GET, PATCH, DELETE, HEAD"),
        ("GET", "/entity/user?_format=json", "/entity/user", "POST"),
        ("PATCH", "/entity/user", "/entity/user", "POST"),
        ("DELETE", "/entity/user", "/entity/user", "POST"),
        ("OPTIONS", "//entity/./user", "/entity/user", "POST"),
    ] {
        let response = fixture.request_as(&fixture.admin(), method, target).send();
        response.assert_message(
            405,
            &format!("No route found for \"{method} {origin}{path}\": Method Not Allowed (Allow: {allow})"),
        );
        assert_eq!(response.header("allow"), Some(allow), "{method} {target}");
    }
    for method in ["get", "Get"] {
        assert_eq!(fixture.request_as(&fixture.admin(), method, "/user/1").send().status, 200);
    }
    let patch = fixture.request_as(&fixture.admin(), "patch", "/user/1").json(&json!({})).send();
    assert_eq!(patch.status, 200, "{}", patch.body);
    let head = fixture.request_as(&fixture.admin(), "HEAD", "/entity/user").send();
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
}

#[test]
fn an_unknown_path_gets_404() {
    let fixture = fixture();
    let origin = fixture.origin();
    for path in [
        "/",
        "/user",
        "/user/",
        "/user/1/",
        "/user/1/edit",
        "/entity",
        "/entity/user/1",
        "/User/1",
        "/users/1",
    ] {
        for method in ["GET", "POST"] {
            let response = fixture
                .request_as(&fixture.admin(), method, &format!("{path}?_format=json"))
                .send();
            response
                .assert_message(404, &format!("No route found for \"{method} {origin}{path}\""));
        }
    }
}

#[test]
fn a_missing_content_type_gets_415() {
    let fixture = fixture();
    let message = "No \"Content-Type\" request header specified";
    let uid = fixture.user(&[]).uid;
    for (method, target) in [("POST", "/entity/user".into()), ("PATCH", format!("/user/{uid}"))] {
        let request = || fixture.request_as(&fixture.admin(), method, &target);
        request().body("{}").send().assert_message(415, message);
        request().send().assert_message(415, message);
    }
}

#[test]
fn another_content_type_gets_415() {
    let fixture = fixture();
    for given in [
        "text/xml",
        "application/hal+json",
        "application/jsonx",
        "json",
        "*/*",
        "text/xml; application/json",
        "application/json, text/xml",
        "",
    ] {
        let request = fixture.request_as(&fixture.admin(), "POST", "/entity/user");
        let response = request.header("Content-Type", given).body("{}").send();
        response
            .assert_message(415, &format!("No route found that matches \"Content-Type: {given}\""));
    }
    let request = fixture.request_as(&fixture.admin(), "PATCH", "/user/1");
    let response = request.header("Content-Type", "text/xml").body("<a/>").send();
    response.assert_message(415, "No route found that matches \"Content-Type: text/xml\"");
    // A request with two `Content-Type` header fields is rejected.
    let request = fixture.request_as(&fixture.admin(), "POST", "/entity/user");
    let twice = request.header("Content-Type", "application/json");
    let response = twice.header("Content-Type", "application/json").body("{}").send();
    let both = "No route found that matches \"Content-Type: application/json, application/json\"";
    response.assert_message(415, both);
}

#[test]
fn application_json_is_accepted_with_parameters_and_in_any_case() {
    let fixture = fixture();
    for given in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/json;",
        " application/json ",
    ] {
        let request = fixture.request_as(&fixture.admin(), "POST", "/entity/user");
        let body = single_value("name", fixture.unique("typed")).to_string();
        let response = request.header("Content-Type", given).body(body).send();
        assert_eq!(response.status, 201, "{given}: {}", response.body);
    }
    // The content type does not matter for a request without a body.
    let request = fixture.request_as(&fixture.admin(), "GET", "/user/1");
    assert_eq!(request.header("Content-Type", "text/xml").send().status, 200);
}

#[test]
fn another_format_gets_406() {
    let fixture = fixture();
    let message = "No route found for the specified format. Supported formats: json.";
    for query in [
        "_format=xml",
        "_format=hal_json",
        "_format=JSON",
        "_format=",
        "_format=html&a=1",
        "_format=json&_format=xml",
        "%5Fformat=xml",
        "_format=any",
    ] {
        let response =
            fixture.request_as(&fixture.admin(), "GET", &format!("/user/1?{query}")).send();
        response.assert_message(406, message);
        let request =
            fixture.request_as(&fixture.admin(), "POST", &format!("/entity/user?{query}"));
        request
            .json(&single_value("name", fixture.unique("never")))
            .send()
            .assert_message(406, message);
    }
}

#[test]
fn json_is_the_default_format() {
    let fixture = fixture();
    for query in [
        "",
        "?",
        "?_format=json",
        "?a=1&_format=json",
        "?_format=xml&_format=json",
        "?format=xml",
        "?_FORMAT=xml",
        "?x_format=xml",
    ] {
        let response =
            fixture.request_as(&fixture.admin(), "GET", &format!("/user/1{query}")).send();
        response.entity(200);
    }
    let request = fixture.request_as(&fixture.admin(), "GET", "/user/1");
    request.header("Accept", "text/html").send().entity(200);
}
