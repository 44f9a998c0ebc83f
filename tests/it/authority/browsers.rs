//! Pages of strangers cannot use the admin API through an administrator's browser, which adds the
//! credential of HTTP Basic to each request.

use serde_json::json;

use crate::harness::{Request, Server, Site};

/// A request with the credential that a browser remembers.
fn request(server: &Server, method: &str, target: &str) -> Request {
    let basic = format!("Basic {}", server.admin_credential());
    let listener = if target.starts_with("/api/") { server.admin } else { server.public };
    Request::new(listener, method, target).header("Authorization", basic)
}

fn server() -> Server {
    let server = Server::new();
    server.patch_application(json!({ "header": "Authorization" }));
    server
}

#[test]
fn cross_site_requests_change_nothing() {
    let server = server();
    let key = server.generate_key("admin", &[]);
    let revoke = format!("/api/v1/keys/{}/revoke", key.id);
    let own = format!("http://{}", server.admin);
    for target in [revoke.as_str(), "/api/v1/scripts/reload", "/api/v1/me/keys"] {
        for (field, value) in [
            ("Origin", "http://evil.example"),
            ("Origin", "null"),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
        ] {
            let sent = request(&server, "POST", target).header(field, value).json(&json!({}));
            let response = sent.send();
            assert_eq!(response.status, 403, "{target} {field}: {value} {}", response.body);
            assert_eq!(response.header("content-type"), Some("application/problem+json"));
        }
        for form in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"] {
            let sent = request(&server, "POST", target).header("Content-Type", form);
            assert_eq!(sent.body("").send().status, 415, "{target} {form}");
            let sent = request(&server, "POST", target).header("Content-Type", form);
            assert_eq!(sent.body("a=b").send().status, 415, "{target} {form}");
        }
        let untyped = request(&server, "POST", target).body("a=b").send();
        assert_eq!(untyped.status, 415, "{target}");
    }
    for method in ["PATCH", "DELETE"] {
        let target = format!("/api/v1/users/{}", server.add_user(&method.to_lowercase(), &[]));
        let sent = request(&server, method, &target).header("Origin", "http://evil.example");
        assert_eq!(sent.json(&json!({ "label": "x" })).send().status, 403, "{method}");
    }
    assert_eq!(server.site.json(&["key", "show", &key.id])["state"], "active");
    // The page of the listener itself, a typed address, and programs are allowed.
    for (field, value) in
        [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "none")]
    {
        let sent = request(&server, "POST", "/api/v1/scripts/reload").header(field, value).send();
        assert_eq!(sent.status, 200, "{field}: {value} {}", sent.body);
    }
    assert_eq!(request(&server, "POST", &revoke).send().status, 200);
}

#[test]
fn admin_listener_responds_to_its_own_names_only() {
    let site = Site::new().with_env("KEYWARD_ADMIN__NAMES", "admin.example, 192.0.2.9");
    let server = site.start();
    let status = |method: &str, target: &str, host: &str| {
        let text = format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\nAPI-KEY: {}\r\nConnection: close\r\n\r\n",
            server.admin_credential()
        );
        crate::harness::exchange(server.admin, text.as_bytes()).status
    };
    let port = server.admin.port();
    for host in ["localhost", "127.0.0.1", "admin.example", "ADMIN.example:443", "192.0.2.9"] {
        assert_eq!(status("GET", "/api/v1/users", host), 200, "{host}");
    }
    for host in ["evil.example", "192.0.2.7", "localhost.evil.example"] {
        let host = format!("{host}:{port}");
        for method in ["GET", "HEAD", "POST", "DELETE"] {
            assert_eq!(status(method, "/api/v1/users", &host), 421, "{method} {host}");
        }
        // Probes of supervisors use any address.
        assert_eq!(status("GET", "/health/alive", &host), 200);
        assert_eq!(status("GET", "/health/ready", &host), 200);
    }
    assert_eq!(status("GET", "/api/v1/users", &server.admin.to_string()), 200);
}

/// On the public listener, the user entity takes no body that a form can send.
#[test]
fn user_entity_takes_no_form_of_a_page() {
    let server = server();
    for (method, target) in [("POST", "/entity/user"), ("PATCH", "/user/1")] {
        for form in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"] {
            let sent = request(&server, method, target).header("Content-Type", form);
            let response = sent.body(r#"{"name":["eve"],"timezone":["UTC"]}"#).send();
            assert_eq!(response.status, 415, "{method} {form} {}", response.body);
        }
        let untyped = request(&server, method, target).body(r#"{"name":["eve"]}"#).send();
        assert_eq!(untyped.status, 415, "{method} {}", untyped.body);
    }
    let users = server.site.json(&["user", "list"]);
    assert_eq!(users.as_array().unwrap().len(), 1);
}
