//! Regression tests for published vulnerabilities of the Drupal module that Keyward replaces.

use serde_json::json;

use crate::harness::{Server, credential, exchange};

/// CVE-2026-122067: an empty key was accepted for a user without a generated key.
#[test]
fn an_empty_key_is_rejected_for_a_user_without_keys() {
    let server = Server::new();
    server.add_user("keyless", &[]);
    let applications = [
        ("basic-key", json!({ "header": "Authorization" })),
        ("password", json!({ "type": "basic", "header": "Authorization" })),
        ("bearer", json!({ "type": "bearer", "header": "Authorization" })),
        ("vague", json!({ "detail": "uniform" })),
    ];
    for (id, mut record) in applications {
        record["id"] = json!(id);
        record["name"] = json!(id);
        let created = server.admin_api("POST", "/api/v1/applications").json(&record).send();
        assert_eq!(created.status, 201, "{}", created.body);
    }
    for secret in
        ["", " ", "\0", "null", "undefined", "0", "false", "[]", "d41d8cd98f00b204e9800998ecf8427e"]
    {
        let value = credential("keyless", secret);
        for id in ["default", "vague"] {
            let request = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            assert_eq!(request.header("API-KEY", &value).send().status, 401, "{id} {secret:?}");
        }
        for id in ["basic-key", "password"] {
            let request = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            let response = request.header("Authorization", format!("Basic {value}")).send();
            assert_eq!(response.status, 401, "{id} {secret:?}");
        }
        let request = server.request("GET", "/user/1").header("AUTH-METHOD", "bearer");
        let secret = secret.replace('\0', "");
        let response = request.header("Authorization", format!("Bearer {secret}")).send();
        assert_eq!(response.status, 401, "bearer {secret:?}");
    }
}

/// CVE-2026-96385: only URIs with `/jsonapi/` or `?_format=` were checked, so other spellings of
/// the URI bypassed the check.
#[test]
fn no_spelling_of_a_uri_bypasses_authentication() {
    let server = Server::new();
    let spellings = [
        "/user/1",
        "/user/1?_format=json",
        "/user/1?a=1&_format=json",
        "/user/1?_format=xml",
        "/user/1?_FORMAT=json",
        "/user/1?_format%3Djson",
        "/user/1?%5fformat=json",
        "/user/1?_format[]=json",
        "/user/1?_format=json&_format=html",
        "/user/1?;_format=json",
        "/user/1?",
        "/user/1/",
        "//user/1",
        "/user//1",
        "/./user/1",
        "/x/../user/1",
        "/%2e/user/1",
        "/x/%2e%2e/user/1",
        "/x/.%2E/user/1",
        "/us%65r/1",
        "/u%73er/%31",
        "/USER/1",
        "/user/1%20",
        "/user/1.json",
        "/user/01",
        "/user/+1",
        "/user%2f1",
        "/user%5c1",
        "/user/1;_format=json",
        "/user/1%3b",
        "/user/1%00",
        "/user/%2531",
        "/jsonapi/user/1",
        "/jsonapi/../user/1",
        "/user/1#/jsonapi/",
        "/user/1%23/jsonapi/",
        "/index.php/user/1",
        "/?q=/user/1",
        "/entity/user/1",
        "/../user/1",
        "/user/%c0%b1",
        "/user/%u0031",
        "http://elsewhere.example/user/1",
        "*",
    ];
    for target in spellings {
        for method in
            ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "TRACE", "get", "PROPFIND"]
        {
            let body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
            let request = format!(
                "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{body}",
                server.public
            );
            let response = exchange(server.public, request.as_bytes());
            assert!(
                [400, 401].contains(&response.status),
                "{method} {target}: {} {}",
                response.status,
                response.body
            );
        }
    }
    // Requests with a credential and an unusual spelling of the path are served.
    assert_eq!(server.request_as_admin("GET", "/x/%2e%2e/us%65r/1").send().status, 200);
    assert_eq!(server.request_as_admin("GET", "/user/1?a=1&_format=json").send().status, 200);
}

/// CVE-2024-13258: blocked users could authenticate with the method Basic.
#[test]
fn a_blocked_user_is_rejected_by_each_authentication_method() {
    let server = Server::new();
    let user = json!({ "name": "bob", "password": "correct horse", "roles": ["administrator"] });
    let created = server.admin_api("POST", "/api/v1/users").json(&user).send();
    assert_eq!(created.status, 201, "{}", created.body);
    let key = server.generate_key("bob", &[]);
    for (id, auth_type, header, detail) in [
        ("a", "api_key", "API-KEY", "exact"),
        ("b", "api_key", "Authorization", "exact"),
        ("c", "basic", "Authorization", "exact"),
        ("d", "bearer", "Authorization", "exact"),
        ("e", "bearer", "X-Token", "exact"),
        ("f", "api_key", "API-KEY", "uniform"),
        ("g", "basic", "Authorization", "uniform"),
        ("h", "bearer", "Authorization", "uniform"),
    ] {
        let record =
            json!({ "id": id, "name": id, "type": auth_type, "header": header, "detail": detail });
        let created = server.admin_api("POST", "/api/v1/applications").json(&record).send();
        assert_eq!(created.status, 201, "{}", created.body);
        let value = match (auth_type, header) {
            ("api_key", "Authorization") => format!("Basic {}", key.credential),
            ("api_key", _) => key.credential.clone(),
            ("basic", _) => format!("Basic {}", credential("bob", "correct horse")),
            (_, "Authorization") => format!("Bearer {}", key.text),
            (_, _) => key.text.clone(),
        };
        let attempt = || {
            let request = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            request.header(header, &value).send()
        };
        server.site.json(&["user", "unblock", "bob"]);
        assert_eq!(attempt().status, 200, "{id}: {}", attempt().body);
        server.site.json(&["user", "block", "bob"]);
        match detail {
            "exact" => {
                attempt().assert_error(403, "USER_BLOCKED", "The user is blocked or inactive.")
            }
            _ => assert_eq!(attempt().status, 401),
        }
    }
}
