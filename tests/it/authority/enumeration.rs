//! Without a permission, nobody finds out which accounts, keys and records there are.

use serde_json::json;

use super::Scene;
use crate::harness::{Key, Request, Response};

/// Everything that a client sees, except for the date and the name of the request.
fn seen(response: &Response) -> (u16, Vec<(String, String)>, String) {
    let varies = |name: &String| ["date", "x-request-id"].contains(&name.as_str());
    let headers = response.headers.iter().filter(|(name, _)| !varies(name)).cloned().collect();
    (response.status, headers, response.body.clone())
}

fn send(scene: &Scene, key: Option<&Key>, method: &str, target: &str) -> Response {
    let is_api = target.starts_with("/api/");
    let listener = if is_api { scene.server.admin } else { scene.server.public };
    let mut request = Request::new(listener, method, target);
    if let Some(key) = key {
        request = request.header("API-KEY", &key.credential);
    }
    match method {
        "PATCH" => request.json(&json!({})).send(),
        _ => request.send(),
    }
}

#[test]
fn uniform_application_tells_nothing_about_accounts() {
    let scene = Scene::new();
    let server = &scene.server;
    let none = server.user_with_permissions("none", &[]);
    let cancel = server.user_with_permissions("cancel", &["cancel account"]);
    server.patch_resource(json!({ "authentication": ["*", "anonymous"] }));
    let blocked = server.add_user("blocked", &["--blocked"]);
    let there = [format!("/user/{}", scene.friend), "/user/1".into(), format!("/user/{blocked}")];
    let missing = ["/user/4711", "/user/0", "/user/99999999999999"];
    let all = |key: Option<&Key>, method: &str, query: &str| {
        let targets = there.iter().map(String::as_str).chain(missing);
        let mut seen: Vec<_> = targets
            .map(|target| seen(&send(&scene, key, method, &format!("{target}{query}"))))
            .collect();
        seen.dedup();
        seen
    };
    let exact = all(Some(&none), "GET", "");
    assert_eq!(exact.iter().map(|seen| seen.0).collect::<Vec<_>>(), [403, 404]);
    server.patch_application(json!({ "detail": "uniform" }));
    for key in [None, Some(&none), Some(&cancel)] {
        for method in ["GET", "HEAD", "PATCH", "DELETE"] {
            for query in ["", "?_format=json"] {
                let seen = all(key, method, query);
                assert_eq!(seen.len(), 1, "{method} {query} {seen:?}");
                assert_eq!(seen[0].0, 403, "{method} {query}");
            }
        }
    }
    // A caller with the permission sees who exists, in Drupal's words.
    let reader = server.user_with_permissions("reader", &["access user profiles"]);
    assert_eq!(send(&scene, Some(&reader), "GET", &there[0]).status, 200);
    let response = send(&scene, Some(&reader), "GET", "/user/4711");
    assert_eq!(response.status, 404);
    assert!(response.body.contains("was not converted"), "{}", response.body);
}

#[test]
fn admin_api_tells_nothing_without_the_permission() {
    let scene = Scene::new();
    let none = scene.server.user_with_permissions("none", &[]);
    for (there, missing) in [
        ("/api/v1/users/1", "/api/v1/users/4711"),
        ("/api/v1/users/1/keys", "/api/v1/users/4711/keys"),
        (&*format!("/api/v1/keys/{}", scene.admin_key), "/api/v1/keys/00000000"),
        ("/api/v1/roles/administrator", "/api/v1/roles/none"),
        ("/api/v1/applications/default", "/api/v1/applications/none"),
        ("/api/v1/resources/entity.user", "/api/v1/resources/none"),
    ] {
        for method in ["GET", "HEAD", "PATCH", "DELETE"] {
            let of = |target: &str| seen(&send(&scene, Some(&none), method, target));
            assert_eq!(of(there), of(missing), "{method} {there}");
        }
    }
}
