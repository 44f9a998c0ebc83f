//! Tests of rate limits and credits over HTTP: exact counts, header fields, and every dialect of
//! `/-/verify`.

use std::{sync::Barrier, thread};

use serde_json::json;

use crate::harness::{Key, Response, Server, Site};

/// Sends a request with this key.
fn send(server: &Server, key: &Key) -> Response {
    server.request("GET", "/user/1").header("API-KEY", &key.credential).send()
}

/// The header fields that report limits.
fn limit_headers(response: &Response) -> [Option<&str>; 2] {
    ["ratelimit-policy", "ratelimit"].map(|name| response.header(name))
}

/// The response to a verify request in this dialect.
fn verify(server: &Server, dialect: &str, credential: &str) -> Response {
    let prefix = if dialect == "/nginx" { "Original" } else { "Forwarded" };
    let path = if dialect == "/envoy" { "/-/verify/envoy/user/1" } else { "/-/verify" };
    let path = if path.ends_with("/1") { path.to_owned() } else { format!("{path}{dialect}") };
    let mut request = server.verify_request("GET", &path).header("API-KEY", credential);
    if dialect != "/envoy" {
        request = request
            .header(&format!("X-{prefix}-Method"), "GET")
            .header(&format!("X-{prefix}-URI"), "/user/1")
            .header(&format!("X-{prefix}-Host"), "api.example");
    }
    request.header("X-Forwarded-For", "203.0.113.7").send()
}

#[test]
fn rate_limit_is_reported_and_enforced() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let key = server.generate_key("bob", &["--rate-limit", "2/1h"]);
    let first = send(&server, &key);
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(limit_headers(&first), [Some("\"key\";q=2;w=3600"), Some("\"key\";r=1;t=1800")]);
    assert_eq!(send(&server, &key).header("ratelimit"), Some("\"key\";r=0;t=1800"));
    let third = send(&server, &key);
    assert_eq!((third.status, third.header("content-type")), (429, Some("application/json")));
    let seconds = third.header("retry-after").unwrap();
    assert!((1700..=1800).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
    let description = format!("Too many requests. Try again in {seconds} seconds.");
    third.assert_error(429, "RATE_LIMITED", &description);
    let left = format!("\"key\";r=0;t={seconds}");
    assert_eq!(limit_headers(&third), [Some("\"key\";q=2;w=3600"), Some(left.as_str())]);
    // The limit of one key does not apply to another key of the user.
    let other = server.generate_key("bob", &[]);
    let response = send(&server, &other);
    assert_eq!((response.status, limit_headers(&response)), (200, [None, None]));
    server.wait_for_log("the limit of the key is reached");
}

#[test]
fn every_record_has_its_own_limit_and_all_must_allow_the_request() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let (first, second) =
        (server.generate_key("bob", &[]), server.generate_key("bob", &["--rate-limit", "9/1h"]));
    let run = |args: &[&str]| drop(server.site.json(args));
    run(&["user", "edit", "bob", "--rate-limit", "7/1h burst 4"]);
    run(&["app", "edit", "default", "--rate-limit", "100/1m"]);
    run(&["resource", "edit", "entity.user", "--rate-limit", "5/1h"]);
    let response = send(&server, &second);
    let [policy, left] = limit_headers(&response);
    assert_eq!(
        policy,
        Some(
            "\"key\";q=9;w=3600, \"user\";q=7;w=3600;keyward-burst=4, \"application\";q=100;w=60, \"resource\";q=5;w=3600"
        )
    );
    assert_eq!(
        left,
        Some(
            "\"key\";r=8;t=400, \"user\";r=3;t=515, \"application\";r=99;t=1, \"resource\";r=4;t=720"
        )
    );
    // The user's limit allows three more requests. A request that the user's limit rejects does not
    // count for the limit of the resource.
    let statuses: Vec<u16> = (0..5).map(|_| send(&server, &first).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let response = server.request_as_admin("GET", "/user/1").send();
    assert_eq!(response.status, 200, "the resource has one left: {response:?}");
    assert!(
        response.header("ratelimit").unwrap().ends_with("\"resource\";r=0;t=720"),
        "{response:?}"
    );
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 429);
    // The removal of a limit applies to the next request. A limit that is not changed keeps its
    // count.
    run(&["resource", "edit", "entity.user", "--no-rate-limit"]);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    run(&["user", "edit", "bob", "--timezone", "Europe/Berlin"]);
    assert_eq!(send(&server, &first).status, 429);
    run(&["user", "edit", "bob", "--no-rate-limit"]);
    assert_eq!(send(&server, &first).status, 200);
}

