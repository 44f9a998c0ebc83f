//! Whoever makes a user or a key, the script of events is asked.

use std::fs;

use serde_json::json;

use super::script;
use crate::harness::{Server, Site};

const REFUSES: &str = r#"
fn on_key_created(event) { if event.user != "admin" { deny(409, "NO_KEYS", "No keys for " + event.user + "."); } }
fn on_user_created(event) { if event.user.starts_with("bad") { deny(403, "NO_USER", "Not this one."); } }
"#;

fn counts(site: &Site) -> (usize, usize) {
    let count = |args: &[&str]| site.json(args).as_array().unwrap().len();
    (count(&["user", "list"]), count(&["key", "list"]))
}

fn fails(site: &Site, args: &[&str], said: &str) {
    let output = site.run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains(said), "{args:?} {text}");
}

/// Each way in which a key or a user is made.
fn every_way(server: &Server, [key, user]: [(u16, &str); 2]) {
    let site = &server.site;
    let before = counts(site);
    let made = server.manages("POST", "/api/v1/users/2/keys").json(&json!({})).send();
    assert_eq!(made.status, key.0, "{}", made.body);
    assert!(made.body.contains(key.1), "{}", made.body);
    let made = server.manages("POST", "/api/v1/users").json(&json!({ "name": "bad one" })).send();
    assert_eq!(made.status, user.0, "{}", made.body);
    // The entity of users.
    let fields = json!({ "name": [{ "value": "bad two" }], "pass": [{ "value": "a password" }] });
    let made = server.asks("POST", "/entity/user?_format=json").json(&fields).send();
    assert_eq!(made.status, user.0, "{}", made.body);
    // The command line, all keys, and imports.
    fails(site, &["key", "generate", "bob"], key.1);
    fails(site, &["user", "add", "bad three"], user.1);
    fails(site, &["key", "generate", "--all", "--missing-only", "--file", "keys.csv"], key.1);
    fs::write(site.path().join("old.csv"), "username,key\nbob,an-old-key-of-another-system\n")
        .unwrap();
    fails(site, &["key", "import", "old.csv"], key.1);
    fails(site, &["key", "import", "old.csv", "--dry-run"], key.1);
    fs::write(site.path().join("new.csv"), "username,key\nbad four,an-old-key-of-another-syst\n")
        .unwrap();
    fails(site, &["key", "import", "new.csv", "--create-users"], user.1);
    // Users of another system, and a file of the state.
    let digest = "{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=";
    fs::write(site.path().join("users"), format!("bad six:{digest}\n")).unwrap();
    fails(site, &["user", "import", "users"], user.1);
    fails(site, &["user", "import", "users", "--dry-run"], user.1);
    fs::write(site.path().join("s.toml"), "version = 1\n[[users]]\nname = \"bad seven\"\n")
        .unwrap();
    fails(site, &["apply", "s.toml"], user.1);
    fails(site, &["apply", "s.toml", "--dry-run"], user.1);
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let one = exported.split("[[keys]]").find(|one| one.contains("user = \"bob\"")).unwrap();
    let id = one.lines().find(|line| line.starts_with("id = ")).unwrap();
    let pepper = exported.lines().find(|line| line.starts_with("pepper")).unwrap();
    let another =
        format!("version = 1\n{pepper}\n[[keys]]{}", one.replace(id, "id = \"0000aZ19\""));
    fs::write(site.path().join("k.toml"), another).unwrap();
    fails(site, &["apply", "k.toml"], key.1);
    // Rotation.
    let keys = site.json(&["key", "list", "bob"]);
    let id = keys[0]["id"].as_str().unwrap();
    fails(site, &["key", "rotate", id], key.1);
    assert_eq!(counts(site), before);
}

#[test]
fn every_way_of_making_is_asked() {
    let server = Server::new();
    let bob = server.user_with("bob", &["generate own api key"]);
    server.user("ann", &[]);
    script(&server.site, REFUSES);
    server.site.json(&["script", "reload"]);
    every_way(&server, [(409, "No keys for"), (403, "Not this one.")]);
    let own = server.manages_as(&bob.credential, "POST", "/api/v1/me/keys").json(&json!({})).send();
    assert_eq!(
        (own.status, own.json()["type"].clone()),
        (409, json!("urn:keyward:problem:no-keys"))
    );
    // Without a server the command line asks too.
    let site = server.kill();
    let before = counts(&site);
    fails(&site, &["key", "generate", "bob"], "No keys for bob.");
    fails(&site, &["user", "add", "bad five"], "Not this one.");
    site.json(&["user", "add", "good"]);
    assert_eq!(counts(&site), (before.0 + 1, before.1));
    // A script that is not in order lets nobody be made, and keeps nobody from anything else.
    script(&site, "fn on_key_created(event) {");
    fails(&site, &["key", "generate", "good"], "events.rhai:1:");
    assert_eq!(counts(&site).1, before.1);
}

#[test]
fn a_script_that_fails_makes_nothing() {
    let site = Site::new();
    let server = site.start();
    let bob = server.user_with("bob", &["generate own api key"]);
    server.user("ann", &[]);
    for body in ["1 / 0;", "loop { }", "throw 7;", "return false;", "webhook(\"nobody\", #{});"] {
        script(
            &server.site,
            &format!(
                "fn on_key_created(event) {{ {body} }} fn on_user_created(event) {{ {body} }}"
            ),
        );
        server.site.json(&["script", "reload"]);
        let made = server.manages("POST", "/api/v1/users/2/keys").json(&json!({})).send();
        assert_eq!(made.status, 503, "{body} {}", made.body);
        assert_eq!(made.json()["type"], "urn:keyward:problem:script-error");
    }
    every_way(&server, [(503, "could not be decided"), (503, "could not be decided")]);
    let own = server.manages_as(&bob.credential, "POST", "/api/v1/me/keys").json(&json!({})).send();
    assert_eq!(own.status, 503);
    // What cannot be refused happens.
    script(&server.site, "fn on_key_revoked(event) { deny(403, \"NO\", \"No.\"); }");
    server.site.json(&["script", "reload"]);
    let revoked = server.site.json(&["key", "revoke", &bob.id]);
    assert!(revoked[0]["revoked"].is_string(), "{revoked}");
    server.tells("this event cannot be refused");
}
