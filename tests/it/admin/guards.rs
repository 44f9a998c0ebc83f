//! Who may administer what, and that nobody can make more of themselves than they are.

use serde_json::{Value, json};

use crate::harness::{Answer, Key, Request, Server};

const ALL: [&str; 7] = [
    "administer users",
    "administer permissions",
    "administer site configuration",
    "administer rest resources",
    "access user profiles",
    "generate own api key",
    "view audit log",
];

fn send(server: &Server, key: &Key, method: &str, target: &str, body: Option<Value>) -> Answer {
    let asked = Request::new(server.admin, method, target).header("API-KEY", &key.credential);
    match body {
        Some(body) => asked.json(&body).send(),
        None => asked.send(),
    }
}

#[test]
fn each_place_asks_for_its_permission() {
    let server = Server::new();
    let places = [
        ("/api/v1/users", "administer users"),
        ("/api/v1/users/1", "administer users"),
        ("/api/v1/users/1/keys", "administer users"),
        ("/api/v1/keys", "administer users"),
        ("/api/v1/me", "generate own api key"),
        ("/api/v1/me/keys", "generate own api key"),
        ("/api/v1/audit", "view audit log"),
        ("/api/v1/audit/verify", "view audit log"),
        ("/api/v1/roles", "administer permissions"),
        ("/api/v1/roles/anonymous", "administer permissions"),
        ("/api/v1/applications", "administer site configuration"),
        ("/api/v1/applications/default", "administer site configuration"),
        ("/api/v1/resources", "administer rest resources"),
        ("/api/v1/resources/entity.user", "administer rest resources"),
    ];
    for (number, permission) in ALL.iter().enumerate() {
        let key = server.user_with(&format!("user{number}"), &[permission]);
        for (place, needed) in places {
            let answer = send(&server, &key, "GET", place, None);
            let expected = if needed == *permission { 200 } else { 403 };
            assert_eq!(answer.status, expected, "{permission} {place}: {}", answer.body);
            if expected == 403 {
                assert_eq!(
                    answer.json()["detail"],
                    format!("The '{needed}' permission is required.")
                );
            }
        }
        for method in ["POST", "PATCH", "DELETE"] {
            let answer = send(&server, &key, method, "/api/v1/nothing", Some(json!({})));
            assert_eq!(answer.status, 404);
        }
    }
}

#[test]
fn anonymous_requests_never_administer() {
    let server = Server::new();
    let everything = json!({ "permissions": ALL });
    let changed = server.manages("PATCH", "/api/v1/roles/anonymous").json(&everything).send();
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(Request::new(server.admin, "GET", "/api/v1/users").send().status, 401);
    // Nor when the default application is switched off and every request is anonymous.
    server.application(json!({ "enabled": false }));
    let answer = Request::new(server.admin, "GET", "/api/v1/users").send();
    assert_eq!(answer.status, 403, "{}", answer.body);
}

#[test]
fn only_an_administrator_touches_an_administrator() {
    let server = Server::new();
    let key = server.user_with("helper", &["administer users"]);
    let admins = send(&server, &key, "GET", "/api/v1/users/1/keys", None).json();
    let theirs = format!("/api/v1/keys/{}/revoke", admins["items"][0]["id"].as_str().unwrap());
    let attempts = [
        ("POST", "/api/v1/users", json!({ "name": "eve", "roles": ["administrator"] })),
        ("PATCH", "/api/v1/users/1", json!({ "password": "mine now" })),
        ("PATCH", "/api/v1/users/1", json!({ "name": "renamed" })),
        ("PATCH", "/api/v1/users/1", json!({ "active": false })),
        ("PATCH", "/api/v1/users/2", json!({ "roles": ["administrator"] })),
        ("POST", "/api/v1/users/1/keys", json!({})),
        ("POST", theirs.as_str(), json!({})),
        ("DELETE", "/api/v1/users/1", json!({})),
    ];
    server.hide("mine now");
    for (method, target, body) in attempts {
        let answer = send(&server, &key, method, target, Some(body.clone()));
        assert_eq!(answer.status, 403, "{method} {target} {body}: {}", answer.body);
        let said = "Only an administrator can change what is an administrator's.";
        assert_eq!(answer.json()["detail"], said);
    }
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
    // What is not an administrator's is theirs to change.
    let answer = send(&server, &key, "POST", "/api/v1/users", Some(json!({ "name": "bob" })));
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(send(&server, &key, "POST", "/api/v1/users/3/keys", Some(json!({}))).status, 201);
    assert_eq!(send(&server, &key, "DELETE", "/api/v1/users/3", None).status, 204);
}