#[test]
fn request_rejected_by_one_limit_does_not_count_for_the_others() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let key = server.generate_key("bob", &["--rate-limit", "9/1h", "--credits", "9/month"]);
    server.site.json(&["resource", "edit", "entity.user", "--rate-limit", "1/1h"]);
    let statuses: Vec<u16> = (0..4).map(|_| send(&server, &key).status).collect();
    assert_eq!(statuses, [200, 429, 429, 429]);
    server.site.json(&["resource", "edit", "entity.user", "--no-rate-limit"]);
    let response = send(&server, &key);
    let left = response.header("ratelimit").unwrap();
    assert!(left.contains("\"key\";r=7;") && left.contains("\"key-credits\";r=7;"), "{left}");
    assert_eq!(server.site.json(&["key", "show", &key.id])["uses"], 2);
}

#[test]
fn application_limit_is_shared_and_exempts_the_admin_api() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let (key, other) = (server.generate_key("bob", &[]), server.generate_key("bob", &[]));
    server.site.json(&["app", "edit", "default", "--rate-limit", "1/1h"]);
    assert_eq!(send(&server, &key).status, 200);
    assert_eq!(send(&server, &other).status, 429);
    // Changes of roles and applications keep the counts of the limits.
    server.site.json(&["role", "add", "new", "--label", "New"]);
    server.site.json(&["app", "edit", "default", "--name", "Renamed"]);
    assert_eq!(send(&server, &other).status, 429);
    for _ in 0..3 {
        assert_eq!(server.admin_api("GET", "/api/v1/me").send().status, 200);
    }
}

#[test]
fn concurrent_requests_never_exceed_the_limit() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let key = server.generate_key("bob", &["--rate-limit", "20/1h", "--credits", "1000/month"]);
    let barrier = Barrier::new(60);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let clients: Vec<_> = (0..60)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    send(&server, &key).status
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|found| **found == status).count();
    assert_eq!((count(200), count(429)), (20, 40), "{statuses:?}");
}

#[test]
fn denied_requests_do_not_count() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    server.patch_resource(json!({ "permissions": { "GET": ["read"] } }));
    let key = server.generate_key("bob", &["--rate-limit", "1/1h"]);
    for _ in 0..3 {
        assert_eq!(send(&server, &key).status, 403, "bob lacks the permission");
    }
    server.patch_resource(json!({ "permissions": null }));
    let response = server.request("GET", "/nowhere").header("API-KEY", &key.credential).send();
    assert_eq!(response.status, 404);
    let request = json!({ "target": "/user/1", "headers": { "API-KEY": key.credential } });
    let explained = server.admin_api("POST", "/api/v1/explain").json(&request).send().body;
    assert!(explained.contains("key: 0 left; 1 in 3600 s"), "{explained}");
    assert_eq!(send(&server, &key).status, 200);
    assert_eq!(send(&server, &key).status, 429);
}

#[test]
fn every_verify_dialect_reports_the_limit() {
    let server = Site::new().with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.1").start();
    server.user_with_permissions("bob", &["access user profiles"]);
    for dialect in ["", "/nginx", "/caddy", "/traefik", "/envoy", "/haproxy"] {
        let key = server.generate_key("bob", &["--rate-limit", "1/1h"]);
        let response = verify(&server, dialect, &key.credential);
        assert_eq!(response.status, 200, "{dialect}: {}", response.body);
        assert_eq!(response.header("ratelimit"), Some("\"key\";r=0;t=3600"), "{dialect}");
        let response = verify(&server, dialect, &key.credential);
        let is_nginx = dialect == "/nginx";
        assert_eq!(response.status, if is_nginx { 403 } else { 429 }, "{dialect}");
        assert_eq!(response.header("x-keyward-status"), is_nginx.then_some("429"), "{dialect}");
        for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(response.header(name).is_some(), "{dialect}: {name}");
        }
        assert!(response.body.contains("RATE_LIMITED"), "{dialect}: {}", response.body);
    }
}

