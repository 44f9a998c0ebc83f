//! Resources of a user who has `administer rest resources` and is not an administrator.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Attempt, Scene, attempt, records, resource, send};

/// A resource with the handler `proxy` at a free path.
fn proxy(id: &str, upstream: &str) -> Value {
    let path = format!("/free/{id}/{{*rest}}");
    resource(id, "proxy", json!({ "path": path, "proxy": { "upstreams": [upstream] } }))
}

/// Resources that would take the requests of others, or lead into the machine.
pub(super) fn attempts(admin: SocketAddr, public: SocketAddr) -> Vec<Attempt> {
    let post = |body: Value| attempt("POST", "/api/v1/resources", body);
    let mut all = Vec::new();
    for path in [
        "/user/{uid}",
        "/user/1",
        "/user/{*rest}",
        "/entity/user",
        "/{*rest}",
        "/{a}/{b}",
        "/me",
        "/health/ready",
    ] {
        for host in [json!(null), json!("127.0.0.1"), json!("api.example")] {
            let more = json!({ "path": path, "host": host, "respond": { "body": "mine" } });
            all.push(post(resource("evil", "respond", more)));
        }
    }
    let mut keeps = proxy("evil", "http://192.0.2.7:80");
    keeps["proxy"]["keep_credential"] = json!(true);
    all.push(post(keeps));
    all.push(post(resource("evil", "entity:user", json!({ "host": "127.0.0.1" }))));
    let upstreams = [
        format!("http://{admin}"),
        format!("http://{public}"),
        format!("http://localhost:{}", admin.port()),
        format!("http://LOCALHOST.:{}", admin.port()),
        format!("http://[::1]:{}", admin.port()),
        format!("http://[::ffff:127.0.0.1]:{}", admin.port()),
        format!("http://0.0.0.0:{}", admin.port()),
        format!("http://2130706433:{}", admin.port()),
        "http://169.254.169.254".into(),
        "http://[fe80::1]".into(),
        "http://metadata.google.internal".into(),
        "http://224.0.0.1".into(),
    ];
    all.extend(upstreams.iter().map(|upstream| post(proxy("evil", upstream))));
    let entity = "/api/v1/resources/entity.user";
    for change in [
        json!({ "authentication": ["anonymous"] }),
        json!({ "enabled": false }),
        json!({ "host": "api.example" }),
        json!({ "permission": "script" }),
        json!({ "rate_limit": null, "methods": ["GET"] }),
    ] {
        all.push(attempt("PATCH", entity, change));
    }
    all.push(attempt("DELETE", entity, Value::Null));
    all
}

#[test]
fn resources_of_administrators_stay_as_they_are() {
    let scene = Scene::new();
    let server = &scene.server;
    let key = server.user_with_permissions("res", &["administer rest resources"]);
    let reports = json!({ "path": "/reports/{*rest}", "permissions": { "GET": ["read reports"] },
        "proxy": { "upstreams": ["http://192.0.2.9:8000"] } });
    let reports = resource("reports", "proxy", reports);
    assert_eq!(server.admin_api("POST", "/api/v1/resources").json(&reports).send().status, 201);
    let before = records(server);
    let path = "/api/v1/resources/reports";
    for change in [
        json!({ "permissions": {} }),
        json!({ "authentication": ["*", "anonymous"] }),
        json!({ "methods": ["GET", "DELETE"] }),
        json!({ "path": "/{*rest}" }),
        json!({ "proxy": { "upstreams": ["http://192.0.2.1"] } }),
        json!({ "proxy": { "keep_credential": true } }),
        json!({ "enabled": false }),
        json!({ "rate_limit": "1/1s" }),
    ] {
        let response = send(server, &key, &attempt("PATCH", path, change.clone()));
        assert_eq!(response.status, 403, "{change}: {}", response.body);
        let detail = response.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("Only an administrator can change or delete"), "{detail}");
    }
    assert_eq!(send(server, &key, &attempt("DELETE", path, Value::Null)).status, 403);
    // Neither is the upstream open under another path, nor the path under another host.
    let mut other = proxy("other", "http://192.0.2.9:8000/base");
    other["authentication"] = json!(["anonymous"]);
    let shadow = json!({ "path": "/reports/secret", "host": "api.example" });
    for (body, rule) in [
        (other, "to which the resource reports forwards"),
        (resource("shadow", "respond", shadow), "from the resource reports"),
    ] {
        let response = send(server, &key, &attempt("POST", "/api/v1/resources", body));
        assert_eq!(response.status, 403, "{}", response.body);
        assert!(response.body.contains(rule), "{}", response.body);
    }
    assert_eq!(records(server), before);
}

#[test]
fn lesser_administrators_manage_the_resources_that_they_added() {
    let scene = Scene::new();
    let server = &scene.server;
    let key = server.user_with_permissions("res", &["administer rest resources"]);
    let post = |body: Value| send(server, &key, &attempt("POST", "/api/v1/resources", body));
    let patch = |id: &str, change: Value| {
        send(server, &key, &attempt("PATCH", format!("/api/v1/resources/{id}"), change))
    };
    let response = post(proxy("mine", "http://192.0.2.7:8000"));
    assert_eq!(response.status, 201, "{}", response.body);
    assert_eq!(patch("mine", json!({ "methods": ["GET", "POST"] })).status, 200);
    // The rules hold for each change, and for enabling a resource that was added disabled.
    for change in [
        json!({ "proxy": { "upstreams": ["http://127.0.0.1:1"] } }),
        json!({ "proxy": { "keep_credential": true } }),
        json!({ "path": "/user/{uid}" }),
        json!({ "handler": "entity:user", "path": null, "proxy": null }),
    ] {
        assert_eq!(patch("mine", change.clone()).status, 403, "{change}");
    }
    let mut disabled = proxy("off", "http://127.0.0.1:1");
    disabled["enabled"] = json!(false);
    assert_eq!(post(disabled).status, 403);
    // A resource that an administrator has changed is the administrator's.
    let label = json!({ "rate_limit": "100/1s" });
    let path = "/api/v1/resources/mine";
    assert_eq!(server.admin_api("PATCH", path).json(&label).send().status, 200);
    assert_eq!(patch("mine", json!({ "rate_limit": null })).status, 403);
    assert_eq!(send(server, &key, &attempt("DELETE", path, Value::Null)).status, 403);
    assert_eq!(server.admin_api("DELETE", path).send().status, 204);
    // After the deletion the user may add the resource again, and delete it.
    assert_eq!(post(proxy("mine", "http://192.0.2.7:8000")).status, 201);
    // Nor does another user with the permission own it.
    let other = server.user_with_permissions("rest", &["administer rest resources"]);
    assert_eq!(send(server, &other, &attempt("DELETE", path, Value::Null)).status, 403);
    assert_eq!(send(server, &key, &attempt("DELETE", path, Value::Null)).status, 204);
    // A state file that mentions the resource takes it over too.
    assert_eq!(post(proxy("mine", "http://192.0.2.7:8000")).status, 201);
    let exported = server.admin_api("GET", "/api/v1/state").send().body;
    let changed = exported.replace("http://192.0.2.7:8000", "http://192.0.2.8:8000");
    let applied = server.admin_api("POST", "/api/v1/state");
    let applied = applied.header("Content-Type", "application/toml").body(changed).send();
    assert_eq!(applied.status, 200, "{}", applied.body);
    assert_eq!(send(server, &key, &attempt("DELETE", path, Value::Null)).status, 403);
}
