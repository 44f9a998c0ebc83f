//! The admin API rejects invalid requests with RFC 9457 problems, and each problem lists all
//! invalid fields.

use serde_json::{Value, json};

use crate::harness::{Response, Server, credential};

/// The location and message of each error that a problem lists.
#[track_caller]
fn errors(response: &Response) -> Vec<(String, String)> {
    assert_eq!(response.status, 422, "{}", response.body);
    let problem = response.json();
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["type"], "urn:keyward:problem:invalid");
    assert_eq!(problem["status"], 422);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().all(|error| !text(&error["fix"]).is_empty()), "{}", response.body);
    errors.iter().map(|error| (text(&error["location"]), text(&error["message"]))).collect()
}

/// Posts a record that must be rejected with exactly these errors.
#[track_caller]
fn assert_rejected(server: &Server, list: &str, record: Value, expected: &[(&str, &str)]) {
    let found = errors(&server.admin_api("POST", list).json(&record).send());
    let found: Vec<(&str, &str)> =
        found.iter().map(|(location, message)| (location.as_str(), message.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn an_invalid_user_is_rejected_with_all_its_errors() {
    let server = Server::new();
    let list = "/api/v1/users";
    assert_rejected(&server, list, json!({}), &[("name", "This field is required.")]);
    assert_rejected(
        &server,
        list,
        json!({ "name": "a  b", "mail": "x", "roles": ["nobody"], "timezone": "Nowhere", "langcode": "" }),
        &[
            ("name", "The username cannot contain multiple spaces in a row."),
            ("mail", "This value is not a valid email address."),
            ("roles.0", "The referenced entity (user_role: nobody) does not exist."),
            ("timezone", "The value you selected is not a valid choice."),
            ("langcode", "The value you selected is not a valid choice."),
        ],
    );
    assert_rejected(
        &server,
        list,
        json!({ "name": 7, "active": "yes", "roles": "x", "uid": 9, "pasword": "x" }),
        &[
            ("uid", "The server sets this field."),
            ("name", "This is not text."),
            ("active", "This is not true or false."),
            ("roles", "This is not a list."),
            ("pasword", "There is no such field."),
        ],
    );
    assert_rejected(
        &server,
        list,
        json!({ "name": "ADMIN" }),
        &[("name", "The username ADMIN is already taken.")],
    );
    assert_rejected(
        &server,
        list,
        json!([]),
        &[("", "This is not an object."), ("name", "This field is required.")],
    );
    assert_rejected(
        &server,
        list,
        json!({ "name": "x", "password": "" }),
        &[("password", "A password has at least 8 characters.")],
    );
    let changed = server
        .admin_api("PATCH", "/api/v1/users/1")
        .json(&json!({ "uid": 7, "created": "x" }))
        .send();
    assert_eq!(errors(&changed).len(), 2);
}

#[test]
fn an_invalid_resource_is_rejected_with_all_its_errors() {
    let server = Server::new();
    let list = "/api/v1/resources";
    assert_rejected(
        &server,
        list,
        json!({ "id": "x", "handler": "respond", "path": "/x" }),
        &[
            ("methods", "At least one HTTP method must be selected."),
            ("formats", "At least one request format must be selected."),
            ("authentication", "At least one authentication provider must be selected."),
        ],
    );
    assert_rejected(
        &server,
        list,
        json!({ "id": "x", "handler": "script:Y", "path": "/x", "granularity": "both" }),
        &[
            ("handler", "\"script:Y\" is not a handler of this version."),
            ("granularity", "\"both\" is not a granularity."),
        ],
    );
    let valid = json!({ "id": "x", "handler": "respond", "path": "/x", "methods": ["GET"], "formats": ["any"], "authentication": ["*"] });
    let with = |changes: Value| {
        let mut record = valid.clone();
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        record
    };
    let taken = "The resource x cannot have GET /user/{user}: entity.user already uses it.";
    assert_rejected(&server, list, with(json!({ "path": "/user/{user}" })), &[("path", taken)]);
    for path in ["x", "/a//b", "/a/../b", "/-/verify", "/{*a}/b", "/a;b", "/a%2fb", "/{a"] {
        let found =
            errors(&server.admin_api("POST", list).json(&with(json!({ "path": path }))).send());
        assert_eq!(found[0].0, "path", "{path}");
    }
    assert_rejected(
        &server,
        list,
        with(json!({ "authentication": ["nobody"] })),
        &[("authentication", "There is no application \"nobody\".")],
    );
    assert_rejected(
        &server,
        list,
        with(json!({ "methods": ["TRACE"] })),
        &[("methods", "Keyward refuses TRACE and CONNECT requests.")],
    );
    let upstreams = ["http://127.0.0.1:9000"];
    let forwarded = json!(["X-Forwarded-For", "via"]);
    assert_rejected(
        &server,
        list,
        with(
            json!({ "handler": "proxy", "proxy": { "upstreams": upstreams, "forwarded": forwarded } }),
        ),
        &[("proxy.forwarded", "\"via\" is not a header field about the client.")],
    );
    assert_rejected(
        &server,
        list,
        with(json!({ "respond": { "status": 99, "body": 7 } })),
        &[("respond.body", "This is not text.")],
    );
    assert_rejected(
        &server,
        list,
        with(json!({ "respond": { "status": 99 } })),
        &[("respond.status", "99 cannot be the status of a response.")],
    );
}

#[test]
fn invalid_roles_applications_and_keys_are_rejected() {
    let server = Server::new();
    assert_rejected(
        &server,
        "/api/v1/roles",
        json!({ "id": "X", "label": "x" }),
        &[("id", "\"X\" cannot be an id.")],
    );
    assert_rejected(
        &server,
        "/api/v1/roles",
        json!({ "id": "administrator", "label": "x" }),
        &[("id", "There is a role administrator already.")],
    );
    assert_rejected(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "type": "OAuth", "detail": "some", "header": "Host" }),
        &[
            ("type", "\"OAuth\" is not an authentication type."),
            ("detail", "\"some\" is not a level of detail."),
        ],
    );
    let message = "\"oauth\" is not an authentication type: there is no script auth/oauth.rhai.";
    assert_rejected(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "type": "oauth" }),
        &[("type", message)],
    );
    let scripted_resource = json!({ "id": "x", "handler": "script:y", "path": "/x", "methods": ["GET"], "formats": ["any"], "authentication": ["*"] });
    assert_rejected(
        &server,
        "/api/v1/resources",
        scripted_resource,
        &[("handler", "There is no script handlers/y.rhai.")],
    );
    assert_rejected(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "header": "Host" }),
        &[("header", "\"Host\" cannot carry a credential.")],
    );
    assert_rejected(
        &server,
        "/api/v1/users/1/keys",
        json!({ "expires": "tomorrow", "networks": ["10.0.0.0/33"] }),
        &[
            ("expires", "\"tomorrow\" is not a time."),
            ("networks.0", "\"10.0.0.0/33\" is not a network."),
        ],
    );
    assert_rejected(
        &server,
        "/api/v1/users/1/keys",
        json!({ "expires": "2001-01-01T00:00:00Z", "application": "nobody" }),
        &[
            ("expires", "The expiry is not in the future."),
            ("application", "There is no application \"nobody\"."),
        ],
    );
}

