//! Tests of `export` and `apply` on the command line: private files, standard input, the printed
//! changes, and a store that is created from a file.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// The exit code and standard error of a command.
fn exit_and_stderr(output: &Output) -> (i32, String) {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains("panicked"), "{stderr}");
    (output.status.code().unwrap(), stderr)
}

fn write_file(site: &Site, name: &str, text: &str) {
    fs::write(site.path().join(name), text).unwrap();
}

#[test]
fn export_file_is_private_and_never_overwrites() {
    let server = Server::new();
    let site = &server.site;
    let (exit, text) = exit_and_stderr(&site.run(&["export", "all.toml"]));
    assert_eq!(exit, 0, "{text}");
    let file = site.path().join("all.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let written = fs::read(&file).unwrap();
    assert!(written.starts_with(b"# Roles, applications, resources, users and keys of a Keyward"));
    assert_eq!(site.run(&["export"]).stdout, written);
    server.add_user("late", &[]);
    let (exit, text) = exit_and_stderr(&site.run(&["export", "all.toml"]));
    assert!(exit == 4 && text.contains("the file exists already"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), written);
    assert_eq!(exit_and_stderr(&site.run(&["export", "no/such/folder.toml"])).0, 2);
    assert!(
        !fs::read_dir(site.path())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_str().unwrap().contains(".part") })
    );
}

#[test]
fn apply_prints_changes_or_json() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("bob", &["access user profiles"]);
    write_file(
        site,
        "state.toml",
        "version = 1\n[[users]]\nname = \"anna\"\n[[users]]\nname = \"bob\"\nactive = false\n[[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n",
    );
    let expected = "~ user bob: active true → false, roles [\"role-of-bob\"] → []\n+ user anna\n= 1 unchanged\n";
    let mut lines: Vec<&str> = expected.lines().collect();
    lines.sort_unstable();
    for args in [&["apply", "state.toml", "--dry-run"][..], &["apply", "state.toml", "--clear"]] {
        let output = site.run(args);
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        let mut found: Vec<&str> = printed.lines().collect();
        found.sort_unstable();
        assert_eq!(found, lines, "{}", exit_and_stderr(&output).1);
    }
    let result = site.json(&["apply", "state.toml"]);
    assert_eq!(
        result,
        json!({ "dry_run": false, "added": 0, "changed": 0, "removed": 0, "unchanged": 3, "changes": [] })
    );
    // With `-` the file comes from standard input. The error names the line.
    let mut child = site
        .command(&["apply", "-", "--output", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"version = 1\n\n[[users]]\nname = \"x\"\nactif = 1\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let (exit, text) = exit_and_stderr(&output);
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &problem["errors"][0]["location"]),
        (4, &json!("line 5, column 1: user x: actif"))
    );
    assert_eq!(problem["errors"][0]["fix"], "Did you mean active?");
    for (name, exit) in [("missing.toml", 2), ("data", 2)] {
        assert_eq!(exit_and_stderr(&site.run(&["apply", name])).0, exit);
    }
    fs::write(site.path().join("bytes.toml"), b"version = 1\n\xff").unwrap();
    let (exit, text) = exit_and_stderr(&site.run(&["apply", "bytes.toml"]));
    assert!(exit == 4 && text.contains("line 2 is not UTF-8"), "{text}");
}

#[test]
fn apply_creates_a_store_from_a_file() {
    let server = Server::new();
    let bob = server.user_with_permissions("bob", &["access user profiles"]);
    let site = &server.site;
    site.json(&["user", "edit", "bob", "--mail", "bob@x.example"]);
    exit_and_stderr(&site.run(&["export", "all.toml"]));
    let text = fs::read_to_string(site.path().join("all.toml")).unwrap();
    // Keys work only with the pepper with which they were created. `apply` checks the pepper before
    // it creates anything.
    let other = Site::new();
    write_file(&other, "all.toml", &text);
    for args in [&["apply", "all.toml"][..], &["apply", "all.toml", "--dry-run"]] {
        let (exit, text) = exit_and_stderr(&other.run(args));
        assert!(exit == 4 && text.contains("another pepper"), "{exit} {text}");
        assert!(!other.path().join("data").exists());
    }
    fs::create_dir_all(other.path().join("data")).unwrap();
    fs::copy(site.path().join("data/keyward.pepper"), other.path().join("data/keyward.pepper"))
        .unwrap();
    write_file(&other, "bad.toml", &text.replace("roles = [\"administrator\"]", "roles = [\"x\"]"));
    for args in [
        &["apply", "bad.toml", "--new"][..],
        &["apply", "all.toml", "--new", "--dry-run"],
        &["apply", "all.toml"],
    ] {
        exit_and_stderr(&other.run(args));
        assert!(!other.store().exists(), "{args:?}");
    }
    let result = other.json(&["apply", "all.toml", "--new"]);
    assert_eq!((&result["changed"], &result["dry_run"]), (&json!(0), &json!(false)));
    assert_eq!(String::from_utf8(other.run(&["export"]).stdout).unwrap(), text);
    assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
    let restored = Server::start(other, server.key.clone());
    let response = restored.request("GET", "/user/1").header("API-KEY", &bob.credential).send();
    assert_eq!(response.status, 200, "{}", response.body);
    assert_eq!(restored.request_as_admin("GET", "/user/2").send().status, 200);
    let result = restored.site.json(&["apply", "all.toml", "--prune"]);
    assert_eq!(result["changes"], json!([]));
}

#[test]
fn killed_apply_is_stored_entirely_or_not_at_all() {
    let site = Site::new();
    site.json(&["init"]);
    let key = |number: usize| {
        format!(
            "[[keys]]\nid = \"{number:08}\"\nuser = \"user{number}\"\ndigest = \"{}\"\n",
            "a".repeat(64)
        )
    };
    let export = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let pepper = export.lines().find(|line| line.starts_with("pepper")).unwrap();
    let user = |number: usize| format!("[[users]]\nname = \"user{number}\"\n");
    let users: String = (0..400).map(user).collect();
    let keys: String = (0..400).map(key).collect();
    write_file(&site, "state.toml", &format!("version = 1\n{pepper}\n{users}{keys}"));
    let mut seen = std::collections::BTreeSet::new();
    for milliseconds in [10, 30, 50, 70, 90, 110, 130, 160, 200, 250, 300, 400, 2000] {
        let other = Site::new();
        let from = site.path().join(".");
        let copied = Command::new("cp").arg("-a").args([&*from, other.path()]).status().unwrap();
        assert!(copied.success());
        let mut apply = other.command(&["apply", "state.toml"]);
        let mut child = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill();
        child.wait().unwrap();
        let text = String::from_utf8(other.run(&["export"]).stdout).unwrap();
        let counts = ["[[users]]", "[[keys]]"].map(|table| text.matches(table).count());
        assert!([[1, 1], [401, 401]].contains(&counts), "{counts:?} after {milliseconds} ms");
        assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
        seen.insert(counts);
        let result = other.json(&["apply", "state.toml"]);
        let count = |name: &str| result[name].as_u64().unwrap();
        assert_eq!(count("added") + count("unchanged"), 800);
    }
    assert_eq!(seen.len(), 2, "every kill came too early or too late: {seen:?}");
}
