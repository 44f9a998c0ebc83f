//! Flood control, from the outside: who is wrong too often is told to wait, and keeps nobody else out.

use serde_json::json;

use crate::harness::{Answer, Server, Site, credential};

/// A server that counts the failures of this machine, with a user `bob` who has a password and a key, and an application for each.
fn server(variables: &[(&str, &str)]) -> Server {
    let mut site = Site::new().with("KEYWARD_LIMITS__FAILURE_EXEMPT", "");
    for (name, value) in variables {
        site = site.with(&format!("KEYWARD_LIMITS__{name}"), value);
    }
    let server = site.start();
    server.site.json(&["role", "edit", "authenticated", "--grant", "access user profiles"]);
    for name in ["bob", "eve"] {
        server.user(name, &[]);
        let found = server.manages("GET", &format!("/api/v1/users?name={name}")).send().json();
        let target = format!("/api/v1/users/{}", found["items"][0]["uid"]);
        let change = json!({ "password": format!("{name}'s own password") });
        assert_eq!(server.manages("PATCH", &target).json(&change).send().status, 200);
    }
    server.site.json(&["app", "add", "people", "--type", "basic"]);
    server
}

fn log_in(server: &Server, name: &str, password: &str) -> Answer {
    let header = format!("Basic {}", credential(name, password));
    server
        .request("GET", "/user/1")
        .header("AUTH-METHOD", "people")
        .header("Authorization", header)
        .send()
}

/// The same, asked about by a proxy whose client has this address.
fn log_in_from(server: &Server, client: &str, name: &str, password: &str) -> Answer {
    let header = format!("Basic {}", credential(name, password));
    server
        .request("GET", "/-/verify")
        .header("AUTH-METHOD", "people")
        .header("Authorization", header)
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", "/user/1")
        .header("X-Forwarded-For", client)
        .send()
}

#[test]
fn five_wrong_passwords_keep_out_their_sender_and_nobody_else() {
    let server = server(&[]);
    let key = server.key("bob", &[]);
    for _ in 0..5 {
        let answer = log_in(&server, "bob", "wrong");
        answer.refuses(401, "INVALID_CREDENTIALS", "Invalid username or password");
    }
    for password in ["wrong", "bob's own password"] {
        let answer = log_in(&server, "bob", password);
        let seconds = answer.header("retry-after").unwrap().to_owned();
        assert!((100..=180).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
        let said = format!("Too many failed attempts. Try again in {seconds} seconds.");
        answer.refuses(429, "TOO_MANY_FAILURES", &said);
    }
    // Another user, the user's key, and the user elsewhere are let in.
    assert_eq!(log_in(&server, "eve", "eve's own password").status, 200);
    let by_key = server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
    assert_eq!(by_key.status, 200);
    assert_eq!(log_in_from(&server, "203.0.113.7", "bob", "bob's own password").status, 200);
    // In the admin API it is a problem like any other, and counts alike.
    let admin = server.manages_as("", "GET", "/api/v1/me").header("AUTH-METHOD", "people");
    let header = format!("Basic {}", credential("bob", "bob's own password"));
    let answer = admin.header("Authorization", header).send();
    assert_eq!(answer.json()["type"], "urn:keyward:problem:too-many-failures", "{answer:?}");
    server.tells("this one was not looked at");
}

#[test]
fn the_address_is_the_one_that_a_trusted_proxy_tells() {
    let server = server(&[]);
    for _ in 0..5 {
        assert_eq!(log_in_from(&server, "203.0.113.7", "bob", "wrong").status, 401);
    }
    let right = |client| log_in_from(&server, client, "bob", "bob's own password").status;
    assert_eq!(
        [right("203.0.113.7"), right("203.0.113.8"), right("::ffff:203.0.113.7")],
        [429, 200, 429]
    );
    // Whoever has an IPv6 address has all of its network.
    for at in 1..=5 {
        let client = format!("2001:db8:0:1::{at}");
        assert_eq!(log_in_from(&server, &client, "bob", "wrong").status, 401);
    }
    assert_eq!([right("2001:db8:0:1:ffff::9"), right("2001:db8:0:2::1")], [429, 200]);
}

#[test]
fn a_right_key_passes_from_an_address_that_is_flooded() {
    let server = server(&[("FAILURES_PER_ADDRESS", "3")]);
    let key = server.key("bob", &[]);
    let wrong = credential("bob", "kw_00000000_000000000000000000000000000000000000");
    let ask =
        |credential: &str| server.request("GET", "/user/1").header("API-KEY", credential).send();
    // Each in its own way, and one without any credential, which is no failure.
    let failures = [&wrong, &credential("nobody", "x"), &credential("bob", "x")];
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    let statuses = failures.map(|one| ask(one).status);
    assert_eq!(statuses, [401, 404, 401]);
    for one in failures {
        let answer = ask(one);
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (429, Some("TOO_MANY_FAILURES"))
        );
        assert!(answer.header("retry-after").is_some());
        assert_eq!(ask(&key.credential).status, 200);
    }
}