#[test]
fn nobody_gives_a_permission_that_they_do_not_have() {
    let server = Server::new();
    let key = server.user_with("keeper", &["administer permissions", "read"]);
    let own = "/api/v1/roles/role-of-keeper";
    let attempts = [
        ("PATCH", own, json!({ "is_admin": true })),
        ("PATCH", own, json!({ "permissions": ["administer permissions", "administer users"] })),
        ("PATCH", "/api/v1/roles/authenticated", json!({ "permissions": ["administer users"] })),
        ("PATCH", "/api/v1/roles/administrator", json!({ "label": "Mine" })),
        ("DELETE", "/api/v1/roles/administrator", json!({})),
        ("POST", "/api/v1/roles", json!({ "id": "x", "label": "X", "is_admin": true })),
        (
            "POST",
            "/api/v1/roles",
            json!({ "id": "x", "label": "X", "permissions": ["cancel account"] }),
        ),
    ];
    for (method, target, body) in attempts {
        let answer = send(&server, &key, method, target, Some(body.clone()));
        assert_eq!(answer.status, 403, "{method} {target} {body}: {}", answer.body);
    }
    let given = json!({ "id": "reader", "label": "Reader", "permissions": ["read"] });
    assert_eq!(send(&server, &key, "POST", "/api/v1/roles", Some(given)).status, 201);
    // What a role has from somebody else may stay in it.
    server.site.json(&["role", "edit", "reader", "--grant", "cancel account"]);
    let relabel =
        send(&server, &key, "PATCH", "/api/v1/roles/reader", Some(json!({ "label": "R" })));
    assert_eq!(relabel.status, 200, "{}", relabel.body);
}

#[test]
fn a_key_with_scopes_makes_no_key_with_more() {
    let server = Server::new();
    server.user("boss", &["--role", "administrator"]);
    let keeper = ["role", "add", "keeper", "--label", "Keeper", "--permission", "administer users"];
    server.site.json(&keeper);
    server.user("bob", &["--role", "keeper"]);
    let key = server.key("boss", &["--scope", "administer users"]);
    let generate = |body: Value| send(&server, &key, "POST", "/api/v1/users/3/keys", Some(body));
    for body in
        [json!({}), json!({ "scopes": ["administer users", "read"] }), json!({ "scopes": ["x"] })]
    {
        assert_eq!(generate(body.clone()).status, 403, "{body}");
    }
    assert_eq!(generate(json!({ "scopes": ["administer users"] })).status, 201);
    assert_eq!(generate(json!({ "scopes": [] })).status, 201);
    // It is no administrator while it is held by its scopes, not even for its own account.
    let own = send(
        &server,
        &key,
        "POST",
        "/api/v1/users/2/keys",
        Some(json!({ "scopes": ["administer users"] })),
    );
    assert_eq!(own.status, 403);
    assert_eq!(send(&server, &key, "GET", "/api/v1/roles", None).status, 403);
}

#[test]
fn somebody_can_always_administer() {
    let server = Server::new();
    for (method, target, body) in [
        ("PATCH", "/api/v1/users/1", json!({ "active": false })),
        ("PATCH", "/api/v1/users/1", json!({ "roles": [] })),
        ("DELETE", "/api/v1/users/1", json!({})),
        ("PATCH", "/api/v1/roles/administrator", json!({ "is_admin": false })),
        ("DELETE", "/api/v1/roles/administrator", json!({})),
        ("DELETE", "/api/v1/roles/anonymous", json!({})),
        ("DELETE", "/api/v1/applications/default", json!({})),
    ] {
        let answer = server.manages(method, target).json(&body).send();
        let expected = if target.ends_with("applications/default") { 204 } else { 409 };
        assert_eq!(answer.status, expected, "{method} {target}: {}", answer.body);
    }
}