#[test]
fn invalid_limits_are_rejected_with_the_reason() {
    let server = Server::new();
    server.add_user("bob", &[]);
    for (rate, message) in [
        ("0/1m", "A rate allows 1 to 1000000 requests, not 0."),
        ("5/0s", "The time span of a rate is 1s to 366d."),
        ("fast", "\"fast\" is not a rate."),
    ] {
        for target in ["users/1", "applications/default", "resources/entity.user"] {
            let change = json!({ "rate_limit": rate });
            let response =
                server.admin_api("PATCH", &format!("/api/v1/{target}")).json(&change).send();
            let error = &response.json()["errors"][0];
            assert_eq!(response.status, 422, "{target} {rate}");
            assert_eq!(
                (&error["location"], &error["message"]),
                (&json!("rate_limit"), &json!(message))
            );
        }
        for command in
            [["user", "edit", "bob"], ["key", "generate", "bob"], ["app", "edit", "default"]]
        {
            let output = server.site.run(&[command.as_slice(), &["--rate-limit", rate]].concat());
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command:?} {stderr}");
            assert!(stderr.contains(message), "{command:?} {stderr}");
        }
    }
    let response = server
        .admin_api("POST", "/api/v1/users/1/keys")
        .json(&json!({ "credits": "0/day" }))
        .send();
    assert_eq!(response.status, 422);
    assert_eq!(
        response.json()["errors"][0]["message"],
        "A limit has 1 to 1000000000 credits, not 0."
    );
}

#[test]
fn limited_key_cannot_create_a_less_limited_key() {
    let server = Server::new();
    let key = server.user_with_permissions("boss", &["administer users"]);
    let show = |args: &[&str]| server.site.json(&[&["key"], args].concat());
    let changed =
        show(&["edit", &key.id, "--label", "a", "--rate-limit", "10/60s", "--credits", "5/day"]);
    assert_eq!(
        [&changed["label"], &changed["rate_limit"], &changed["credits"]],
        [&json!("a"), &json!("10/1m"), &json!("5/day")]
    );
    let create_key = |body| {
        server.admin_api_as(&key.credential, "POST", "/api/v1/users/1/keys").json(&body).send()
    };
    for less_limited in [
        json!({}),
        json!({ "rate_limit": "11/1m", "credits": "5/day" }),
        json!({ "rate_limit": "10/1m" }),
        json!({ "rate_limit": "10/1m", "credits": "5/week" }),
    ] {
        assert_eq!(create_key(less_limited.clone()).status, 403, "{less_limited}");
    }
    let target = format!("/api/v1/keys/{}", key.id);
    let without_rate = json!({ "rate_limit": null });
    let response =
        server.admin_api_as(&key.credential, "PATCH", &target).json(&without_rate).send();
    assert_eq!(response.status, 403, "{}", response.body);
    let created = server.admin_api_as(&key.credential, "POST", "/api/v1/users/2/keys");
    let created = created.json(&json!({ "rate_limit": "1/1m", "credits": "5/day" })).send();
    assert_eq!(created.status, 201, "{}", created.body);
    server.forbid_key_in_log(created.json()["key"].as_str().unwrap());
    let rotated = show(&["rotate", &key.id]);
    server.forbid_key_in_log(rotated["key"].as_str().unwrap());
    assert_eq!(rotated["rate_limit"], "10/1m", "a rotation keeps the limits");
    let unlimited = show(&["edit", &key.id, "--no-rate-limit", "--no-credits"]);
    assert_eq!([&unlimited["rate_limit"], &unlimited["credits"]], [&json!(null), &json!(null)]);
}

#[test]
fn bulk_generated_keys_get_the_given_limits() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    let limits = ["--rate-limit", "5/1m", "--credits", "7/week"];
    let output = server.site.run(&[args.as_slice(), &limits].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let keys = server.site.json(&["key", "list", "bob"]);
    assert_eq!([&keys[0]["rate_limit"], &keys[0]["credits"]], [&json!("5/1m"), &json!("7/week")]);
}

#[test]
fn credits_are_counted_and_reported() {
    let server = Server::new();
    server.user_with_permissions("bob", &["access user profiles"]);
    let key = server.generate_key("bob", &["--credits", "2/month"]);
    let first = send(&server, &key);
    assert!(first.header("ratelimit").unwrap().starts_with("\"key-credits\";r=1;t="), "{first:?}");
    assert!(first.header("ratelimit-policy").unwrap().starts_with("\"key-credits\";q=2;w=2"));
    assert_eq!(send(&server, &key).status, 200);
    let third = send(&server, &key);
    let seconds = third.header("retry-after").unwrap();
    let description = format!("All credits are used up. They come back in {seconds} seconds.");
    third.assert_error(429, "CREDITS_USED_UP", &description);
    server.site.json(&["key", "edit", &key.id, "--credits", "3/month"]);
    assert_eq!(send(&server, &key).status, 200, "the key has one more credit");
    assert_eq!(send(&server, &key).status, 429);
    server.site.json(&["user", "edit", "bob", "--credits", "1/day"]);
    let other = server.generate_key("bob", &[]);
    assert_eq!(send(&server, &other).status, 200);
    assert_eq!(send(&server, &other).status, 429);
}
