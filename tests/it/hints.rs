//! Tests of `X-Keyward-Hint`: what the application wants, and what the request has instead.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::harness::{Request, Response, Server, credential};

/// Header fields of a client that was set up wrongly, and a part of the hint that it gets.
fn mistakes(server: &Server) -> Vec<(Vec<(&'static str, String)>, &'static str)> {
    let key = &server.key;
    let damaged = format!("{}{}", &key[..47], if key.ends_with('x') { 'y' } else { 'x' });
    vec![
        (vec![], "WWW-Authenticate"),
        (vec![("Authorization", format!("Bearer {key}"))], "Authorization: Bearer"),
        (
            vec![("Authorization", format!("Basic {}", credential("admin", key)))],
            "Authorization: Basic",
        ),
        (vec![("X-API-Key", key.clone())], "another header field"),
        (vec![("API-KEY", key.clone())], "the key alone"),
        (vec![("API-KEY", format!("admin:{key}"))], "clear text"),
        (vec![("API-KEY", STANDARD.encode(format!("admin:{key}\n")))], "echo adds"),
        (vec![("API-KEY", STANDARD.encode(key))], "no user name"),
        (vec![("API-KEY", credential("amdin", key))], "check its spelling"),
        (vec![("API-KEY", credential("admin", &damaged))], "checksum"),
    ]
}

/// The request on each face that a client can reach.
fn faces(server: &Server) -> Vec<Request> {
    let verify = |path: &str| {
        let request = server.verify_request("GET", path);
        ["X-Forwarded-Proto", "X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host"]
            .into_iter()
            .zip(["http", "GET", "/user/1", "api.example"])
            .fold(request, |request, (name, value)| request.header(name, value))
            .header("X-Forwarded-For", "203.0.113.7")
    };
    vec![
        server.request("GET", "/user/1"),
        Request::new(server.admin, "GET", "/api/v1/users"),
        verify("/-/verify"),
        verify("/-/verify/caddy"),
        verify("/-/verify/traefik"),
        verify("/-/verify/haproxy"),
    ]
}

fn send(request: Request, fields: &[(&str, String)]) -> Response {
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

#[test]
fn hint_names_the_mistake_on_every_face() {
    let server = Server::new();
    for (fields, part) in mistakes(&server) {
        for request in faces(&server) {
            let response = send(request, &fields);
            assert!([401, 404].contains(&response.status), "{fields:?}: {}", response.status);
            let hint = response.header("x-keyward-hint").unwrap_or_default();
            assert!(hint.contains(part), "{fields:?}: {hint}");
            // A hint repeats nothing of the request: neither a key nor a name.
            assert!(!hint.contains(&server.key[12..]) && !hint.contains("amdin"), "{hint}");
            // Clients compare the body as text.
            assert!(!response.body.contains("hint"), "{}", response.body);
        }
    }
}

#[test]
fn uniform_application_sends_no_hint() {
    let server = Server::new();
    server.patch_application(json!({ "detail": "uniform" }));
    for (fields, _) in mistakes(&server) {
        for request in faces(&server) {
            let response = send(request, &fields);
            assert_eq!(response.status, 401, "{fields:?}");
            assert_eq!(response.header("x-keyward-hint"), None, "{fields:?}");
        }
    }
}

#[test]
fn wrong_checksum_is_a_wrong_key() {
    let server = Server::new();
    let mistyped =
        format!("{}{}", &server.key[..47], if server.key.ends_with('x') { 'y' } else { 'x' });
    server.site.json(&["app", "add", "token", "--type", "bearer"]);
    let message = "Sorry, you are using an invalid API Key.";
    for detail in ["exact", "uniform"] {
        server.site.json(&["app", "edit", "default", "--detail", detail]);
        // No look-up: the response is the same for a name that does not exist.
        for user in ["admin", "nobody"] {
            let value = credential(user, &mistyped);
            let response = server.request("GET", "/user/1").header("API-KEY", value).send();
            response.assert_error(401, "AUTHENTICATION_FAILED", message);
        }
    }
    let bearer = server.request("GET", "/user/1").header("AUTH-METHOD", "token");
    let response = bearer.header("Authorization", format!("Bearer {mistyped}")).send();
    response.assert_error(401, "AUTHENTICATION_FAILED", message);
}

#[test]
fn key_in_the_form_of_another_application_is_recognised() {
    let server = Server::new();
    server.site.json(&["app", "add", "token", "--type", "bearer"]);
    server.site.json(&["app", "add", "web", "--type", "basic"]);
    let bound = server.site.json(&["key", "generate", "admin", "--application", "token"]);
    let bound = bound["key"].as_str().unwrap();
    let key = &server.key;
    for (id, header, value, part) in [
        ("token", "Authorization", format!("Bearer {}", credential("admin", key)), "in base64"),
        ("token", "Authorization", format!("Bearer admin:{key}"), "before the key"),
        ("token", "Authorization", format!("Basic {}", credential("admin", key)), "Bearer KEY"),
        ("token", "API-KEY", credential("admin", key), "another application"),
        ("web", "Authorization", format!("Basic {}", credential("admin", key)), "API key where"),
        ("default", "API-KEY", credential("admin", bound), "Another application accepts"),
    ] {
        let request = server.request("GET", "/user/1").header("AUTH-METHOD", id);
        let response = request.header(header, value).send();
        assert_eq!(response.status, 401, "{id} {part}");
        let hint = response.header("x-keyward-hint").unwrap_or_default();
        assert!(hint.contains(part), "{id}: {hint}");
    }
}