#[test]
fn uniform_stays_uniform() {
    let server = server(&[("PASSWORD_FAILURES", "2"), ("FAILURES_PER_ADDRESS", "8")]);
    server.application(json!({ "detail": "uniform" }));
    server.site.json(&["app", "edit", "people", "--detail", "uniform"]);
    server.site.json(&["user", "block", "eve"]);
    let told = |answer: Answer| {
        let body = answer.body.replace(answer.header("retry-after").unwrap_or("…"), "…");
        let fields: Vec<String> = answer.headers.iter().map(|(name, _)| name.clone()).collect();
        (answer.status, body, fields)
    };
    let seen = ["bob", "eve", "nobody"].map(|name| {
        let all: Vec<_> = (0..4).map(|_| told(log_in(&server, name, "wrong"))).collect();
        assert_eq!([all[0].0, all[1].0, all[2].0, all[3].0], [401, 401, 429, 429], "{name}");
        all
    });
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "{seen:?}");
    // Six failures were passwords. Two more, and nothing that is wrong is told from anything else.
    let ask = |name: &str| {
        let credential = credential(name, "kw_00000000_00000000000000000000000000000017Q4b6");
        told(server.request("GET", "/user/1").header("API-KEY", credential).send())
    };
    let answers: Vec<_> = ["bob", "eve", "nobody", "bob", "eve"].map(ask).into();
    assert_eq!(answers.iter().map(|one| one.0).collect::<Vec<_>>(), [401, 401, 429, 429, 429]);
    assert!(answers[2] == answers[3] && answers[3] == answers[4], "{answers:?}");
}

#[test]
fn who_is_exempt_is_not_counted_and_a_look_counts_nothing() {
    let open = server(&[("FAILURE_EXEMPT", "127.0.0.1")]);
    let statuses: Vec<u16> = (0..7).map(|_| log_in(&open, "bob", "wrong").status).collect();
    assert_eq!(statuses, [401; 7]);
    let server = server(&[]);
    let headers = json!({
        "AUTH-METHOD": "people",
        "Authorization": format!("Basic {}", credential("bob", "wrong")),
    });
    for _ in 0..7 {
        let asked = json!({ "target": "/user/1", "headers": headers });
        let told = server.manages("POST", "/api/v1/explain").json(&asked).send();
        assert!(told.body.contains("INVALID_CREDENTIALS"), "{}", told.body);
    }
    assert_eq!(log_in(&server, "bob", "bob's own password").status, 200);
}

#[test]
fn a_key_does_not_find_out_the_password() {
    let server = server(&[]);
    let key = server.key("bob", &[]);
    let found = server.manages("GET", "/api/v1/users?name=bob").send().json();
    let target = format!("/user/{}", found["items"][0]["uid"]);
    let change = |existing: &str| {
        let body = json!({ "mail": ["b@example.com"], "pass": [{ "existing": existing }] });
        server.request("PATCH", &target).header("API-KEY", &key.credential).json(&body).send()
    };
    for _ in 0..5 {
        assert_eq!(change("wrong").status, 422);
    }
    let answer = change("bob's own password");
    let seconds = answer.header("retry-after").unwrap();
    answer.says(429, &format!("Too many failed attempts. Try again in {seconds} seconds."));
    let read = server.request("GET", &target).header("API-KEY", &key.credential).send();
    assert_eq!(read.status, 200);
}
