//! Tests of the real program's command line, with and without a running server.

use std::{io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// Runs a command that must fail, and returns its exit code and standard error.
#[track_caller]
fn run_failing(site: &Site, args: &[&str]) -> (i32, String) {
    let output = site.run(args);
    assert!(!output.status.success(), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

/// Runs the commands of an operator's typical day, and checks the output of each.
fn run_typical_commands(site: &Site) {
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

    assert_eq!(run_failing(site, &["user", "show", "nobody"]).0, 3);
    assert_eq!(run_failing(site, &["key", "show", "00000000"]).0, 3);
    assert_eq!(run_failing(site, &["role", "delete", "editor", "--yes"]).0, 4);
    let (code, stderr) = run_failing(site, &["user", "add", "ann"]);
    assert_eq!(
        (code, stderr.contains("name: The username ann is already taken.")),
        (4, true),
        "{stderr}"
    );
    assert_eq!(run_failing(site, &["user", "add", "x", "--role", "none"]).0, 4);
    assert_eq!(run_failing(site, &["user", "nonsense"]).0, 2);
    assert_eq!(run_failing(site, &["user", "delete", "#1", "--yes"]).0, 4);

    for command in
        [["resource", "delete", "motd"], ["app", "delete", "partners"], ["user", "delete", "ann"]]
    {
        // Standard input is no terminal, so the command cannot ask for confirmation.
        assert_eq!(run_failing(site, &command).0, 2, "{command:?}");
        let output = site.run(&[command.as_slice(), &["--yes"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(names(site.json(&["user", "list"])), ["admin"]);
}

#[test]
fn commands_work_with_a_running_server() {
    let server = Server::new();
    run_typical_commands(&server.site);
}

#[test]
fn commands_work_without_a_server() {
    let site = Site::new();
    site.json(&["init"]);
    run_typical_commands(&site);
    // A server that starts after a command sees the changes of this command.
    site.json(&["user", "add", "late"]);
    let server = Server::start(site, String::new());
    assert_eq!(server.site.json(&["user", "show", "late"])["name"], "late");
}

#[test]
fn a_revocation_takes_effect_with_the_next_request() {
    let server = Server::new();
    server.add_user("bob", &["--role", "administrator"]);
    for _ in 0..20 {
        let key = server.generate_key("bob", &[]);
        let send = || server.request("GET", "/user/1").header("API-KEY", &key.credential).send();
        assert_eq!(send().status, 200);
        server.site.json(&["key", "revoke", &key.id]);
        send().assert_error(401, "AUTHENTICATION_FAILED", "The API key has been revoked.");
    }
}

#[test]
fn lists_are_printed_as_tables_and_only_a_new_key_goes_to_standard_output() {
    let server = Server::new();
    let users = String::from_utf8(server.site.run(&["user", "list"]).stdout).unwrap();
    assert!(users.starts_with("UID") && users.contains("administrator"), "{users}");
    let output = server.site.run(&["key", "generate", "admin"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.starts_with("kw_") && printed.trim().len() == 48 && printed.ends_with('\n'));
    server.forbid_in_log(printed.trim().rsplit('_').next().unwrap());
    assert!(!String::from_utf8(output.stderr).unwrap().contains(printed.trim()));
}

#[test]
fn a_password_is_read_from_standard_input_and_never_from_an_argument() {
    let server = Server::new();
    server.forbid_in_log("correct horse");
    let mut child = server
        .site
        .command(&["user", "add", "pia", "--password-stdin", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"correct horse\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let created: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(created["has_password"], true);
    assert_eq!(run_failing(&server.site, &["user", "add", "eve", "--password", "x"]).0, 2);
}

#[test]
fn a_command_does_not_create_a_missing_store() {
    let site = Site::new();
    let (code, stderr) = run_failing(&site, &["user", "list"]);
    assert_eq!((code, stderr.contains("keyward init")), (5, true), "{stderr}");
    assert!(!site.store().exists());
    let (code, _) = run_failing(&site, &["healthcheck"]);
    assert_eq!(code, 1);
}

#[test]
fn healthcheck_reports_whether_the_server_is_ready() {
    let server = Server::new();
    assert_eq!(server.site.json(&["healthcheck"]), json!({ "status": "ready" }));
    let site = server.kill();
    assert_eq!(run_failing(&site, &["healthcheck"]).0, 1);
}

#[test]
fn the_configuration_can_be_checked_printed_and_described_as_a_schema() {
    let site = Site::new().with_env("KEYWARD_LIMITS__HEADERS", "50");
    assert!(site.run(&["config", "check"]).status.success());
    let shown = String::from_utf8(site.run(&["config", "print"]).stdout).unwrap();
    assert!(shown.contains("headers = 50"), "{shown}");
    let file = site.path().join("printed.toml");
    std::fs::write(&file, &shown).unwrap();
    let output = site.run(&["--config", "printed.toml", "config", "print"]);
    let reprinted = String::from_utf8(output.stdout).unwrap();
    // The two texts differ only in the lines before `[server]`, which name the source of the
    // settings.
    let settings = |text: &str| text[text.find("[server]").unwrap()..].to_owned();
    assert_eq!(settings(&reprinted), settings(&shown));
    let schema: Value = serde_json::from_slice(&site.run(&["config", "schema"]).stdout).unwrap();
    assert!(schema["properties"]["server"].is_object(), "{schema}");
    let (code, stderr) =
        run_failing(&Site::new().with_env("KEYWARD_LIMITS__HEADERS", "many"), &["config", "check"]);
    assert_eq!((code, stderr.contains("KEYWARD_LIMITS__HEADERS")), (2, true), "{stderr}");
}

#[test]
fn completions_are_generated_for_each_shell() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        let output = site.run(&["completions", shell]);
        assert!(output.status.success() && output.stdout.len() > 1000, "{shell}");
    }
}
