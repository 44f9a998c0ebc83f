//! The command line against the real program: the same with a server that runs and without one.

use std::{io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// Runs a command that must fail, and returns its exit code and what it said.
#[track_caller]
fn fails(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    assert!(!output.status.success(), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

/// A day in the life of an operator.
fn a_day(site: &Site) {
    let ann = site.json(&["user", "add", "ann", "--mail", "ann@example.com", "--timezone", "UTC"]);
    assert_eq!((&ann["uid"], &ann["active"]), (&json!(2), &json!(true)));
    let names = |list: Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|user| user["name"].as_str().unwrap().into()).collect()
    };
    assert_eq!(names(site.json(&["user", "list"])), ["admin", "ann"]);
    site.json(&["role", "add", "editor", "--label", "Editor", "--permission", "edit"]);
    let role = site.json(&["role", "edit", "editor", "--grant", "read", "--revoke", "edit"]);
    assert_eq!(role["permissions"], json!(["read"]));
    let edited = site.json(&["user", "edit", "ANN", "--add-role", "editor", "--no-mail"]);
    assert_eq!((&edited["roles"], &edited["mail"]), (&json!(["editor"]), &Value::Null));
    assert_eq!(site.json(&["user", "block", "ann"])["active"], false);
    assert_eq!(site.json(&["user", "unblock", "#2"])["active"], true);
    assert_eq!(site.json(&["user", "show", "--uid", "2"])["name"], "ann");

    let key = site.json(&["key", "generate", "ann", "--label", "ci", "--expires", "90d"]);
    assert!(key["id"].is_string() && key["key"].as_str().unwrap().starts_with("kw_"));
    let listed = site.json(&["key", "list", "ann"]);
    assert_eq!((&listed[0]["id"], &listed[0]["state"]), (&key["id"], &json!("active")));
    let id = key["id"].as_str().unwrap();
    assert_eq!(site.json(&["key", "revoke", id])[0]["state"], "revoked");
    assert_eq!(site.json(&["key", "show", id])["state"], "revoked");

    let app = site.json(&["app", "add", "partners", "--type", "bearer", "--detail", "uniform"]);
    assert_eq!(app["header"], "Authorization");
    assert_eq!(site.json(&["app", "disable", "partners"])["enabled"], false);
    let motd = ["resource", "add", "motd", "--handler", "respond", "--path", "/motd", "--method"];
    let motd =
        [&motd, ["GET", "--format", "any", "--authentication", "*", "--body", "hi"].as_slice()];
    assert_eq!(site.json(&motd.concat())["respond"]["body"], "hi");
    assert_eq!(
        site.json(&["resource", "edit", "motd", "--status", "202"])["respond"]["status"],
        202
    );
    assert_eq!(site.json(&["resource", "disable", "motd"])["enabled"], false);

    assert_eq!(fails(site, &["user", "show", "nobody"]).0, 3);
    assert_eq!(fails(site, &["key", "show", "00000000"]).0, 3);
    assert_eq!(fails(site, &["role", "delete", "editor", "--yes"]).0, 4);
    let (code, said) = fails(site, &["user", "add", "ann"]);
    assert_eq!(
        (code, said.contains("name: The username ann is already taken.")),
        (4, true),
        "{said}"
    );
    assert_eq!(fails(site, &["user", "add", "x", "--role", "none"]).0, 4);
    assert_eq!(fails(site, &["user", "nonsense"]).0, 2);
    assert_eq!(fails(site, &["user", "delete", "#1", "--yes"]).0, 4);

    for what in
        [["resource", "delete", "motd"], ["app", "delete", "partners"], ["user", "delete", "ann"]]
    {
        // Nobody is there to be asked.
        assert_eq!(fails(site, &what).0, 2, "{what:?}");
        let output = site.run(&[what.as_slice(), &["--yes"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(names(site.json(&["user", "list"])), ["admin"]);
}

#[test]
fn with_a_server() {
    let server = Server::new();
    a_day(&server.site);
}

#[test]
fn without_a_server() {
    let site = Site::new();
    site.json(&["init"]);
    a_day(&site);
    // What was done without a server is there when one starts.
    site.json(&["user", "add", "late"]);
    let server = Server::start(site, String::new());
    assert_eq!(server.site.json(&["user", "show", "late"])["name"], "late");
}

#[test]
fn a_revocation_is_in_force_with_the_next_request() {
    let server = Server::new();
    server.user("bob", &["--role", "administrator"]);
    for _ in 0..20 {
        let key = server.key("bob", &[]);
        let ask = || server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
        assert_eq!(ask().status, 200);
        server.site.json(&["key", "revoke", &key.id]);
        ask().refuses(401, "AUTHENTICATION_FAILED", "The API key has been revoked.");
    }
}

#[test]
fn tables_are_for_people_and_the_key_alone_is_printed() {
    let server = Server::new();
    let text = |args: &[&str]| String::from_utf8(server.site.run(args).stdout).unwrap();
    let users = text(&["user", "list"]);
    assert!(users.starts_with("UID") && users.contains("administrator"), "{users}");
    let output = server.site.run(&["key", "generate", "admin"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("kw_") && printed.trim().len() == 48 && printed.ends_with('\n'));
    server.hide(printed.trim().rsplit('_').next().unwrap());
    assert!(!String::from_utf8(output.stderr).unwrap().contains(printed.trim()));
}

#[test]
fn a_password_comes_through_standard_input_and_never_as_an_argument() {
    let server = Server::new();
    server.hide("correct horse");
    let mut child = server
        .site
        .command(&["user", "add", "pia", "--password-stdin", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(made["has_password"], true);
    assert_eq!(fails(&server.site, &["user", "add", "eve", "--password", "x"]).0, 2);
}

#[test]
fn a_command_without_a_store_makes_none() {
    let site = Site::new();
    let (code, said) = fails(&site, &["user", "list"]);
    assert_eq!((code, said.contains("keyward init")), (5, true), "{said}");
    assert!(!site.store().exists());
    let (code, _) = fails(&site, &["healthcheck"]);
    assert_eq!(code, 1);
}

#[test]
fn health_is_checked_from_outside() {
    let server = Server::new();
    assert_eq!(server.site.json(&["healthcheck"]), json!({ "status": "ready" }));
    let site = server.kill();
    assert_eq!(fails(&site, &["healthcheck"]).0, 1);
}

#[test]
fn the_configuration_is_checked_shown_and_described() {
    let site = Site::new().with("KEYWARD_LIMITS__HEADERS", "50");
    assert!(site.run(&["config", "check"]).status.success());
    let shown = String::from_utf8(site.run(&["config", "print"]).stdout).unwrap();
    assert!(shown.contains("headers = 50"), "{shown}");
    let file = site.path().join("printed.toml");
    std::fs::write(&file, &shown).unwrap();
    let again = site.run(&["--config", "printed.toml", "config", "print"]);
    // But for the lines that say where it was read.
    let settings = |text: &str| text[text.find("[server]").unwrap()..].to_owned();
    assert_eq!(settings(&String::from_utf8(again.stdout).unwrap()), settings(&shown));
    let schema: Value = serde_json::from_slice(&site.run(&["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["server"].is_object(), "{schema}");
    let (code, said) =
        fails(&Site::new().with("KEYWARD_LIMITS__HEADERS", "many"), &["config", "check"]);
    assert_eq!((code, said.contains("KEYWARD_LIMITS__HEADERS")), (2, true), "{said}");
}

#[test]
fn shells_get_their_completions() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = site.run(&["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}
