//! What somebody may take, from the outside: rates and credits, on every face, to the last request.

use std::{sync::Barrier, thread};

use serde_json::json;

use crate::harness::{Answer, Key, Server, Site};

/// A request of a user's key for its own record.
fn ask(server: &Server, key: &Key) -> Answer {
    server.request("GET", "/user/1").header("API-KEY", &key.credential).send()
}

fn pair(answer: &Answer) -> [Option<&str>; 2] {
    ["ratelimit-policy", "ratelimit"].map(|name| answer.header(name))
}

/// What a question in nginx's dialect is answered with, as the client will see it.
fn decide(server: &Server, dialect: &str, credential: &str) -> Answer {
    let kind = if dialect == "/nginx" { "Original" } else { "Forwarded" };
    let path = if dialect == "/envoy" { "/-/verify/envoy/user/1" } else { "/-/verify" };
    let path = if path.ends_with("/1") { path.to_owned() } else { format!("{path}{dialect}") };
    let mut request = server.request("GET", &path).header("API-KEY", credential);
    if dialect != "/envoy" {
        request = request
            .header(&format!("X-{kind}-Method"), "GET")
            .header(&format!("X-{kind}-URI"), "/user/1");
    }
    request.header("X-Forwarded-For", "203.0.113.7").send()
}

#[test]
fn a_limit_is_told_and_then_kept() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let key = server.key("bob", &["--rate-limit", "2/1h"]);
    let first = ask(&server, &key);
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(pair(&first), [Some("\"key\";q=2;w=3600"), Some("\"key\";r=1;t=1800")]);
    assert_eq!(ask(&server, &key).header("ratelimit"), Some("\"key\";r=0;t=1800"));
    let third = ask(&server, &key);
    assert_eq!((third.status, third.header("content-type")), (429, Some("application/json")));
    let seconds = third.header("retry-after").unwrap();
    assert!((1700..=1800).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
    let said = format!("Too many requests. Try again in {seconds} seconds.");
    third.refuses(429, "RATE_LIMITED", &said);
    let left = format!("\"key\";r=0;t={seconds}");
    assert_eq!(pair(&third), [Some("\"key\";q=2;w=3600"), Some(left.as_str())]);
    // Another key of the same user is another key.
    let other = server.key("bob", &[]);
    let answer = ask(&server, &other);
    assert_eq!((answer.status, pair(&answer)), (200, [None, None]));
    server.tells("the limit of the key is reached");
}

#[test]
fn each_record_has_its_own_limit_and_the_narrowest_counts() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let (first, second) = (server.key("bob", &[]), server.key("bob", &["--rate-limit", "9/1h"]));
    let run = |args: &[&str]| drop(server.site.json(args));
    run(&["user", "edit", "bob", "--rate-limit", "7/1h burst 4"]);
    run(&["app", "edit", "default", "--rate-limit", "100/1m"]);
    run(&["resource", "edit", "entity.user", "--rate-limit", "5/1h"]);
    let answer = ask(&server, &second);
    let [policy, left] = pair(&answer);
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
    // Three more are the user's last; what the user's limit refuses, the resource's does not lose.
    let statuses: Vec<u16> = (0..5).map(|_| ask(&server, &first).status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let answer = server.asks("GET", "/user/1").send();
    assert_eq!(answer.status, 200, "the resource has one left: {answer:?}");
    assert!(answer.header("ratelimit").unwrap().ends_with("\"resource\";r=0;t=720"), "{answer:?}");
    assert_eq!(server.asks("GET", "/user/1").send().status, 429);
    // A limit that goes is gone at once; one that stays is still used up.
    run(&["resource", "edit", "entity.user", "--no-rate-limit"]);
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
    run(&["user", "edit", "bob", "--timezone", "Europe/Berlin"]);
    assert_eq!(ask(&server, &first).status, 429);
    run(&["user", "edit", "bob", "--no-rate-limit"]);
    assert_eq!(ask(&server, &first).status, 200);
}

#[test]
fn what_one_limit_refuses_is_given_back_to_the_others() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let key = server.key("bob", &["--rate-limit", "9/1h", "--credits", "9/month"]);
    server.site.json(&["resource", "edit", "entity.user", "--rate-limit", "1/1h"]);
    let statuses: Vec<u16> = (0..4).map(|_| ask(&server, &key).status).collect();
    assert_eq!(statuses, [200, 429, 429, 429]);
    server.site.json(&["resource", "edit", "entity.user", "--no-rate-limit"]);
    let answer = ask(&server, &key);
    let left = answer.header("ratelimit").unwrap();
    assert!(left.contains("\"key\";r=7;") && left.contains("\"key-credits\";r=7;"), "{left}");
    assert_eq!(server.site.json(&["key", "show", &key.id])["uses"], 2);
}

