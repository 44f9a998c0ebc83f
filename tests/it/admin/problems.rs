//! What is not in order is told as RFC 9457 has it, every field at once.

use serde_json::{Value, json};

use crate::harness::{Answer, Server, credential};

/// The places and messages of a problem's errors.
#[track_caller]
fn errors(answer: &Answer) -> Vec<(String, String)> {
    assert_eq!(answer.status, 422, "{}", answer.body);
    let problem = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert_eq!(problem["type"], "urn:keyward:problem:invalid");
    assert_eq!(problem["status"], 422);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let errors = problem["errors"].as_array().unwrap();
    assert!(errors.iter().all(|one| !text(&one["fix"]).is_empty()), "{}", answer.body);
    errors.iter().map(|one| (text(&one["location"]), text(&one["message"]))).collect()
}

#[track_caller]
fn refuses(server: &Server, list: &str, record: Value, expected: &[(&str, &str)]) {
    let found = errors(&server.manages("POST", list).json(&record).send());
    let found: Vec<(&str, &str)> =
        found.iter().map(|(at, said)| (at.as_str(), said.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_user_that_is_not_in_order() {
    let server = Server::new();
    let list = "/api/v1/users";
    refuses(&server, list, json!({}), &[("name", "This field is required.")]);
    refuses(
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
    refuses(
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
    refuses(
        &server,
        list,
        json!({ "name": "ADMIN" }),
        &[("name", "The username ADMIN is already taken.")],
    );
    refuses(
        &server,
        list,
        json!([]),
        &[("", "This is not an object."), ("name", "This field is required.")],
    );
    refuses(
        &server,
        list,
        json!({ "name": "x", "password": "" }),
        &[("password", "A password has 1 to 1,024 bytes.")],
    );
    let changed = server
        .manages("PATCH", "/api/v1/users/1")
        .json(&json!({ "uid": 7, "created": "x" }))
        .send();
    assert_eq!(errors(&changed).len(), 2);
}

#[test]
fn a_resource_that_is_not_in_order() {
    let server = Server::new();
    let list = "/api/v1/resources";
    refuses(
        &server,
        list,
        json!({ "id": "x", "handler": "respond", "path": "/x" }),
        &[
            ("methods", "At least one HTTP method must be selected."),
            ("formats", "At least one request format must be selected."),
            ("authentication", "At least one authentication provider must be selected."),
        ],
    );
    refuses(
        &server,
        list,
        json!({ "id": "x", "handler": "script:Y", "path": "/x", "granularity": "both" }),
        &[
            ("handler", "\"script:Y\" is not a handler of this version."),
            ("granularity", "\"both\" is not a granularity."),
        ],
    );
    let whole = json!({ "id": "x", "handler": "respond", "path": "/x", "methods": ["GET"], "formats": ["any"], "authentication": ["*"] });
    let with = |changes: Value| {
        let mut record = whole.clone();
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        record
    };
    let taken = "The resource x cannot have GET /user/{user}: entity.user lies there.";
    refuses(&server, list, with(json!({ "path": "/user/{user}" })), &[("path", taken)]);
    for path in ["x", "/a//b", "/a/../b", "/-/verify", "/{*a}/b", "/a;b", "/a%2fb", "/{a"] {
        let found =
            errors(&server.manages("POST", list).json(&with(json!({ "path": path }))).send());
        assert_eq!(found[0].0, "path", "{path}");
    }
    refuses(
        &server,
        list,
        with(json!({ "authentication": ["nobody"] })),
        &[("authentication", "There is no application \"nobody\".")],
    );
    refuses(
        &server,
        list,
        with(json!({ "methods": ["TRACE"] })),
        &[("methods", "\"TRACE\" is not a method of the handler respond.")],
    );
    refuses(
        &server,
        list,
        with(json!({ "respond": { "status": 99, "body": 7 } })),
        &[("respond.body", "This is not text.")],
    );
    refuses(
        &server,
        list,
        with(json!({ "respond": { "status": 99 } })),
        &[("respond.status", "99 cannot be the status of an answer.")],
    );
}

#[test]
fn roles_applications_and_keys_that_are_not_in_order() {
    let server = Server::new();
    refuses(
        &server,
        "/api/v1/roles",
        json!({ "id": "X", "label": "x" }),
        &[("id", "\"X\" cannot be an id.")],
    );
    refuses(
        &server,
        "/api/v1/roles",
        json!({ "id": "administrator", "label": "x" }),
        &[("id", "There is a role administrator already.")],
    );
    refuses(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "type": "OAuth", "detail": "some", "header": "Host" }),
        &[
            ("type", "\"OAuth\" is not an authentication type."),
            ("detail", "\"some\" is not a level of detail."),
        ],
    );
    let said = "\"oauth\" is not an authentication type: there is no script auth/oauth.rhai.";
    refuses(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "type": "oauth" }),
        &[("type", said)],
    );
    let scripted = json!({ "id": "x", "handler": "script:y", "path": "/x", "methods": ["GET"], "formats": ["any"], "authentication": ["*"] });
    refuses(
        &server,
        "/api/v1/resources",
        scripted,
        &[("handler", "There is no script handlers/y.rhai.")],
    );
    refuses(
        &server,
        "/api/v1/applications",
        json!({ "id": "x", "name": "x", "header": "Host" }),
        &[("header", "\"Host\" cannot carry a credential.")],
    );
    refuses(
        &server,
        "/api/v1/users/1/keys",
        json!({ "expires": "tomorrow", "networks": ["10.0.0.0/33"] }),
        &[
            ("expires", "\"tomorrow\" is not a time."),
            ("networks.0", "\"10.0.0.0/33\" is not a network."),
        ],
    );
    refuses(
        &server,
        "/api/v1/users/1/keys",
        json!({ "expires": "2001-01-01T00:00:00Z", "application": "nobody" }),
        &[
            ("expires", "The key would have expired already."),
            ("application", "There is no application \"nobody\"."),
        ],
    );
}

#[test]
fn bodies_and_paths_that_lead_nowhere() {
    let server = Server::new();
    let post = || server.manages("POST", "/api/v1/roles");
    let of = |answer: Answer| (answer.status, answer.json()["type"].as_str().unwrap().to_owned());
    assert_eq!(of(post().header("Content-Type", "text/xml").body("{}").send()).0, 415);
    assert_eq!(of(post().body("{}").send()).0, 415);
    for body in ["", "{", "{\"id\":}", "\u{0}", &"[".repeat(10_000)] {
        let sent = post().header("Content-Type", "application/json").body(body).send();
        assert_eq!(of(sent), (400, "urn:keyward:problem:invalid-json".to_owned()));
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
        let answer = server.manages("GET", target).send();
        assert_eq!(answer.status, 404, "{target}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{target}");
    }
    let answer = server.manages("PUT", "/api/v1/users").send();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, HEAD")));
    let answer =
        server.manages("PATCH", "/api/v1/users/1").header("If-Match", "7").json(&json!({})).send();
    assert_eq!(of(answer), (400, "urn:keyward:problem:invalid-if-match".to_owned()));
}

#[test]
fn whoever_is_not_known_gets_a_problem_too() {
    let server = Server::new();
    let ask = |value: Option<String>| {
        let asked = crate::harness::Request::new(server.admin, "GET", "/api/v1/nothing");
        match value {
            Some(value) => asked.header("API-KEY", value).send(),
            None => asked.send(),
        }
    };
    // Who asks is asked first: what lies where is told only to those who may come in.
    for (value, kind) in [
        (None, "missing-api-key-header"),
        (Some("?".to_owned()), "invalid-api-key-format"),
        (Some(credential("admin", "wrong")), "authentication-failed"),
    ] {
        let answer = ask(value);
        assert_eq!(
            (answer.status, &answer.json()["type"]),
            (401, &json!(format!("urn:keyward:problem:{kind}")))
        );
        assert!(answer.header("www-authenticate").is_some());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
}
