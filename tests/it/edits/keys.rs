//! Changes of the end, the scopes and the networks of keys, and the ends that people write.

use serde_json::{Value, json};

use super::{patch, ran, refused};
use crate::harness::{Key, Server};

const READ: &str = "access user profiles";
const AUDIT: &str = "view audit log";

fn target(key: &Key) -> String {
    format!("/api/v1/keys/{}", key.id)
}

fn status(server: &Server, key: &Key) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", &key.credential).send().status
}

#[test]
fn administrator_moves_the_end_scopes_and_networks_of_a_key() {
    let server = Server::new();
    let key = server.user_with_permissions("bob", &[READ, AUDIT]);
    assert_eq!(status(&server, &key), 200);
    let change = json!({ "scopes": [AUDIT], "expires": "2099-12-31", "networks": ["127.0.0.0/8"] });
    let (code, body) = patch(&server, &target(&key), &change);
    assert_eq!(code, 200, "{body}");
    assert_eq!(body["expires"], "2100-01-01T00:00:00+00:00");
    assert_eq!((&body["scopes"], &body["networks"]), (&json!([AUDIT]), &json!(["127.0.0.0/8"])));
    assert_eq!(status(&server, &key), 403);
    // The label was not named, and a change of the label alone keeps the bounds.
    let (_, body) = patch(&server, &target(&key), &json!({ "label": "ci" }));
    assert_eq!((&body["scopes"], &body["label"]), (&json!([AUDIT]), &json!("ci")));
    let (code, body) = patch(
        &server,
        &target(&key),
        &json!({ "scopes": null, "networks": null, "expires": null }),
    );
    assert_eq!((code, &body["expires"], &body["networks"]), (200, &Value::Null, &json!([])));
    assert_eq!(status(&server, &key), 200);
    for (change, location) in [
        (json!({ "scopes": ["cancel account"] }), "scopes.0"),
        (json!({ "expires": "2001-01-01" }), "expires"),
        (json!({ "expires": "tomorrow" }), "expires"),
        (json!({ "networks": ["10.0.0.7/8"] }), "networks.0"),
        (json!({ "revoked": "2001-01-01T00:00:00Z" }), "revoked"),
        (json!({ "user": 1 }), "user"),
    ] {
        let (code, body) = patch(&server, &target(&key), &change);
        assert_eq!((code, &body["errors"][0]["location"]), (422, &json!(location)), "{change}");
    }
    let log = server.site.json(&["audit", "list", "--limit", "1"]);
    assert_eq!((&log[0]["action"], &log[0]["after"]), (&json!("key.change"), &Value::Null));
}

