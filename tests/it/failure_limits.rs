//! Tests of failure limits. A client with too many failed attempts gets 429, and other clients are
//! not affected.

use serde_json::json;

use crate::harness::{Response, Server, Site, credential};

/// A server on which 127.0.0.1 is not exempt from the failure limits. The server has the users
/// `bob` and `eve` with passwords, and the application `people` for passwords.
fn server(variables: &[(&str, &str)]) -> Server {
    let mut site = Site::new().with_env("KEYWARD_LIMITS__FAILURE_EXEMPT", "");
    for (name, value) in variables {
        site = site.with_env(&format!("KEYWARD_LIMITS__{name}"), value);
    }
    let server = site.start();
    server.site.json(&["role", "edit", "authenticated", "--grant", "access user profiles"]);
    for name in ["bob", "eve"] {
        server.add_user(name, &[]);
        let found = server.admin_api("GET", &format!("/api/v1/users?name={name}")).send().json();
        let target = format!("/api/v1/users/{}", found["items"][0]["uid"]);
        let change = json!({ "password": format!("{name}'s own password") });
        assert_eq!(server.admin_api("PATCH", &target).json(&change).send().status, 200);
    }
    server.site.json(&["app", "add", "people", "--type", "basic"]);
    server
}

fn log_in(server: &Server, name: &str, password: &str) -> Response {
    let header = format!("Basic {}", credential(name, password));
    server
        .request("GET", "/user/1")
        .header("AUTH-METHOD", "people")
        .header("Authorization", header)
        .send()
}

/// Like `log_in`, but sends the verify request of a proxy whose client has this address.
fn log_in_from(server: &Server, client: &str, name: &str, password: &str) -> Response {
    let header = format!("Basic {}", credential(name, password));
    server
        .verify_request("GET", "/-/verify")
        .header("AUTH-METHOD", "people")
        .header("Authorization", header)
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", "/user/1")
        .header("X-Forwarded-Host", "api.example")
        .header("X-Forwarded-For", client)
        .send()
}

#[test]
fn five_wrong_passwords_block_only_this_user_from_this_address() {
    let server = server(&[]);
    let key = server.generate_key("bob", &[]);
    for _ in 0..5 {
        let response = log_in(&server, "bob", "wrong");
        response.assert_error(401, "INVALID_CREDENTIALS", "Invalid username or password");
    }
    for password in ["wrong", "bob's own password"] {
        let response = log_in(&server, "bob", password);
        let seconds = response.header("retry-after").unwrap().to_owned();
        assert!((100..=180).contains(&seconds.parse::<u32>().unwrap()), "{seconds}");
        let message = format!("Too many failed attempts. Try again in {seconds} seconds.");
        response.assert_error(429, "TOO_MANY_FAILURES", &message);
    }
    // Another user, the user's key, and the user at another address are not blocked.
    assert_eq!(log_in(&server, "eve", "eve's own password").status, 200);
    let by_key = server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
    assert_eq!(by_key.status, 200);
    assert_eq!(log_in_from(&server, "203.0.113.7", "bob", "bob's own password").status, 200);
    // This limit also applies to the admin API, which responds with a problem document.
    let admin = server.admin_api_as("", "GET", "/api/v1/me").header("AUTH-METHOD", "people");
    let header = format!("Basic {}", credential("bob", "bob's own password"));
    let response = admin.header("Authorization", header).send();
    assert_eq!(response.json()["type"], "urn:keyward:problem:too-many-failures", "{response:?}");
    server.wait_for_log("this password was not checked");
}

#[test]
fn failures_count_for_the_address_that_a_trusted_proxy_forwards() {
    let server = server(&[]);
    for _ in 0..5 {
        assert_eq!(log_in_from(&server, "203.0.113.7", "bob", "wrong").status, 401);
    }
    let correct_password =
        |client| log_in_from(&server, client, "bob", "bob's own password").status;
    assert_eq!(
        [
            correct_password("203.0.113.7"),
            correct_password("203.0.113.8"),
            correct_password("::ffff:203.0.113.7")
        ],
        [429, 200, 429]
    );
    // IPv6 addresses are counted by their /64 network.
    for host in 1..=5 {
        let client = format!("2001:db8:0:1::{host}");
        assert_eq!(log_in_from(&server, &client, "bob", "wrong").status, 401);
    }
    assert_eq!(
        [correct_password("2001:db8:0:1:ffff::9"), correct_password("2001:db8:0:2::1")],
        [429, 200]
    );
}

