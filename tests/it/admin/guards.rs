//! Each endpoint of the admin API requires a permission, and users cannot extend their own
//! permissions.

use serde_json::{Value, json};

use crate::harness::{Key, Request, Response, Server};

const ALL_PERMISSIONS: [&str; 7] = [
    "administer users",
    "administer permissions",
    "administer site configuration",
    "administer rest resources",
    "access user profiles",
    "generate own api key",
    "view audit log",
];

fn send(server: &Server, key: &Key, method: &str, target: &str, body: Option<Value>) -> Response {
    let request = Request::new(server.admin, method, target).header("API-KEY", &key.credential);
    match body {
        Some(body) => request.json(&body).send(),
        None => request.send(),
    }
}

#[test]
fn each_endpoint_requires_its_permission() {
    let server = Server::new();
    let endpoints = [
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
    for (number, permission) in ALL_PERMISSIONS.iter().enumerate() {
        let key = server.user_with_permissions(&format!("user{number}"), &[permission]);
        for (target, needed) in endpoints {
            let response = send(&server, &key, "GET", target, None);
            let expected = if needed == *permission { 200 } else { 403 };
            assert_eq!(response.status, expected, "{permission} {target}: {}", response.body);
            if expected == 403 {
                assert_eq!(
                    response.json()["detail"],
                    format!("The '{needed}' permission is required.")
                );
            }
        }
        for method in ["POST", "PATCH", "DELETE"] {
            let response = send(&server, &key, method, "/api/v1/nothing", Some(json!({})));
            assert_eq!(response.status, 404);
        }
    }
}

#[test]
fn anonymous_requests_never_reach_the_admin_api() {
    let server = Server::new();
    let all_permissions = json!({ "permissions": ALL_PERMISSIONS });
    let changed =
        server.admin_api("PATCH", "/api/v1/roles/anonymous").json(&all_permissions).send();
    assert_eq!(changed.status, 200, "{}", changed.body);
    assert_eq!(Request::new(server.admin, "GET", "/api/v1/users").send().status, 401);
    // If the default application is disabled, every request is anonymous. The admin API rejects
    // anonymous requests.
    server.patch_application(json!({ "enabled": false }));
    let response = Request::new(server.admin, "GET", "/api/v1/users").send();
    assert_eq!(response.status, 403, "{}", response.body);
}

#[test]
fn only_an_administrator_changes_an_administrator() {
    let server = Server::new();
    let key = server.user_with_permissions("helper", &["administer users"]);
    let keys = send(&server, &key, "GET", "/api/v1/users/1/keys", None).json();
    let admin_key = format!("/api/v1/keys/{}/revoke", keys["items"][0]["id"].as_str().unwrap());
    let attempts = [
        ("POST", "/api/v1/users", json!({ "name": "eve", "roles": ["administrator"] })),
        ("PATCH", "/api/v1/users/1", json!({ "password": "mine now" })),
        ("PATCH", "/api/v1/users/1", json!({ "name": "renamed" })),
        ("PATCH", "/api/v1/users/1", json!({ "active": false })),
        ("PATCH", "/api/v1/users/2", json!({ "roles": ["administrator"] })),
        ("POST", "/api/v1/users/1/keys", json!({})),
        ("POST", admin_key.as_str(), json!({})),
        ("DELETE", "/api/v1/users/1", json!({})),
    ];
    server.forbid_in_log("mine now");
    for (method, target, body) in attempts {
        let response = send(&server, &key, method, target, Some(body.clone()));
        assert_eq!(response.status, 403, "{method} {target} {body}: {}", response.body);
        let message =
            "Only an administrator can change an account, role or key of an administrator.";
        assert_eq!(response.json()["detail"], message);
    }
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    // With the permission `administer users` the helper may change other users.
    let response = send(&server, &key, "POST", "/api/v1/users", Some(json!({ "name": "bob" })));
    assert_eq!(response.status, 201, "{}", response.body);
    assert_eq!(send(&server, &key, "POST", "/api/v1/users/3/keys", Some(json!({}))).status, 201);
    assert_eq!(send(&server, &key, "DELETE", "/api/v1/users/3", None).status, 204);
}

#[test]
fn a_role_editor_cannot_grant_a_permission_that_they_lack() {
    let server = Server::new();
    let key = server.user_with_permissions("keeper", &["administer permissions", "read"]);
    let editors_role = "/api/v1/roles/role-of-keeper";
    let attempts = [
        ("PATCH", editors_role, json!({ "is_admin": true })),
        (
            "PATCH",
            editors_role,
            json!({ "permissions": ["administer permissions", "administer users"] }),
        ),
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
        let response = send(&server, &key, method, target, Some(body.clone()));
        assert_eq!(response.status, 403, "{method} {target} {body}: {}", response.body);
    }
    let role = json!({ "id": "reader", "label": "Reader", "permissions": ["read"] });
    assert_eq!(send(&server, &key, "POST", "/api/v1/roles", Some(role)).status, 201);
    // The editor may change a role that has such a permission from somebody else.
    server.site.json(&["role", "edit", "reader", "--grant", "cancel account"]);
    let relabel =
        send(&server, &key, "PATCH", "/api/v1/roles/reader", Some(json!({ "label": "R" })));
    assert_eq!(relabel.status, 200, "{}", relabel.body);
}

#[test]
fn a_scoped_key_cannot_create_a_key_with_wider_scopes() {
    let server = Server::new();
    server.add_user("boss", &["--role", "administrator"]);
    let keeper = ["role", "add", "keeper", "--label", "Keeper", "--permission", "administer users"];
    server.site.json(&keeper);
    server.add_user("bob", &["--role", "keeper"]);
    let key = server.generate_key("boss", &["--scope", "administer users"]);
    let generate = |body: Value| send(&server, &key, "POST", "/api/v1/users/3/keys", Some(body));
    for body in
        [json!({}), json!({ "scopes": ["administer users", "read"] }), json!({ "scopes": ["x"] })]
    {
        assert_eq!(generate(body.clone()).status, 403, "{body}");
    }
    assert_eq!(generate(json!({ "scopes": ["administer users"] })).status, 201);
    assert_eq!(generate(json!({ "scopes": [] })).status, 201);
    // With a scoped key, even an administrator cannot change an administrator's account.
    let response = send(
        &server,
        &key,
        "POST",
        "/api/v1/users/2/keys",
        Some(json!({ "scopes": ["administer users"] })),
    );
    assert_eq!(response.status, 403);
    assert_eq!(send(&server, &key, "GET", "/api/v1/roles", None).status, 403);
}

#[test]
fn the_last_administrator_and_the_built_in_roles_cannot_be_removed() {
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
        let response = server.admin_api(method, target).json(&body).send();
        let expected = if target.ends_with("applications/default") { 204 } else { 409 };
        assert_eq!(response.status, expected, "{method} {target}: {}", response.body);
    }
}