#[test]
fn an_application_is_limited_for_all_and_never_for_administrators() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let (key, other) = (server.key("bob", &[]), server.key("bob", &[]));
    server.site.json(&["app", "edit", "default", "--rate-limit", "1/1h"]);
    assert_eq!(ask(&server, &key).status, 200);
    assert_eq!(ask(&server, &other).status, 429);
    // A policy that is compiled anew forgets nothing.
    server.site.json(&["role", "add", "new", "--label", "New"]);
    server.site.json(&["app", "edit", "default", "--name", "Renamed"]);
    assert_eq!(ask(&server, &other).status, 429);
    for _ in 0..3 {
        assert_eq!(server.manages("GET", "/api/v1/me").send().status, 200);
    }
}

#[test]
fn many_at_once_get_exactly_what_there_is() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let key = server.key("bob", &["--rate-limit", "20/1h", "--credits", "1000/month"]);
    let barrier = Barrier::new(60);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asking: Vec<_> = (0..60)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    ask(&server, &key).status
                })
            })
            .collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let count = |status| statuses.iter().filter(|one| **one == status).count();
    assert_eq!((count(200), count(429)), (20, 40), "{statuses:?}");
}

#[test]
fn what_is_refused_for_another_reason_costs_nothing() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    server.resource(json!({ "permissions": { "GET": ["read"] } }));
    let key = server.key("bob", &["--rate-limit", "1/1h"]);
    for _ in 0..3 {
        assert_eq!(ask(&server, &key).status, 403, "bob may not");
    }
    server.resource(json!({ "permissions": null }));
    let answer = server.request("GET", "/nowhere").header("API-KEY", &key.credential).send();
    assert_eq!(answer.status, 404);
    let asked = json!({ "target": "/user/1", "headers": { "API-KEY": key.credential } });
    let explained = server.manages("POST", "/api/v1/explain").json(&asked).send().body;
    assert!(explained.contains("key: 0 are left; 1 in 3600 s"), "{explained}");
    assert_eq!(ask(&server, &key).status, 200);
    assert_eq!(ask(&server, &key).status, 429);
}

#[test]
fn every_dialect_carries_it() {
    let server = Site::new().with("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.1").start();
    server.user_with("bob", &["access user profiles"]);
    for dialect in ["", "/nginx", "/caddy", "/traefik", "/envoy", "/haproxy"] {
        let key = server.key("bob", &["--rate-limit", "1/1h"]);
        let answer = decide(&server, dialect, &key.credential);
        assert_eq!(answer.status, 200, "{dialect}: {}", answer.body);
        assert_eq!(answer.header("ratelimit"), Some("\"key\";r=0;t=3600"), "{dialect}");
        let answer = decide(&server, dialect, &key.credential);
        let is_nginx = dialect == "/nginx";
        assert_eq!(answer.status, if is_nginx { 403 } else { 429 }, "{dialect}");
        assert_eq!(answer.header("x-keyward-status"), is_nginx.then_some("429"), "{dialect}");
        for name in ["retry-after", "ratelimit", "ratelimit-policy"] {
            assert!(answer.header(name).is_some(), "{dialect}: {name}");
        }
        assert!(answer.body.contains("RATE_LIMITED"), "{dialect}: {}", answer.body);
    }
}

#[test]
fn a_limit_of_nothing_is_refused_with_the_reason() {
    let server = Server::new();
    server.user("bob", &[]);
    for (rate, says) in [
        ("0/1m", "A rate allows 1 to 1000000 requests, not 0."),
        ("5/0s", "A rate is counted in a time of 1s to 366d."),
        ("fast", "\"fast\" is not a rate."),
    ] {
        for target in ["users/1", "applications/default", "resources/entity.user"] {
            let change = json!({ "rate_limit": rate });
            let answer = server.manages("PATCH", &format!("/api/v1/{target}")).json(&change).send();
            let error = &answer.json()["errors"][0];
            assert_eq!(answer.status, 422, "{target} {rate}");
            assert_eq!(
                (&error["location"], &error["message"]),
                (&json!("rate_limit"), &json!(says))
            );
        }
        for command in
            [["user", "edit", "bob"], ["key", "generate", "bob"], ["app", "edit", "default"]]
        {
            let output = server.site.run(&[command.as_slice(), &["--rate-limit", rate]].concat());
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{command:?} {told}");
            assert!(told.contains(says), "{command:?} {told}");
        }
    }
    let answer =
        server.manages("POST", "/api/v1/users/1/keys").json(&json!({ "credits": "0/day" })).send();
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["errors"][0]["message"], "There are 1 to 1000000000 credits, not 0.");
}

