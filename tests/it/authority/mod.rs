//! Nobody makes more of themselves than they are: for each permission alone, and for each bound
//! credential, every way to become more is refused, and nothing has changed afterwards.

mod attributes;
mod bounds;
mod browsers;
mod embedded;
mod enumeration;
mod leaks;
mod resources;
mod trail;

use serde_json::{Value, json};

use crate::harness::{Key, Request, Response, Server};

/// Every permission of Keyward.
const PERMISSIONS: &[&str] = &[
    "administer permissions",
    "administer users",
    "access user profiles",
    "view user email addresses",
    "change own username",
    "cancel account",
    "administer rest resources",
    "administer site configuration",
    "use key authentication",
    "generate own api key",
    "view audit log",
];

/// A request that would make its sender more.
struct Attempt {
    method: &'static str,
    target: String,
    body: Value,
}

fn attempt(method: &'static str, target: impl Into<String>, body: Value) -> Attempt {
    Attempt { method, target: target.into(), body }
}

/// Sends an attempt: paths of the API to the admin listener, all others to the public one.
fn send(server: &Server, key: &Key, attempt: &Attempt) -> Response {
    let Attempt { method, target, body } = attempt;
    let is_api = target.starts_with("/api/");
    let listener = if is_api { server.admin } else { server.public };
    let request = Request::new(listener, method, target).header("API-KEY", &key.credential);
    match (body, target.as_str()) {
        (Value::Null, _) => request.send(),
        (Value::String(text), "/api/v1/state") => {
            request.header("Content-Type", "application/toml").body(text.clone()).send()
        }
        (body, _) => request.json(body).send(),
    }
}

/// All records, as an administrator sees them, without the counts of uses.
fn records(server: &Server) -> Value {
    let list = |what: &str| {
        let target = format!("/api/v1/{what}?limit=1000");
        let mut items = server.admin_api("GET", &target).send().json()["items"].take();
        for item in items.as_array_mut().unwrap() {
            for count in ["uses", "last_used", "access", "login"] {
                item.as_object_mut().unwrap().remove(count);
            }
        }
        items
    };
    json!(["users", "keys", "roles", "applications", "resources"].map(list))
}

fn resource(id: &str, handler: &str, more: Value) -> Value {
    let mut resource = json!({
        "id": id,
        "handler": handler,
        "methods": ["GET"],
        "formats": ["any"],
        "authentication": ["*"],
    });
    for (name, value) in more.as_object().unwrap() {
        resource[name] = value.clone();
    }
    resource
}

/// A server with the user `friend`, who has a key and no permission, and the passwordless
/// administrator `second`.
struct Scene {
    server: Server,
    friend: u64,
    admin_key: String,
}

impl Scene {
    fn new() -> Self {
        let server = Server::new();
        let friend = server.add_user("friend", &[]);
        server.add_user("second", &["--role", "administrator"]);
        server.site.json(&["role", "add", "strong", "--label", "S", "--permission", "strong"]);
        let keys = server.admin_api("GET", "/api/v1/users/1/keys").send().json();
        let admin_key = keys["items"][0]["id"].as_str().unwrap().to_owned();
        Self { server, friend, admin_key }
    }

    /// Every attempt of the user `uid`, whose role is `role`, that nobody without an
    /// administrator's role and an unbound credential may succeed with.
    fn attempts(&self, uid: u64, role: &str) -> Vec<Attempt> {
        let mut all = self.attempts_on_accounts(uid);
        all.extend(self.attempts_on_policy(role));
        all
    }

    fn attempts_on_accounts(&self, uid: u64) -> Vec<Attempt> {
        let friend = self.friend;
        let to_admin = json!({ "roles": ["administrator"] });
        let mut all = vec![
            attempt("POST", "/api/v1/users", json!({ "name": "eve", "roles": ["administrator"] })),
            attempt("DELETE", "/api/v1/users/1", Value::Null),
            attempt("DELETE", "/user/1", Value::Null),
            attempt("POST", "/api/v1/users/1/keys", json!({})),
            attempt("PATCH", format!("/api/v1/keys/{}", self.admin_key), json!({ "label": "x" })),
            attempt("POST", format!("/api/v1/keys/{}/rotate", self.admin_key), json!({})),
            attempt("POST", format!("/api/v1/keys/{}/revoke", self.admin_key), json!({})),
            attempt(
                "POST",
                "/api/v1/users/import",
                json!({ "roles": ["administrator"], "rows": [{ "username": "eve",
                    "password_digest": "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=" }] }),
            ),
            attempt("POST", "/api/v1/state", json!("version = 1\n")),
            attempt("POST", "/api/v1/backup", json!({ "file": "/tmp/stolen.bak" })),
        ];
        for target in [uid, friend] {
            all.push(attempt("PATCH", format!("/api/v1/users/{target}"), to_admin.clone()));
            let body = json!({ "roles": ["administrator"] });
            all.push(attempt("PATCH", format!("/user/{target}"), body));
        }
        let body = json!({ "name": ["eve"], "roles": ["administrator"] });
        all.push(attempt("POST", "/entity/user", body));
        for (field, value) in [
            ("name", json!("renamed")),
            ("mail", json!("taken@example.com")),
            ("password", json!("taken over by me")),
            ("active", json!(false)),
            ("roles", json!([])),
            ("attributes", json!({ "a": "b" })),
            ("rate_limit", json!("1/1s")),
            ("timezone", json!("UTC")),
            ("langcode", json!("de")),
        ] {
            all.push(attempt("PATCH", "/api/v1/users/1", json!({ field: value })));
        }
        for (field, value) in [
            ("name", json!(["renamed"])),
            ("mail", json!(["taken@example.com"])),
            ("pass", json!(["taken over by me"])),
            ("status", json!([false])),
            ("roles", json!([])),
            ("timezone", json!(["UTC"])),
            ("langcode", json!(["de"])),
            ("preferred_langcode", json!(["de"])),
            ("preferred_admin_langcode", json!(["de"])),
            ("init", json!(["taken@example.com"])),
            ("created", json!([1])),
            ("access", json!([1])),
            ("login", json!([1])),
        ] {
            all.push(attempt("PATCH", "/user/1", json!({ field: value })));
        }
        all
    }