#[test]
fn the_operator_application_works_only_with_the_control_key() {
    let server = Server::new();
    let control = std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
    let control: Value = serde_json::from_str(&control).unwrap();
    let bearer = format!("Bearer {}", control["key"].as_str().unwrap());
    let send = |listener, key: &str| {
        let request = Request::new(listener, "GET", "/api/v1/users");
        let request = request.header("AUTH-METHOD", "keyward.operator");
        request.header("Authorization", key).send().status
    };
    assert_eq!(send(server.admin, &bearer), 200);
    // The public listener does not have this application, and the application accepts no other key.
    assert_eq!(send(server.public, &bearer), 400);
    assert_eq!(send(server.admin, &format!("Bearer {}", server.key)), 401);
    // The control key does not work as a user's key.
    let named = crate::harness::credential("keyward.operator", control["key"].as_str().unwrap());
    let response =
        Request::new(server.admin, "GET", "/api/v1/users").header("API-KEY", named).send();
    assert_eq!(response.status, 404, "{}", response.body);
    for (id, list) in [("keyward.operator", "applications"), ("keyward.x", "roles")] {
        let record = json!({ "id": id, "name": "x", "label": "x" });
        assert_eq!(
            server.admin_api("POST", &format!("/api/v1/{list}")).json(&record).send().status,
            422
        );
    }
}

#[test]
fn a_scoped_key_cannot_raise_its_rights_through_users_and_roles() {
    let server = Server::new();
    server.site.json(&["role", "add", "all", "--label", "All", "--permission", ALL_PERMISSIONS[1]]);
    server.site.json(&["role", "add", "few", "--label", "Few", "--permission", ALL_PERMISSIONS[0]]);
    server.user_with_permissions("mo", &ALL_PERMISSIONS[..2]);
    let friend = server.add_user("friend", &[]);
    let mo = server.site.json(&["user", "show", "mo"])["uid"].as_u64().unwrap();
    let scoped = server.generate_key("mo", &["--scope", ALL_PERMISSIONS[0]]);
    let send_to_public = |method: &str, target: &str, body: Value| {
        server.request(method, target).header("API-KEY", &scoped.credential).json(&body).send()
    };
    for uid in [mo, friend] {
        let (admin_target, public_target) =
            (format!("/api/v1/users/{uid}"), format!("/user/{uid}"));
        for body in [json!({ "password": "x" }), json!({ "roles": ["all"] })] {
            assert_eq!(
                send(&server, &scoped, "PATCH", &admin_target, Some(body)).status,
                403,
                "{uid}"
            );
        }
        send_to_public("PATCH", &public_target, json!({ "roles": ["all"] }))
            .assert_message(403, "Access denied on updating field 'roles'.");
    }
    let public_target = format!("/user/{friend}");
    send_to_public("PATCH", &public_target, json!({ "pass": ["x"] }))
        .assert_message(403, "Access denied on updating field 'pass'.");
    for body in
        [json!({ "password": "x", "name": "eve" }), json!({ "roles": ["all"], "name": "eve" })]
    {
        assert_eq!(send(&server, &scoped, "POST", "/api/v1/users", Some(body)).status, 403);
    }
    send_to_public("POST", "/entity/user", json!({ "name": ["eve"], "pass": ["x"] }))
        .assert_message(403, "Access denied on creating field 'pass'.");
    send_to_public("POST", "/entity/user", json!({ "name": ["eve"], "roles": ["all"] }))
        .assert_message(403, "Access denied on creating field 'roles'.");

    // The scoped key may assign a role within its scopes.
    let admin_target = format!("/api/v1/users/{friend}");
    let response =
        send(&server, &scoped, "PATCH", &admin_target, Some(json!({ "roles": ["few"] })));
    assert_eq!(response.status, 200, "{}", response.body);
    // A request with a role that the user already has is allowed, because it grants nothing new.
    server.site.json(&["user", "edit", "friend", "--add-role", "all"]);
    let response = send_to_public("PATCH", &public_target, json!({ "roles": ["all"] }));
    assert_eq!(response.status, 200, "{}", response.body);
    // With an unscoped key, the user may make all of the changes that were rejected above.
    let unscoped = server.generate_key("mo", &[]);
    let body = json!({ "roles": ["few", "all"], "password": "a new password" });
    assert_eq!(send(&server, &unscoped, "PATCH", &admin_target, Some(body)).status, 200);
}