#[test]
fn a_key_can_be_limited_later_and_makes_none_that_is_bound_less() {
    let server = Server::new();
    let key = server.user_with("boss", &["administer users"]);
    let show = |args: &[&str]| server.site.json(&[&["key"], args].concat());
    let changed =
        show(&["edit", &key.id, "--label", "a", "--rate-limit", "10/60s", "--credits", "5/day"]);
    assert_eq!(
        [&changed["label"], &changed["rate_limit"], &changed["credits"]],
        [&json!("a"), &json!("10/1m"), &json!("5/day")]
    );
    let asks = |body| {
        server.manages_as(&key.credential, "POST", "/api/v1/users/1/keys").json(&body).send()
    };
    for free in [
        json!({}),
        json!({ "rate_limit": "11/1m", "credits": "5/day" }),
        json!({ "rate_limit": "10/1m" }),
        json!({ "rate_limit": "10/1m", "credits": "5/week" }),
    ] {
        assert_eq!(asks(free.clone()).status, 403, "{free}");
    }
    let target = format!("/api/v1/keys/{}", key.id);
    let loosen = json!({ "rate_limit": null });
    let answer = server.manages_as(&key.credential, "PATCH", &target).json(&loosen).send();
    assert_eq!(answer.status, 403, "{}", answer.body);
    let made = server.manages_as(&key.credential, "POST", "/api/v1/users/2/keys");
    let made = made.json(&json!({ "rate_limit": "1/1m", "credits": "5/day" })).send();
    assert_eq!(made.status, 201, "{}", made.body);
    server.hide_key(made.json()["key"].as_str().unwrap());
    let rotated = show(&["rotate", &key.id]);
    server.hide_key(rotated["key"].as_str().unwrap());
    assert_eq!(rotated["rate_limit"], "10/1m", "a rotation keeps the limits");
    let free = show(&["edit", &key.id, "--no-rate-limit", "--no-credits"]);
    assert_eq!([&free["rate_limit"], &free["credits"]], [&json!(null), &json!(null)]);
}

#[test]
fn keys_that_are_made_for_all_have_their_limits() {
    let server = Server::new();
    server.user("bob", &[]);
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    let limits = ["--rate-limit", "5/1m", "--credits", "7/week"];
    let output = server.site.run(&[args.as_slice(), &limits].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let keys = server.site.json(&["key", "list", "bob"]);
    assert_eq!([&keys[0]["rate_limit"], &keys[0]["credits"]], [&json!("5/1m"), &json!("7/week")]);
}

#[test]
fn credits_are_used_up() {
    let server = Server::new();
    server.user_with("bob", &["access user profiles"]);
    let key = server.key("bob", &["--credits", "2/month"]);
    let first = ask(&server, &key);
    assert!(first.header("ratelimit").unwrap().starts_with("\"key-credits\";r=1;t="), "{first:?}");
    assert!(first.header("ratelimit-policy").unwrap().starts_with("\"key-credits\";q=2;w=2"));
    assert_eq!(ask(&server, &key).status, 200);
    let third = ask(&server, &key);
    let seconds = third.header("retry-after").unwrap();
    let said = format!("All credits are used up. They come back in {seconds} seconds.");
    third.refuses(429, "CREDITS_USED_UP", &said);
    server.site.json(&["key", "edit", &key.id, "--credits", "3/month"]);
    assert_eq!(ask(&server, &key).status, 200, "one more was given");
    assert_eq!(ask(&server, &key).status, 429);
    server.site.json(&["user", "edit", "bob", "--credits", "1/day"]);
    let other = server.key("bob", &[]);
    assert_eq!(ask(&server, &other).status, 200);
    assert_eq!(ask(&server, &other).status, 429);
}