#[test]
fn invalid_bodies_paths_methods_and_revisions_are_problems() {
    let server = Server::new();
    let post = || server.admin_api("POST", "/api/v1/roles");
    let status_and_type = |response: Response| {
        (response.status, response.json()["type"].as_str().unwrap().to_owned())
    };
    assert_eq!(status_and_type(post().header("Content-Type", "text/xml").body("{}").send()).0, 415);
    assert_eq!(status_and_type(post().body("{}").send()).0, 415);
    for body in ["", "{", "{\"id\":}", "\u{0}", &"[".repeat(10_000)] {
        let sent = post().header("Content-Type", "application/json").body(body).send();
        assert_eq!(status_and_type(sent), (400, "urn:keyward:problem:invalid-json".to_owned()));
    }
    let large = post().header("Content-Type", "application/json").body(vec![b' '; 2 << 20]).send();
    assert_eq!(large.status, 413);
    for target in [
        "/",
        "/api",
        "/api/v1/nothing",
        "/api/v1/users/x",
        "/api/v1/roles/none",
        "/%2e%2e/x",
        "/api/v1//users",
    ] {
        let response = server.admin_api("GET", target).send();
        assert_eq!(response.status, 404, "{target}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{target}");
    }
    let response = server.admin_api("PUT", "/api/v1/users").send();
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, POST, HEAD")));
    let response = server
        .admin_api("PATCH", "/api/v1/users/1")
        .header("If-Match", "7")
        .json(&json!({}))
        .send();
    assert_eq!(status_and_type(response), (400, "urn:keyward:problem:invalid-if-match".to_owned()));
}

#[test]
fn an_unauthenticated_request_gets_a_problem_even_for_an_unknown_path() {
    let server = Server::new();
    let send = |value: Option<String>| {
        let request = crate::harness::Request::new(server.admin, "GET", "/api/v1/nothing");
        match value {
            Some(value) => request.header("API-KEY", value).send(),
            None => request.send(),
        }
    };
    // Authentication comes before routing, so that an unauthenticated client does not learn which
    // paths exist.
    for (value, kind) in [
        (None, "missing-api-key-header"),
        (Some("?".to_owned()), "invalid-api-key-format"),
        (Some(credential("admin", "wrong")), "authentication-failed"),
    ] {
        let response = send(value);
        assert_eq!(
            (response.status, &response.json()["type"]),
            (401, &json!(format!("urn:keyward:problem:{kind}")))
        );
        assert!(response.header("www-authenticate").is_some());
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
    }
}
