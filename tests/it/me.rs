//! Tests of self-service: users manage their own keys with `/api/v1/me`.

use serde_json::{Value, json};

use crate::harness::{Key, Request, Response, Server, Site, credential};

/// The permission for self-service.
const SELF_SERVICE: &str = "generate own api key";

fn send(server: &Server, key: &Key, method: &str, target: &str, body: Value) -> Response {
    let request = Request::new(server.admin, method, target).header("API-KEY", &key.credential);
    match method {
        "GET" => request.send(),
        _ => request.json(&body).send(),
    }
}

/// Asserts that a response is a success, and returns the new key in the body.
#[track_caller]
fn created_key(server: &Server, name: &str, response: &Response) -> Key {
    assert_eq!(response.status, 201, "{}", response.body);
    let created = response.json();
    let text = created["key"].as_str().unwrap().to_owned();
    server.forbid_in_log(text.rsplit('_').next().unwrap());
    Key { id: created["id"].as_str().unwrap().into(), credential: credential(name, &text), text }
}

#[test]
fn users_create_rotate_and_revoke_their_own_keys() {
    let server = Server::new();
    let bob = server.user_with_permissions("bob", &[SELF_SERVICE, "read"]);
    let identity = send(&server, &bob, "GET", "/api/v1/me", json!({})).json();
    assert_eq!(
        (
            &identity["uid"],
            &identity["name"],
            &identity["key"],
            &identity["scopes"],
            &identity["roles"]
        ),
        (&json!(2), &json!("bob"), &json!(bob.id), &Value::Null, &json!(["role-of-bob"]))
    );
    let body = json!({ "label": "laptop", "scopes": [SELF_SERVICE], "expires": "30d" });
    let second = created_key(&server, "bob", &send(&server, &bob, "POST", "/api/v1/me/keys", body));
    let identity = send(&server, &second, "GET", "/api/v1/me", json!({})).json();
    assert_eq!(identity["scopes"], json!([SELF_SERVICE]));
    let listed = send(&server, &bob, "GET", "/api/v1/me/keys", json!({})).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let rotate = format!("/api/v1/me/keys/{}/rotate", second.id);
    let third =
        created_key(&server, "bob", &send(&server, &bob, "POST", &rotate, json!({ "overlap": 0 })));
    assert_eq!(send(&server, &second, "GET", "/api/v1/me", json!({})).status, 401);
    assert_eq!(send(&server, &third, "GET", "/api/v1/me", json!({})).status, 200);
    let revoke = format!("/api/v1/me/keys/{}/revoke", third.id);
    assert_eq!(send(&server, &bob, "POST", &revoke, json!({})).json()["state"], "revoked");
    assert_eq!(send(&server, &third, "GET", "/api/v1/me", json!({})).status, 401);
}

#[test]
fn keys_of_other_users_are_not_reachable() {
    let server = Server::new();
    let bob = server.user_with_permissions("bob", &[SELF_SERVICE]);
    let eve = server.user_with_permissions("eve", &[SELF_SERVICE, "administer users"]);
    for verb in ["revoke", "rotate"] {
        let target = format!("/api/v1/me/keys/{}/{verb}", bob.id);
        let response = send(&server, &eve, "POST", &target, json!({}));
        assert_eq!(
            (response.status, &response.json()["detail"]),
            (404, &json!(format!("There is no key {}.", bob.id)))
        );
        let target = format!("/api/v1/me/keys/00000000/{verb}");
        assert_eq!(send(&server, &eve, "POST", &target, json!({})).status, 404);
    }
    let listed = send(&server, &eve, "GET", "/api/v1/me/keys", json!({})).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(send(&server, &bob, "GET", "/api/v1/me", json!({})).status, 200);
    // A user without the permission cannot use any of these routes. The permission does not allow
    // other routes of the admin API.
    let ann = server.user_with_permissions("ann", &["read"]);
    for (method, target) in
        [("GET", "/api/v1/me"), ("GET", "/api/v1/me/keys"), ("POST", "/api/v1/me/keys")]
    {
        let response = send(&server, &ann, method, target, json!({}));
        assert_eq!(response.status, 403, "{target}: {}", response.body);
    }
    assert_eq!(send(&server, &bob, "GET", "/api/v1/keys", json!({})).status, 403);
    assert_eq!(send(&server, &bob, "POST", "/api/v1/users/2/keys", json!({})).status, 403);
}

#[test]
fn restricted_key_cannot_create_a_less_restricted_key() {
    let server = Server::new();
    let unrestricted = server.user_with_permissions("bob", &[SELF_SERVICE, "read"]);
    let restricted = server.generate_key(
        "bob",
        &["--scope", SELF_SERVICE, "--network", "127.0.0.0/8", "--application", "default"],
    );
    let allowed =
        json!({ "scopes": [SELF_SERVICE], "networks": ["127.0.0.1"], "application": "default" });
    let with = |name: &str, value: Value| {
        let mut body = allowed.clone();
        body[name] = value;
        body
    };
    for body in [
        with("scopes", Value::Null),
        with("scopes", json!([SELF_SERVICE, "read"])),
        with("networks", json!([])),
        with("networks", json!(["127.0.0.1", "10.0.0.0/8"])),
        with("networks", json!(["0.0.0.0/0"])),
        with("application", Value::Null),
    ] {
        let response = send(&server, &restricted, "POST", "/api/v1/me/keys", body.clone());
        assert_eq!(response.status, 403, "{body}: {}", response.body);
    }
    let rotate = |id: &str| {
        send(&server, &restricted, "POST", &format!("/api/v1/me/keys/{id}/rotate"), json!({}))
    };
    assert_eq!(rotate(&unrestricted.id).status, 403);
    created_key(&server, "bob", &send(&server, &restricted, "POST", "/api/v1/me/keys", allowed));
    created_key(&server, "bob", &rotate(&restricted.id));
    // A key cannot get a scope for a permission that its user does not have.
    let body = json!({ "scopes": ["administer users"] });
    let response = send(&server, &unrestricted, "POST", "/api/v1/me/keys", body);
    assert_eq!(
        (response.status, &response.json()["errors"][0]["location"]),
        (422, &json!("scopes.0"))
    );
}

#[test]
fn keys_per_user_limit_applies() {
    let server = Site::new().with_env("KEYWARD_LIMITS__KEYS_PER_USER", "2").start();
    let bob = server.user_with_permissions("bob", &[SELF_SERVICE]);
    let generate = || send(&server, &bob, "POST", "/api/v1/me/keys", json!({}));
    let second = created_key(&server, "bob", &generate());
    let response = generate();
    assert_eq!(response.status, 409, "{}", response.body);
    assert!(response.body.contains("limits.keys_per_user"), "{}", response.body);
    server.site.json(&["key", "revoke", &second.id]);
    created_key(&server, "bob", &generate());
}

#[test]
fn operator_has_an_identity_but_no_keys() {
    let server = Server::new();
    let control = std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let send = |method: &str, target: &str| {
        Request::new(server.admin, method, target)
            .header("AUTH-METHOD", "keyward.operator")
            .header("Authorization", format!("Bearer {}", control["key"].as_str().unwrap()))
            .json(&json!({}))
            .send()
    };
    assert_eq!(send("GET", "/api/v1/me").json()["name"], "keyward.operator");
    assert_eq!(send("POST", "/api/v1/me/keys").status, 409);
    assert_eq!(send("GET", "/api/v1/me/keys").status, 409);
}