#[test]
fn a_valid_key_is_accepted_from_an_address_over_the_limit() {
    let server = server(&[("FAILURES_PER_ADDRESS", "3")]);
    let key = server.generate_key("bob", &[]);
    let wrong = credential("bob", "kw_00000000_000000000000000000000000000000000000");
    let send =
        |credential: &str| server.request("GET", "/user/1").header("API-KEY", credential).send();
    // Send one failure of each kind. A request without a credential is not counted as a failure.
    let failures = [&wrong, &credential("nobody", "x"), &credential("bob", "x")];
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    let statuses = failures.map(|credential| send(credential).status);
    assert_eq!(statuses, [401, 404, 401]);
    for credential in failures {
        let response = send(credential);
        assert_eq!(
            (response.status, response.json()["error"].as_str()),
            (429, Some("TOO_MANY_FAILURES"))
        );
        assert!(response.header("retry-after").is_some());
        assert_eq!(send(&key.credential).status, 200);
    }
}

#[test]
fn uniform_responses_stay_uniform_over_the_limit() {
    let server = server(&[("PASSWORD_FAILURES", "2"), ("FAILURES_PER_ADDRESS", "8")]);
    server.patch_application(json!({ "detail": "uniform" }));
    server.site.json(&["app", "edit", "people", "--detail", "uniform"]);
    server.site.json(&["user", "block", "eve"]);
    let client_view = |response: Response| {
        let body = response.body.replace(response.header("retry-after").unwrap_or("…"), "…");
        let fields: Vec<String> = response.headers.iter().map(|(name, _)| name.clone()).collect();
        (response.status, body, fields)
    };
    let responses_by_user = ["bob", "eve", "nobody"].map(|name| {
        let all: Vec<_> = (0..4).map(|_| client_view(log_in(&server, name, "wrong"))).collect();
        assert_eq!([all[0].0, all[1].0, all[2].0, all[3].0], [401, 401, 429, 429], "{name}");
        all
    });
    let [bob, eve, nobody] = &responses_by_user;
    assert!(bob == eve && eve == nobody, "{responses_by_user:?}");
    // Six wrong passwords were counted. After two more failures, the address has reached the limit
    // of 8, and all failures get the same response.
    let send = |name: &str| {
        let credential = credential(name, "kw_00000000_00000000000000000000000000000017Q4b6");
        client_view(server.request("GET", "/user/1").header("API-KEY", credential).send())
    };
    let responses: Vec<_> = ["bob", "eve", "nobody", "bob", "eve"].map(send).into();
    assert_eq!(
        responses.iter().map(|response| response.0).collect::<Vec<_>>(),
        [401, 401, 429, 429, 429]
    );
    assert!(responses[2] == responses[3] && responses[3] == responses[4], "{responses:?}");
}

#[test]
fn exempt_addresses_and_dry_runs_are_not_counted() {
    let exempt = server(&[("FAILURE_EXEMPT", "127.0.0.1")]);
    let statuses: Vec<u16> = (0..7).map(|_| log_in(&exempt, "bob", "wrong").status).collect();
    assert_eq!(statuses, [401; 7]);
    let server = server(&[]);
    let headers = json!({
        "AUTH-METHOD": "people",
        "Authorization": format!("Basic {}", credential("bob", "wrong")),
    });
    for _ in 0..7 {
        let request = json!({ "target": "/user/1", "headers": headers });
        let explained = server.admin_api("POST", "/api/v1/explain").json(&request).send();
        assert!(explained.body.contains("INVALID_CREDENTIALS"), "{}", explained.body);
    }
    assert_eq!(log_in(&server, "bob", "bob's own password").status, 200);
}

#[test]
fn a_key_cannot_be_used_to_guess_the_password() {
    let server = server(&[]);
    let key = server.generate_key("bob", &[]);
    let found = server.admin_api("GET", "/api/v1/users?name=bob").send().json();
    let target = format!("/user/{}", found["items"][0]["uid"]);
    let change = |existing: &str| {
        let body = json!({ "mail": ["b@example.com"], "pass": [{ "existing": existing }] });
        server.request("PATCH", &target).header("API-KEY", &key.credential).json(&body).send()
    };
    for _ in 0..5 {
        assert_eq!(change("wrong").status, 422);
    }
    let response = change("bob's own password");
    let seconds = response.header("retry-after").unwrap();
    response
        .assert_message(429, &format!("Too many failed attempts. Try again in {seconds} seconds."));
    let read = server.request("GET", &target).header("API-KEY", &key.credential).send();
    assert_eq!(read.status, 200);
}
