//! Faults that were found in public in the module that Keyward replaces. None may ever come back.

use serde_json::json;

use crate::harness::{Server, credential, exchange};

/// CVE-2026-122067: a user for whom no key was ever generated could be entered with an empty key.
#[test]
fn a_user_without_a_key_and_an_empty_key() {
    let server = Server::new();
    server.user("keyless", &[]);
    let applications = [
        ("basic-key", json!({ "header": "Authorization" })),
        ("password", json!({ "type": "basic", "header": "Authorization" })),
        ("bearer", json!({ "type": "bearer", "header": "Authorization" })),
        ("vague", json!({ "detail": "uniform" })),
    ];
    for (id, mut record) in applications {
        record["id"] = json!(id);
        record["name"] = json!(id);
        let made = server.manages("POST", "/api/v1/applications").json(&record).send();
        assert_eq!(made.status, 201, "{}", made.body);
    }
    for secret in
        ["", " ", "\0", "null", "undefined", "0", "false", "[]", "d41d8cd98f00b204e9800998ecf8427e"]
    {
        let value = credential("keyless", secret);
        for id in ["default", "vague"] {
            let asked = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            assert_eq!(asked.header("API-KEY", &value).send().status, 401, "{id} {secret:?}");
        }
        for id in ["basic-key", "password"] {
            let asked = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            let answer = asked.header("Authorization", format!("Basic {value}")).send();
            assert_eq!(answer.status, 401, "{id} {secret:?}");
        }
        let asked = server.request("GET", "/user/1").header("AUTH-METHOD", "bearer");
        let secret = secret.replace('\0', "");
        let answer = asked.header("Authorization", format!("Bearer {secret}")).send();
        assert_eq!(answer.status, 401, "bearer {secret:?}");
    }
}

/// CVE-2026-96385: only URIs that contained `/jsonapi/` or `?_format=` were checked; other spellings went round the check.
#[test]
fn no_spelling_of_a_uri_goes_round_the_check() {
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
            let answer = exchange(server.public, request.as_bytes());
            assert!(
                [400, 401].contains(&answer.status),
                "{method} {target}: {} {}",
                answer.status,
                answer.body
            );
        }
    }
    // The check that the spellings went round was there: the plain one answers who may.
    assert_eq!(server.asks("GET", "/x/%2e%2e/us%65r/1").send().status, 200);
    assert_eq!(server.asks("GET", "/user/1?a=1&_format=json").send().status, 200);
}

/// CVE-2024-13258: blocked users got in with the Basic method.
#[test]
fn a_blocked_user_by_each_method() {
    let server = Server::new();
    let user = json!({ "name": "bob", "password": "correct horse", "roles": ["administrator"] });
    let made = server.manages("POST", "/api/v1/users").json(&user).send();
    assert_eq!(made.status, 201, "{}", made.body);
    let key = server.key("bob", &[]);
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
        let made = server.manages("POST", "/api/v1/applications").json(&record).send();
        assert_eq!(made.status, 201, "{}", made.body);
        let value = match (auth_type, header) {
            ("api_key", "Authorization") => format!("Basic {}", key.credential),
            ("api_key", _) => key.credential.clone(),
            ("basic", _) => format!("Basic {}", credential("bob", "correct horse")),
            (_, "Authorization") => format!("Bearer {}", key.text),
            (_, _) => key.text.clone(),
        };
        let attempt = || {
            let asked = server.request("GET", "/user/1").header("AUTH-METHOD", id);
            asked.header(header, &value).send()
        };
        server.site.json(&["user", "unblock", "bob"]);
        assert_eq!(attempt().status, 200, "{id}: {}", attempt().body);
        server.site.json(&["user", "block", "bob"]);
        match detail {
            "exact" => attempt().refuses(403, "USER_BLOCKED", "The user is blocked or inactive."),
            _ => assert_eq!(attempt().status, 401),
        }
    }
}