#[test]
fn expired_key_lives_again_only_within_the_quota_and_a_revoked_key_never() {
    let server = Server::start(
        {
            let site = crate::harness::Site::new().with_env("KEYWARD_LIMITS__KEYS_PER_USER", "1");
            site.json(&["init"]);
            site
        },
        String::new(),
    );
    let site = &server.site;
    server.add_user("bob", &[]);
    let key = server.generate_key("bob", &["--expires", "1s"]);
    let deadline = std::time::Instant::now() + crate::harness::TIMEOUT;
    while site.json(&["key", "show", &key.id])["state"] != "expired" {
        assert!(std::time::Instant::now() < deadline);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let other = server.generate_key("bob", &[]);
    let edit = ["key", "edit", &key.id, "--expires", "never"];
    assert!(refused(site, &edit).contains("the limit is 1"), "the quota");
    site.json(&["key", "revoke", &other.id]);
    assert_eq!(site.json(&edit)["state"], "active");
    for bound in [["--expires", "1h"], ["--network", "10.0.0.0/8"]] {
        let edit = [&["key", "edit", &other.id], &bound[..]].concat();
        assert!(refused(site, &edit).contains("a revocation is final"), "{bound:?}");
    }
    site.json(&["key", "edit", &other.id, "--label", "old"]);
}

#[test]
fn owner_and_helper_narrow_a_key_and_never_widen_it() {
    let server = Server::new();
    let own = server.user_with_permissions("bob", &["generate own api key", READ]);
    let helper = server.user_with_permissions("helper", &["administer users"]);
    let bounds =
        ["--scope", READ, "--expires", "30d", "--network", "10.0.0.0/8", "--rate-limit", "5/1m"];
    let key = server.generate_key("bob", &bounds);
    let me = format!("/api/v1/me/keys/{}", key.id);
    let send = |credential: &str, target: &str, change: &Value| {
        server.admin_api_as(credential, "PATCH", target).json(change).send()
    };
    let wider = [
        json!({ "scopes": null }),
        json!({ "scopes": [READ, "generate own api key"] }),
        json!({ "networks": null }),
        json!({ "networks": [] }),
        json!({ "networks": ["10.0.0.0/8", "192.0.2.0/24"] }),
        json!({ "networks": ["0.0.0.0/0"] }),
        json!({ "expires": null }),
        json!({ "expires": "never" }),
        json!({ "expires": "31d" }),
    ];
    for change in &wider {
        for (credential, target) in [(&own.credential, &me), (&helper.credential, &target(&key))] {
            let response = send(credential, target, change);
            assert_eq!(response.status, 403, "{target} {change}: {}", response.body);
            let detail = response.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.contains("a key can only be narrowed"), "{detail}");
        }
    }
    // Owners do not raise the limits that they were given.
    for change in [json!({ "rate_limit": null }), json!({ "rate_limit": "6/1m" })] {
        assert_eq!(send(&own.credential, &me, &change).status, 403, "{change}");
    }
    let narrower = json!({
        "scopes": [], "networks": ["10.1.0.0/16"], "expires": "1d", "rate_limit": "4/1m",
    });
    let response = send(&own.credential, &me, &narrower);
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(response.json()["networks"], json!(["10.1.0.0/16"]));
    // The keys of others are not there.
    let theirs = format!("/api/v1/me/keys/{}", helper.id);
    assert_eq!(send(&own.credential, &theirs, &json!({ "label": "x" })).status, 404);
    // A key that ends is no administrator's, and moves no end beyond its own.
    let short = server.generate_key("admin", &["--expires", "1h"]);
    for end in ["never", "2h"] {
        let response = send(&short.credential, &target(&own), &json!({ "expires": end }));
        assert_eq!(response.status, 403, "{}", response.body);
    }
    assert_eq!(send(&short.credential, &target(&own), &json!({ "expires": "30m" })).status, 200);
}

