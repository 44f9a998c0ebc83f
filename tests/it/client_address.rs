//! The client of a forwarding proxy: its address counts for key networks, failures, scripts, logs
//! and the audit trail, if the proxy is trusted.

use std::{fs, thread, time::Duration};

use serde_json::json;

use crate::harness::{Request, Response, Server, Site, TIMEOUT, credential};

/// A server that trusts the proxies on this machine, and that counts their clients' failures.
fn site() -> Site {
    Site::new()
        .with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.1")
        .with_env("KEYWARD_LIMITS__FAILURE_EXEMPT", "")
        .with_env("KEYWARD_AUDIT__DENIALS", "all")
}

/// A request that a proxy forwards.
fn forwarded(server: &Server, client: &str) -> Request {
    server.request("GET", "/user/1").header("X-Forwarded-For", client)
}

#[test]
fn network_of_a_key_applies_to_the_client_of_a_trusted_proxy_only() {
    for (trusted, expected) in [("127.0.0.1", [200, 200, 401, 401, 401]), ("", [401; 5])] {
        let server = site().with_env("KEYWARD_SERVER__TRUSTED_PROXIES", trusted).start();
        server.user_with_permissions("ann", &["access user profiles"]);
        let key = server.generate_key("ann", &["--network", "203.0.113.0/24"]).credential;
        let status = |fields: &[(&str, &str)]| {
            let request = server.request("GET", "/user/1").header("API-KEY", &key);
            let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
            fields.iter().fold(request, add).send().status
        };
        let statuses = [
            status(&[("X-Forwarded-For", "198.51.100.1, 203.0.113.7")]),
            status(&[("Forwarded", "for=\"203.0.113.7:5555\"")]),
            status(&[("X-Forwarded-For", "203.0.113.7, 198.51.100.1")]),
            status(&[("X-Real-IP", "203.0.113.7"), ("True-Client-IP", "203.0.113.7")]),
            status(&[]),
        ];
        assert_eq!(statuses, expected, "{trusted:?}");
        server.wait_for_log(if trusted.is_empty() {
            "client=127.0.0.1"
        } else {
            "client=198.51.100.1"
        });
    }
}

#[test]
fn failures_count_for_the_client_and_not_for_the_proxy() {
    let server = site().start();
    server.site.json(&["app", "add", "people", "--type", "basic"]);
    server.add_user("bob", &[]);
    let found = server.admin_api("GET", "/api/v1/users?name=bob").send().json();
    let target = format!("/api/v1/users/{}", found["items"][0]["uid"]);
    let change = json!({ "password": "bob's own password" });
    assert_eq!(server.admin_api("PATCH", &target).json(&change).send().status, 200);
    let log_in = |client: &str, password: &str| -> Response {
        forwarded(&server, client)
            .header("AUTH-METHOD", "people")
            .header("Authorization", format!("Basic {}", credential("bob", password)))
            .send()
    };
    // An address that the client sent through the proxy does not make it another client.
    let guess = |number: u8| log_in(&format!("198.51.100.{number}, 203.0.113.50"), "wrong").status;
    let statuses: Vec<u16> = (0..6).map(guess).collect();
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
    assert_eq!(log_in("203.0.113.51", "wrong").status, 401, "another client");
    assert_eq!(log_in("203.0.113.50", "bob's own password").status, 429);
}

#[test]
fn scripts_and_the_audit_trail_name_the_client() {
    let site = site();
    fs::create_dir_all(site.path().join("scripts")).unwrap();
    let hook = "fn on_request(req) { if req.client != \"127.0.0.1\" { deny(403, \"SEEN\", req.client); } }\n";
    fs::write(site.path().join("scripts/hooks.rhai"), hook).unwrap();
    let server = site.start();
    let response = forwarded(&server, "203.0.113.9").send();
    assert_eq!(
        (response.status, response.body.contains("203.0.113.9")),
        (403, true),
        "{response:?}"
    );
    let deadline = std::time::Instant::now() + TIMEOUT;
    loop {
        let entries = server.site.json(&["audit", "list"]);
        let clients: Vec<_> = entries
            .as_array()
            .unwrap()
            .iter()
            .filter(|entry| entry["action"] == "request.deny")
            .map(|entry| entry["actor"]["client"].clone())
            .collect();
        if !clients.is_empty() {
            assert_eq!(clients, [json!("203.0.113.9")]);
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{entries}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn scheme_of_a_trusted_proxy_is_the_scheme_of_absolute_urls() {
    for (trusted, scheme) in [("127.0.0.1", "https"), ("", "http")] {
        let server = site().with_env("KEYWARD_SERVER__TRUSTED_PROXIES", trusted).start();
        for (field, value, name) in [
            ("X-Forwarded-Proto", "https", "eve"),
            ("Forwarded", "for=203.0.113.7;proto=https", "eva"),
        ] {
            let created = server
                .request_as_admin("POST", "/entity/user")
                .header(field, value)
                .json(&json!({ "name": [{ "value": name }] }))
                .send();
            let location = created.header("location").unwrap();
            let expected = format!("{scheme}://{}/user/", server.public);
            assert!(location.starts_with(&expected), "{field}: {location}");
            let refused = server.request_as_admin("PUT", "/user/1").header(field, value).send();
            assert_eq!(refused.status, 405);
            let url = format!("\\\"PUT {scheme}://");
            assert!(refused.body.contains(&url), "{field}: {}", refused.body);
        }
    }
}

#[test]
fn admin_listener_believes_no_proxy() {
    let server = site().start();
    let key = server.generate_key("admin", &["--network", "203.0.113.0/24"]).credential;
    let asked = server.admin_api_as(&key, "GET", "/api/v1/users");
    assert_eq!(asked.header("X-Forwarded-For", "203.0.113.7").send().status, 401);
}
