//! What people do for themselves.

use serde_json::{Value, json};

use crate::harness::{Answer, Key, Request, Server, Site, credential};

const OWN: &str = "generate own api key";

fn ask(server: &Server, key: &Key, method: &str, target: &str, body: Value) -> Answer {
    let asked = Request::new(server.admin, method, target).header("API-KEY", &key.credential);
    match method {
        "GET" => asked.send(),
        _ => asked.json(&body).send(),
    }
}

/// A key that `key` made for its own user.
#[track_caller]
fn made(server: &Server, name: &str, answer: &Answer) -> Key {
    assert_eq!(answer.status, 201, "{}", answer.body);
    let made = answer.json();
    let text = made["key"].as_str().unwrap().to_owned();
    server.hide(text.rsplit('_').next().unwrap());
    Key { id: made["id"].as_str().unwrap().into(), credential: credential(name, &text), text }
}

#[test]
fn people_make_replace_and_revoke_their_own_keys() {
    let server = Server::new();
    let bob = server.user_with("bob", &[OWN, "read"]);
    let who = ask(&server, &bob, "GET", "/api/v1/me", json!({})).json();
    assert_eq!(
        (&who["uid"], &who["name"], &who["key"], &who["scopes"], &who["roles"]),
        (&json!(2), &json!("bob"), &json!(bob.id), &Value::Null, &json!(["role-of-bob"]))
    );
    let body = json!({ "label": "laptop", "scopes": [OWN], "expires": "30d" });
    let second = made(&server, "bob", &ask(&server, &bob, "POST", "/api/v1/me/keys", body));
    let who = ask(&server, &second, "GET", "/api/v1/me", json!({})).json();
    assert_eq!(who["scopes"], json!([OWN]));
    let listed = ask(&server, &bob, "GET", "/api/v1/me/keys", json!({})).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    let rotate = format!("/api/v1/me/keys/{}/rotate", second.id);
    let third = made(&server, "bob", &ask(&server, &bob, "POST", &rotate, json!({ "overlap": 0 })));
    assert_eq!(ask(&server, &second, "GET", "/api/v1/me", json!({})).status, 401);
    assert_eq!(ask(&server, &third, "GET", "/api/v1/me", json!({})).status, 200);
    let revoke = format!("/api/v1/me/keys/{}/revoke", third.id);
    assert_eq!(ask(&server, &bob, "POST", &revoke, json!({})).json()["state"], "revoked");
    assert_eq!(ask(&server, &third, "GET", "/api/v1/me", json!({})).status, 401);
}

#[test]
fn nobody_reaches_the_keys_of_somebody_else() {
    let server = Server::new();
    let bob = server.user_with("bob", &[OWN]);
    let eve = server.user_with("eve", &[OWN, "administer users"]);
    for verb in ["revoke", "rotate"] {
        let target = format!("/api/v1/me/keys/{}/{verb}", bob.id);
        let answer = ask(&server, &eve, "POST", &target, json!({}));
        assert_eq!(
            (answer.status, &answer.json()["detail"]),
            (404, &json!(format!("There is no key {}.", bob.id)))
        );
        let target = format!("/api/v1/me/keys/00000000/{verb}");
        assert_eq!(ask(&server, &eve, "POST", &target, json!({})).status, 404);
    }
    let listed = ask(&server, &eve, "GET", "/api/v1/me/keys", json!({})).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(ask(&server, &bob, "GET", "/api/v1/me", json!({})).status, 200);
    // Without the permission there is nothing at all, and with it nothing else.
    let ann = server.user_with("ann", &["read"]);
    for (method, target) in
        [("GET", "/api/v1/me"), ("GET", "/api/v1/me/keys"), ("POST", "/api/v1/me/keys")]
    {
        let answer = ask(&server, &ann, method, target, json!({}));
        assert_eq!(answer.status, 403, "{target}: {}", answer.body);
    }
    assert_eq!(ask(&server, &bob, "GET", "/api/v1/keys", json!({})).status, 403);
    assert_eq!(ask(&server, &bob, "POST", "/api/v1/users/2/keys", json!({})).status, 403);
}

#[test]
fn a_key_that_is_bound_makes_none_that_is_bound_less() {
    let server = Server::new();
    let all = server.user_with("bob", &[OWN, "read"]);
    let bound = server
        .key("bob", &["--scope", OWN, "--network", "127.0.0.0/8", "--application", "default"]);
    let good = json!({ "scopes": [OWN], "networks": ["127.0.0.1"], "application": "default" });
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    for body in [
        with("scopes", Value::Null),
        with("scopes", json!([OWN, "read"])),
        with("networks", json!([])),
        with("networks", json!(["127.0.0.1", "10.0.0.0/8"])),
        with("networks", json!(["0.0.0.0/0"])),
        with("application", Value::Null),
    ] {
        let answer = ask(&server, &bound, "POST", "/api/v1/me/keys", body.clone());
        assert_eq!(answer.status, 403, "{body}: {}", answer.body);
    }
    let rotate =
        |id: &str| ask(&server, &bound, "POST", &format!("/api/v1/me/keys/{id}/rotate"), json!({}));
    assert_eq!(rotate(&all.id).status, 403);
    made(&server, "bob", &ask(&server, &bound, "POST", "/api/v1/me/keys", good));
    made(&server, "bob", &rotate(&bound.id));
    // A scope that the user does not have is none that a key can get.
    let body = json!({ "scopes": ["administer users"] });
    let answer = ask(&server, &all, "POST", "/api/v1/me/keys", body);
    assert_eq!((answer.status, &answer.json()["errors"][0]["location"]), (422, &json!("scopes.0")));
}

#[test]
fn there_are_as_many_keys_as_there_may_be() {
    let server = Site::new().with("KEYWARD_LIMITS__KEYS_PER_USER", "2").start();
    let bob = server.user_with("bob", &[OWN]);
    let generate = || ask(&server, &bob, "POST", "/api/v1/me/keys", json!({}));
    let second = made(&server, "bob", &generate());
    let answer = generate();
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.contains("limits.keys_per_user"), "{}", answer.body);
    server.site.json(&["key", "revoke", &second.id]);
    made(&server, "bob", &generate());
}

#[test]
fn the_operator_is_somebody_and_has_no_keys() {
    let server = Server::new();
    let control = std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let ask = |method: &str, target: &str| {
        Request::new(server.admin, method, target)
            .header("AUTH-METHOD", "keyward.operator")
            .header("Authorization", format!("Bearer {}", control["key"].as_str().unwrap()))
            .json(&json!({}))
            .send()
    };
    assert_eq!(ask("GET", "/api/v1/me").json()["name"], "keyward.operator");
    assert_eq!(ask("POST", "/api/v1/me/keys").status, 409);
    assert_eq!(ask("GET", "/api/v1/me/keys").status, 409);
}