#[test]
fn key_edit_changes_single_scopes_and_networks() {
    let server = Server::new();
    let site = &server.site;
    let all = server.user_with_permissions("bob", &[READ, AUDIT]);
    let key = server.generate_key("bob", &["--scope", READ, "--network", "10.0.0.0/8"]);
    let edit = |args: &[&str]| site.json(&[&["key", "edit", &key.id], args].concat());
    let edited = edit(&["--add-scope", AUDIT, "--add-network", "192.0.2.7", "--label", "ci"]);
    assert_eq!(edited["scopes"], json!([READ, AUDIT]));
    assert_eq!(edited["networks"], json!(["10.0.0.0/8", "192.0.2.7/32"]));
    let edited = edit(&["--remove-scope", READ, "--remove-network", "192.0.2.7"]);
    assert_eq!((&edited["scopes"], &edited["networks"]), (&json!([AUDIT]), &json!(["10.0.0.0/8"])));
    let last = ["key", "edit", &key.id, "--remove-network", "10.0.0.0/8"];
    assert!(refused(site, &last).contains("which means any address. Use --no-networks"));
    let edited = edit(&["--no-networks", "--remove-scope", AUDIT]);
    assert_eq!((&edited["scopes"], &edited["networks"]), (&json!([]), &json!([])));
    assert_eq!(edit(&["--no-scopes"])["scopes"], Value::Null);
    // A key without a list has all permissions: to add one would take the others away.
    for option in ["--add-scope", "--remove-scope"] {
        let errors = refused(site, &["key", "edit", &all.id, option, READ]);
        assert!(errors.contains("means all permissions of the user"), "{errors}");
    }
    let shown = ran(site, &["key", "show", &all.id]).1;
    for line in ["scopes       all", "networks     all", "expires      never"] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
fn end_is_a_day_never_or_a_bound_is_named() {
    let server = Server::new();
    let site = &server.site;
    server.add_user("bob", &[]);
    let generate = |end: &str| ran(site, &["key", "generate", "bob", "--expires", end]);
    let (code, _, notes) = generate("2098-12-31");
    assert_eq!(code, 0, "{notes}");
    let day =
        "accepted to the end of that day in UTC: it is refused from 2099-01-01T00:00:00+00:00";
    assert!(notes.contains(day), "{notes}");
    for never in ["never", "9999-12-31T23:59:59Z", "9999-12-31"] {
        let (code, _, notes) = generate(never);
        assert!(code == 0 && notes.contains("it never expires"), "{notes}");
    }
    for (end, bound) in [
        ("9999-12-30T23:00:00Z", "the latest time is 9999-12-30T22:00:00Z"),
        ("10000-01-01T00:00:00Z", "the latest time is 9999-12-30T22:00:00Z"),
        ("400000d", "a span has at most 1,000 years"),
    ] {
        let (code, _, errors) = generate(end);
        assert!(code == 2 && errors.contains(bound), "{errors}");
        let body = json!({ "expires": end });
        let response = server.admin_api("POST", "/api/v1/users/2/keys").json(&body).send();
        assert!(response.status == 422 && response.body.contains(bound), "{}", response.body);
    }
    let network = ["key", "generate", "bob", "--network", "10.0.0.7/8"];
    let errors = refused(site, &network);
    let expected = "10.0.0.7/8 is an address in the network 10.0.0.0/8. (Send 10.0.0.0/8 for the \
                    whole network, or 10.0.0.7 for the address.)";
    assert!(errors.contains(expected), "{errors}");
}

#[test]
fn rotated_key_shows_its_state_and_its_end() {
    let server = Server::new();
    let key = server.user_with_permissions("bob", &[READ]);
    let new = server.site.json(&["key", "rotate", &key.id, "--overlap", "1d"]);
    let until = new["replaces"]["rotated"]["until"].clone();
    let old = server.site.json(&["key", "show", &key.id]);
    assert_eq!(
        (&old["state"], &old["ends"], &old["expires"]),
        (&json!("active"), &until, &Value::Null)
    );
    let list = ran(&server.site, &["key", "list", "bob"]).1;
    let until = until.as_str().unwrap().replace("+00:00", "Z");
    assert!(list.contains(&until), "{list}");
    let other = server.generate_key("bob", &[]);
    server.site.json(&["key", "rotate", &other.id, "--overlap", "0s"]);
    let old = server.site.json(&["key", "show", &other.id]);
    assert_eq!(old["state"], "rotated");
    assert!(old["ends"].is_string() && old["expires"].is_null(), "{old}");
}

#[test]
fn short_password_is_refused_by_the_admin_api_and_the_command_line() {
    let server = Server::new();
    let expected = "A password has at least 8 characters.";
    let create = json!({ "name": "ann", "password": "abc" });
    let response = server.admin_api("POST", "/api/v1/users").json(&create).send();
    assert_eq!(response.status, 422);
    assert_eq!(response.json()["errors"][0]["message"], expected);
    server.add_user("ann", &[]);
    // Eight bytes are not eight characters.
    for password in ["abc", "1234567", "éééé"] {
        let (status, body) = patch(&server, "/api/v1/users/2", &json!({ "password": password }));
        assert_eq!((status, &body["errors"][0]["message"]), (422, &json!(expected)), "{password}");
    }
    assert_eq!(patch(&server, "/api/v1/users/2", &json!({ "password": "éééééééé" })).0, 200);
    // Clients of the replaced system may set shorter passwords with the user entity.
    let entity = server.request_as_admin("PATCH", "/user/2").json(&json!({ "pass": ["abc"] }));
    assert_eq!(entity.send().status, 200);
}
