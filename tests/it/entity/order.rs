//! Tests of the order in which errors are reported if a request has several errors.

use serde_json::json;

use super::{TestUser, fixture, single_value};
use crate::harness::Response;

const WRONG_FORMAT: &str = "No route found for the specified format. Supported formats: json.";
const WRONG_TYPE: &str = "No route found that matches \"Content-Type: text/xml\"";

/// The first request has many errors. Each following request fixes the error that was reported.
#[test]
fn the_errors_of_a_patch_are_reported_in_order() {
    let fixture = fixture();
    let (stranger, target) = (fixture.user(&[]), fixture.user(&[]));
    let send = |user: Option<&TestUser>,
                method: &str,
                path: &str,
                media_type: &str,
                body: &str|
     -> Response {
        let request = fixture.server.request(method, path).header("Content-Type", media_type);
        let request = match user {
            Some(user) => request.header("API-KEY", &user.credential),
            None => request,
        };
        request.body(body).send()
    };
    let (absent, existing) = ("/user/999999?_format=xml", format!("/user/{}", target.uid));
    let broken = "{";
    // An unauthenticated client does not learn which routes exist.
    for (method, path) in
        [("PUT", absent), ("PATCH", absent), ("PATCH", "/nowhere"), ("PATCH", &existing)]
    {
        let response = send(None, method, path, "text/xml", broken);
        response.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    }
    let response = send(Some(&stranger), "PUT", absent, "text/xml", broken);
    let message = format!(
        "No route found for \"PUT {}/user/999999\": Method Not Allowed (Allow: GET, PATCH, DELETE, HEAD)",
        fixture.origin()
    );
    response.assert_message(405, &message);
    send(Some(&stranger), "PATCH", absent, "text/xml", broken).assert_message(415, WRONG_TYPE);
    send(Some(&stranger), "PATCH", absent, "application/json", broken)
        .assert_message(406, WRONG_FORMAT);
    let absent = "/user/999999?_format=json";
    let response = send(Some(&stranger), "PATCH", absent, "application/json", broken);
    response.assert_message(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.PATCH\")");
    let response = send(Some(&stranger), "PATCH", &existing, "application/json", broken);
    response.assert_message(403, "Users can only update their own account, unless they have the 'administer users' permission.");
    let json = "application/json";
    send(Some(&target), "PATCH", &existing, json, "")
        .assert_message(400, "No entity content received.");
    send(Some(&target), "PATCH", &existing, json, broken).assert_message(400, "Syntax error");
    let body = r#"{"status":[1],"foo":[]}"#;
    send(Some(&target), "PATCH", &existing, json, body)
        .assert_message(422, "Field foo is unknown.");
    let message = "Access denied on updating field 'status'.";
    send(Some(&target), "PATCH", &existing, json, r#"{"timezone":["x"],"status":[1]}"#)
        .assert_message(403, message);
    let message = "timezone.0.value: The value you selected is not a valid choice.";
    send(Some(&target), "PATCH", &existing, json, r#"{"timezone":["x"]}"#)
        .assert_violations(&[message]);
    assert_eq!(
        send(Some(&target), "PATCH", &existing, json, r#"{"timezone":["UTC"]}"#).status,
        200
    );
}

#[test]
fn the_errors_of_a_post_are_reported_in_order() {
    let fixture = fixture();
    let stranger = fixture.user(&[]);
    let send = |user: &TestUser, target: &str, media_type: &str, body: &str| {
        let request = fixture.request_as(user, "POST", target).header("Content-Type", media_type);
        request.body(body).send()
    };
    let xml = "/entity/user?_format=xml";
    send(&stranger, xml, "text/xml", "{").assert_message(415, WRONG_TYPE);
    send(&stranger, xml, "application/json", "{").assert_message(406, WRONG_FORMAT);
    let (target, json) = ("/entity/user?_format=json", "application/json");
    let message = "The 'administer users' permission is required.";
    for body in ["{", "", r#"{"foo":[]}"#] {
        send(&stranger, target, json, body).assert_message(403, message);
    }
    send(&fixture.admin(), target, json, "").assert_message(400, "No entity content received.");
    send(&fixture.admin(), target, json, "{").assert_message(400, "Syntax error");
    let message = "The request's body must be a JSON object with the fields of the entity.";
    for body in ["[]", "null", "7", "\"x\"", " [{}] "] {
        send(&fixture.admin(), target, json, body).assert_message(400, message);
    }
    send(&fixture.admin(), target, json, r#"{"foo":[]}"#)
        .assert_message(422, "Field foo is unknown.");
    let body = single_value("name", fixture.unique("ordered")).to_string();
    assert_eq!(send(&fixture.admin(), target, json, &body).status, 201);
}

#[test]
fn the_errors_of_a_get_are_reported_in_order() {
    let fixture = fixture();
    let (stranger, target) = (fixture.user(&[]), fixture.user(&[]));
    let absent = fixture.request_as(&stranger, "GET", "/user/999999?_format=xml").send();
    absent.assert_message(406, WRONG_FORMAT);
    let absent = fixture.request_as(&stranger, "GET", "/user/999999").send();
    absent.assert_message(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.GET\")");
    let message = "The 'access user profiles' permission is required.";
    fixture.get(&stranger, target.uid).assert_message(403, message);
    assert_eq!(fixture.get(&target, target.uid).status, 200);
}

/// A wrong key is reported before any error of the path or method.
#[test]
fn a_wrong_key_is_reported_before_all_other_errors() {
    let fixture = fixture();
    let user_with_wrong_key = TestUser {
        uid: 1,
        name: "admin".into(),
        credential: crate::harness::credential("admin", "some other system's key"),
    };
    for (method, target) in [
        ("PUT", "/user/1"),
        ("GET", "/nothing"),
        ("GET", "/user/999999"),
        ("POST", "/entity/user?_format=xml"),
        ("OPTIONS", "/"),
    ] {
        let response =
            fixture.request_as(&user_with_wrong_key, method, target).json(&json!({})).send();
        response.assert_error(
            401,
            "AUTHENTICATION_FAILED",
            "Sorry, you are using an invalid API Key.",
        );
    }
}