    fn attempts_on_policy(&self, role: &str) -> Vec<Attempt> {
        let own = format!("/api/v1/roles/{role}");
        let stronger = json!({ "permissions": ["strong"] });
        let mut all = vec![
            attempt("PATCH", own.clone(), json!({ "is_admin": true })),
            attempt("PATCH", own, stronger.clone()),
            attempt("PATCH", "/api/v1/roles/authenticated", stronger.clone()),
            attempt("PATCH", "/api/v1/roles/anonymous", stronger),
            attempt("PATCH", "/api/v1/roles/administrator", json!({ "label": "Mine" })),
            attempt("DELETE", "/api/v1/roles/administrator", Value::Null),
            attempt(
                "POST",
                "/api/v1/roles",
                json!({ "id": "x", "label": "X", "permissions": ["strong"] }),
            ),
            attempt("POST", "/api/v1/roles", json!({ "id": "x", "label": "X", "is_admin": true })),
            attempt("DELETE", "/api/v1/applications/default", Value::Null),
            attempt("POST", "/api/v1/explain", json!({ "target": "/user/1" })),
        ];
        for change in [
            json!({ "header": "X-Other" }),
            json!({ "type": "bearer" }),
            json!({ "type": "basic" }),
            json!({ "is_default": false }),
            json!({ "enabled": false }),
            json!({ "key_source": "universal" }),
            json!({ "key_source": "universal", "universal_administrators": true }),
        ] {
            all.push(attempt("PATCH", "/api/v1/applications/default", change));
        }
        for more in [
            json!({ "is_default": true }),
            json!({ "key_source": "universal" }),
            json!({ "type": "legacy_sha256" }),
        ] {
            let mut body = json!({ "id": "mine", "name": "Mine" });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all.push(attempt("POST", "/api/v1/applications", body));
        }
        all.extend(resources::attempts(self.server.admin, self.server.public));
        all
    }
}

#[test]
fn no_single_permission_makes_anybody_more() {
    let scene = Scene::new();
    let server = &scene.server;
    server.forbid_in_log("taken over by me");
    let users: Vec<(Key, u64, String)> = PERMISSIONS
        .iter()
        .enumerate()
        .map(|(number, permission)| {
            let name = format!("user{number}");
            let key = server.user_with_permissions(&name, &[permission]);
            let uid = server.site.json(&["user", "show", &name])["uid"].as_u64().unwrap();
            (key, uid, format!("role-of-{name}"))
        })
        .collect();
    let before = records(server);
    for ((key, uid, role), permission) in users.iter().zip(PERMISSIONS) {
        for attempt in scene.attempts(*uid, role) {
            let response = send(server, key, &attempt);
            let Attempt { method, target, body } = &attempt;
            let told = format!("{permission}: {method} {target} {body}: {}", response.body);
            assert_eq!(response.status, 403, "{told}");
            let rule = response.json();
            let rule = rule["detail"].as_str().or(rule["message"].as_str()).unwrap_or_default();
            assert!(rule.len() > 20, "{told}");
        }
        assert_eq!(records(server), before, "{permission}");
    }
}

/// The user entity and the admin API share one rule about administrators.
#[test]
fn both_faces_refuse_the_same_changes_of_an_administrator() {
    let scene = Scene::new();
    let key = scene.server.user_with_permissions("helper", &["administer users"]);
    let statuses = |target: &str| {
        let attempts = scene.attempts_on_accounts(2);
        let attempts = attempts.iter().filter(|attempt| attempt.target == target);
        attempts.map(|attempt| send(&scene.server, &key, attempt).status).collect::<Vec<_>>()
    };
    for target in ["/api/v1/users/1", "/user/1"] {
        let statuses = statuses(target);
        assert!(statuses.len() > 8 && statuses.iter().all(|status| *status == 403), "{statuses:?}");
    }
}