#[test]
fn the_operators_application_is_for_the_person_at_the_machine() {
    let server = Server::new();
    let control = std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let bearer = format!("Bearer {}", control["key"].as_str().unwrap());
    let ask = |to, key: &str| {
        let asked =
            Request::new(to, "GET", "/api/v1/users").header("AUTH-METHOD", "keyward.operator");
        asked.header("Authorization", key).send().status
    };
    assert_eq!(ask(server.admin, &bearer), 200);
    // The public listener does not know it, and no other key opens it.
    assert_eq!(ask(server.public, &bearer), 400);
    assert_eq!(ask(server.admin, &format!("Bearer {}", server.key)), 401);
    // Nor does its key work as anybody's.
    let named = crate::harness::credential("keyward.operator", control["key"].as_str().unwrap());
    let answer = Request::new(server.admin, "GET", "/api/v1/users").header("API-KEY", named).send();
    assert_eq!(answer.status, 404, "{}", answer.body);
    for (id, list) in [("keyward.operator", "applications"), ("keyward.x", "roles")] {
        let record = json!({ "id": id, "name": "x", "label": "x" });
        assert_eq!(
            server.manages("POST", &format!("/api/v1/{list}")).json(&record).send().status,
            422
        );
    }
}

#[test]
fn a_key_with_scopes_finds_no_way_out_of_them() {
    let server = Server::new();
    server.site.json(&["role", "add", "all", "--label", "All", "--permission", ALL[1]]);
    server.site.json(&["role", "add", "few", "--label", "Few", "--permission", ALL[0]]);
    server.user_with("mo", &ALL[..2]);
    let friend = server.user("friend", &[]);
    let mo = server.site.json(&["user", "show", "mo"])["uid"].as_u64().unwrap();
    let scoped = server.key("mo", &["--scope", ALL[0]]);
    let on_public = |method: &str, target: &str, body: Value| {
        server.request(method, target).header("API-KEY", &scoped.credential).json(&body).send()
    };
    for uid in [mo, friend] {
        let (here, there) = (format!("/api/v1/users/{uid}"), format!("/user/{uid}"));
        for body in [json!({ "password": "x" }), json!({ "roles": ["all"] })] {
            assert_eq!(send(&server, &scoped, "PATCH", &here, Some(body)).status, 403, "{uid}");
        }
        on_public("PATCH", &there, json!({ "roles": ["all"] }))
            .says(403, "Access denied on updating field 'roles'.");
    }
    let there = format!("/user/{friend}");
    on_public("PATCH", &there, json!({ "pass": ["x"] }))
        .says(403, "Access denied on updating field 'pass'.");
    for body in
        [json!({ "password": "x", "name": "eve" }), json!({ "roles": ["all"], "name": "eve" })]
    {
        assert_eq!(send(&server, &scoped, "POST", "/api/v1/users", Some(body)).status, 403);
    }
    on_public("POST", "/entity/user", json!({ "name": ["eve"], "pass": ["x"] }))
        .says(403, "Access denied on creating field 'pass'.");
    on_public("POST", "/entity/user", json!({ "name": ["eve"], "roles": ["all"] }))
        .says(403, "Access denied on creating field 'roles'.");

    // What lies within them it may.
    let here = format!("/api/v1/users/{friend}");
    let answer = send(&server, &scoped, "PATCH", &here, Some(json!({ "roles": ["few"] })));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // What somebody has already is not given.
    server.site.json(&["user", "edit", "friend", "--add-role", "all"]);
    let answer = on_public("PATCH", &there, json!({ "roles": ["all"] }));
    assert_eq!(answer.status, 200, "{}", answer.body);
    // And a key without scopes may do all of it.
    let whole = server.key("mo", &[]);
    let body = json!({ "roles": ["few", "all"], "password": "x" });
    assert_eq!(send(&server, &whole, "PATCH", &here, Some(body)).status, 200);
}
