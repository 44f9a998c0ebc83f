//! The event script can deny every new user and key, through each API and each command.

use std::fs;

use serde_json::json;

use super::write_events_script;
use crate::harness::{Server, Site};

const DENYING_SCRIPT: &str = r#"
fn on_key_created(event) { if event.user != "admin" { deny(409, "NO_KEYS", "No keys for " + event.user + "."); } }
fn on_user_created(event) { if event.user.starts_with("bad") { deny(403, "NO_USER", "Not this one."); } }
"#;

fn counts(site: &Site) -> (usize, usize) {
    let count = |args: &[&str]| site.json(args).as_array().unwrap().len();
    (count(&["user", "list"]), count(&["key", "list"]))
}

fn assert_fails(site: &Site, args: &[&str], expected: &str) {
    let output = site.run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(expected), "{args:?} {text}");
}

/// Asserts that each way to create a key or a user fails with this status and text.
fn assert_nothing_can_be_created(server: &Server, [key_error, user_error]: [(u16, &str); 2]) {
    let site = &server.site;
    let before = counts(site);
    let response = server.admin_api("POST", "/api/v1/users/2/keys").json(&json!({})).send();
    assert_eq!(response.status, key_error.0, "{}", response.body);
    assert!(response.body.contains(key_error.1), "{}", response.body);
    let response =
        server.admin_api("POST", "/api/v1/users").json(&json!({ "name": "bad one" })).send();
    assert_eq!(response.status, user_error.0, "{}", response.body);
    // Create a user through the user resource.
    let fields = json!({ "name": [{ "value": "bad two" }], "pass": [{ "value": "a password" }] });
    let response =
        server.request_as_admin("POST", "/entity/user?_format=json").json(&fields).send();
    assert_eq!(response.status, user_error.0, "{}", response.body);
    // Create keys and users on the command line, and import keys.
    assert_fails(site, &["key", "generate", "bob"], key_error.1);
    assert_fails(site, &["user", "add", "bad three"], user_error.1);
    assert_fails(
        site,
        &["key", "generate", "--all", "--missing-only", "--file", "keys.csv"],
        key_error.1,
    );
    fs::write(site.path().join("old.csv"), "username,key\nbob,an-old-key-of-another-system\n")
        .unwrap();
    assert_fails(site, &["key", "import", "old.csv"], key_error.1);
    assert_fails(site, &["key", "import", "old.csv", "--dry-run"], key_error.1);
    fs::write(site.path().join("new.csv"), "username,key\nbad four,an-old-key-of-another-syst\n")
        .unwrap();
    assert_fails(site, &["key", "import", "new.csv", "--create-users"], user_error.1);
    // Import users, and apply files with a new user and a new key.
    let digest = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    fs::write(site.path().join("users"), format!("bad six:{digest}\n")).unwrap();
    assert_fails(site, &["user", "import", "users"], user_error.1);
    assert_fails(site, &["user", "import", "users", "--dry-run"], user_error.1);
    fs::write(site.path().join("s.toml"), "version = 1\n[[users]]\nname = \"bad seven\"\n")
        .unwrap();
    assert_fails(site, &["apply", "s.toml"], user_error.1);
    assert_fails(site, &["apply", "s.toml", "--dry-run"], user_error.1);
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let table = exported.split("[[keys]]").find(|table| table.contains("user = \"bob\"")).unwrap();
    let id = table.lines().find(|line| line.starts_with("id = ")).unwrap();
    let pepper = exported.lines().find(|line| line.starts_with("pepper")).unwrap();
    let second_key =
        format!("version = 1\n{pepper}\n[[keys]]{}", table.replace(id, "id = \"0000aZ19\""));
    fs::write(site.path().join("k.toml"), second_key).unwrap();
    assert_fails(site, &["apply", "k.toml"], key_error.1);
    // Rotate a key, which creates a new key.
    let keys = site.json(&["key", "list", "bob"]);
    let id = keys[0]["id"].as_str().unwrap();
    assert_fails(site, &["key", "rotate", id], key_error.1);
    assert_eq!(counts(site), before);
}

#[test]
fn event_script_can_deny_every_new_user_and_key() {
    let server = Server::new();
    let bob = server.user_with_permissions("bob", &["generate own api key"]);
    server.add_user("ann", &[]);
    write_events_script(&server.site, DENYING_SCRIPT);
    server.site.json(&["script", "reload"]);
    assert_nothing_can_be_created(&server, [(409, "No keys for"), (403, "Not this one.")]);
    let response =
        server.admin_api_as(&bob.credential, "POST", "/api/v1/me/keys").json(&json!({})).send();
    assert_eq!(
        (response.status, response.json()["type"].clone()),
        (409, json!("urn:keyward:problem:no-keys"))
    );
    // If no server runs, the command line runs the script.
    let site = server.kill();
    let before = counts(&site);
    assert_fails(&site, &["key", "generate", "bob"], "No keys for bob.");
    assert_fails(&site, &["user", "add", "bad five"], "Not this one.");
    site.json(&["user", "add", "good"]);
    assert_eq!(counts(&site), (before.0 + 1, before.1));
    // A script that does not compile denies new keys.
    write_events_script(&site, "fn on_key_created(event) {");
    assert_fails(&site, &["key", "generate", "good"], "events.rhai:1:");
    assert_eq!(counts(&site).1, before.1);
}

#[test]
fn failing_event_script_denies_every_new_user_and_key() {
    let site = Site::new();
    let server = site.start();
    let bob = server.user_with_permissions("bob", &["generate own api key"]);
    server.add_user("ann", &[]);
    for body in ["1 / 0;", "loop { }", "throw 7;", "return false;", "webhook(\"nobody\", #{});"] {
        write_events_script(
            &server.site,
            &format!(
                "fn on_key_created(event) {{ {body} }} fn on_user_created(event) {{ {body} }}"
            ),
        );
        server.site.json(&["script", "reload"]);
        let response = server.admin_api("POST", "/api/v1/users/2/keys").json(&json!({})).send();
        assert_eq!(response.status, 503, "{body} {}", response.body);
        assert_eq!(response.json()["type"], "urn:keyward:problem:script-error");
    }
    assert_nothing_can_be_created(
        &server,
        [(503, "could not be decided"), (503, "could not be decided")],
    );
    let response =
        server.admin_api_as(&bob.credential, "POST", "/api/v1/me/keys").json(&json!({})).send();
    assert_eq!(response.status, 503);
    // A script cannot deny a revocation, so the key is revoked.
    write_events_script(&server.site, "fn on_key_revoked(event) { deny(403, \"NO\", \"No.\"); }");
    server.site.json(&["script", "reload"]);
    let revoked = server.site.json(&["key", "revoke", &bob.id]);
    assert!(revoked[0]["revoked"].is_string(), "{revoked}");
    server.wait_for_log("this event cannot be refused");
}
