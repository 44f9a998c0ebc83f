//! Tests that a new key works at once: the commands that create a key say how a client sends it.

use std::process::Output;

use serde_json::json;

use crate::harness::{Server, Site};

/// The line of the advice, which a person pastes into a shell.
fn advice(output: &Output) -> String {
    let errors = String::from_utf8(output.stderr.clone()).unwrap();
    let line = errors.lines().map(str::trim).find(|line| line.contains("| curl "));
    line.unwrap_or_else(|| panic!("{errors}")).to_owned()
}

/// Runs the advice with the key in the variable that it names. Returns the status of the response.
fn status(site: &Site, advice: &str, key: &str) -> String {
    let script = format!("{} -s -o /dev/null -w '%{{http_code}}'", advice.trim());
    let output = site.shell(&script).env("KEY", key).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn advice_of_a_new_key_is_a_command_that_works() {
    let server = Server::new();
    server.site.json(&["user", "add", "O'Neil the 1st"]);
    server.site.json(&["app", "add", "token", "--type", "bearer"]);
    server.site.json(&["app", "add", "own", "--type", "bearer", "--header", "X-Token"]);
    server.site.json(&["app", "add", "classic", "--header", "Authorization"]);
    for application in [None, Some("token"), Some("own"), Some("classic")] {
        let mut args = vec!["key", "generate", "O'Neil the 1st"];
        args.extend(application.iter().flat_map(|id| ["--application", id]));
        let output = server.site.run(&args);
        // Only the key is on standard output, so that a pipe and $( ) get nothing else.
        let key = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(key.starts_with("kw_") && key.lines().count() == 1, "{key}");
        let line = advice(&output);
        assert!(!line.contains(key.trim()), "{line}");
        assert_eq!(status(&server.site, &line, key.trim()), "200", "{application:?}: {line}");
        assert_eq!(status(&server.site, &line, "kw_wrong"), "401", "{application:?}: {line}");
    }
    let id = server.site.json(&["key", "list", "O'Neil the 1st"])[0]["id"].clone();
    let rotated = server.site.run(&["key", "rotate", id.as_str().unwrap()]);
    let key = String::from_utf8(rotated.stdout.clone()).unwrap();
    assert_eq!(status(&server.site, &advice(&rotated), key.trim()), "200");
}

#[test]
fn advice_of_all_keys_has_the_name_in_a_variable() {
    let server = Server::new();
    let output = server.site.run(&["key", "generate", "--all", "--yes"]);
    let rows = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(rows.lines().next(), Some("uid,username,id,key"));
    let key = rows.trim().rsplit(',').next().unwrap();
    let line = advice(&output).replace("/PATH", "/user/1");
    let line = format!("USERNAME=admin; {line}");
    assert_eq!(status(&server.site, &line, key), "200", "{line}");
}

#[test]
fn programs_get_no_advice() {
    let server = Server::new();
    let output = server.site.run(&["key", "generate", "admin", "--output", "json"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn key_that_no_application_takes_is_reported() {
    let server = Server::new();
    server.patch_application(json!({ "enabled": false }));
    let output = server.site.run(&["key", "generate", "admin"]);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && errors.contains("No application accepts this key"),
        "{errors}"
    );
}

#[test]
fn broken_script_says_what_still_works_without_a_server() {
    let site = Site::new();
    site.json(&["init"]);
    let id = site.json(&["key", "list"])[0]["id"].as_str().unwrap().to_owned();
    std::fs::create_dir(site.path().join("scripts")).unwrap();
    std::fs::write(site.path().join("scripts/hooks.rhai"), "fn on_request(").unwrap();
    let refused = site.run(&["key", "generate", "admin"]);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && refused.stdout.is_empty(), "{errors}");
    for part in ["hooks.rhai:", "Nothing was changed", "keyward script check", "revoked"] {
        assert!(errors.contains(part), "{errors}");
    }
    assert_eq!(site.json(&["key", "list"]).as_array().unwrap().len(), 1);
    assert!(site.run(&["key", "revoke", &id]).status.success());
}
