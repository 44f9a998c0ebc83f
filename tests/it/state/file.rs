//! The command line: a file that its owner alone can read, standard input, and a store that is made of a file.

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

fn said(output: &Output) -> (i32, String) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code().unwrap(), said)
}

fn put(site: &Site, name: &str, text: &str) {
    fs::write(site.path().join(name), text).unwrap();
}

#[test]
fn a_file_is_written_for_its_owner_and_never_over_another() {
    let server = Server::new();
    let site = &server.site;
    let (exit, text) = said(&site.run(&["export", "all.toml"]));
    assert_eq!(exit, 0, "{text}");
    let file = site.path().join("all.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let held = fs::read(&file).unwrap();
    assert!(held.starts_with(b"# The state of a Keyward"));
    assert_eq!(site.run(&["export"]).stdout, held);
    server.user("late", &[]);
    let (exit, text) = said(&site.run(&["export", "all.toml"]));
    assert!(exit == 4 && text.contains("there is such a file already"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), held);
    assert_eq!(said(&site.run(&["export", "no/such/folder.toml"])).0, 2);
    assert!(
        !fs::read_dir(site.path())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_str().unwrap().contains(".part") })
    );
}

#[test]
fn people_read_a_difference_and_programs_json() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("bob", &["access user profiles"]);
    put(
        site,
        "state.toml",
        "version = 1\n[[users]]\nname = \"anna\"\n[[users]]\nname = \"bob\"\nactive = false\n[[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n",
    );
    let shown = "~ user bob: active true → false, roles [\"role-of-bob\"] → []\n+ user anna\n= 1 unchanged\n";
    let mut lines: Vec<&str> = shown.lines().collect();
    lines.sort_unstable();
    for args in [&["apply", "state.toml", "--dry-run"][..], &["apply", "state.toml"]] {
        let output = site.run(args);
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        let mut found: Vec<&str> = printed.lines().collect();
        found.sort_unstable();
        assert_eq!(found, lines, "{}", said(&output).1);
    }
    let told = site.json(&["apply", "state.toml"]);
    assert_eq!(
        told,
        json!({ "dry_run": false, "added": 0, "changed": 0, "removed": 0, "unchanged": 3, "changes": [] })
    );
    // From standard input, and with its line where it is wrong.
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
    let (exit, text) = said(&output);
    let problem: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (exit, &problem["errors"][0]["location"]),
        (4, &json!("line 5, column 1: user x: actif"))
    );
    assert_eq!(problem["errors"][0]["fix"], "Did you mean active?");
    for (name, exit) in [("missing.toml", 2), ("data", 2)] {
        assert_eq!(said(&site.run(&["apply", name])).0, exit);
    }
    fs::write(site.path().join("bytes.toml"), b"version = 1\n\xff").unwrap();
    let (exit, text) = said(&site.run(&["apply", "bytes.toml"]));
    assert!(exit == 4 && text.contains("line 2 is not UTF-8"), "{text}");
}

#[test]
fn a_store_is_made_of_a_file() {
    let server = Server::new();
    let bob = server.user_with("bob", &["access user profiles"]);
    let site = &server.site;
    site.json(&["user", "edit", "bob", "--mail", "bob@x.example"]);
    said(&site.run(&["export", "all.toml"]));
    let text = fs::read_to_string(site.path().join("all.toml")).unwrap();
    // Keys are good with their pepper alone, and nothing is made before that is known.
    let other = Site::new();
    put(&other, "all.toml", &text);
    for args in [&["apply", "all.toml"][..], &["apply", "all.toml", "--dry-run"]] {
        let (exit, text) = said(&other.run(args));
        assert!(exit == 4 && text.contains("another pepper"), "{exit} {text}");
        assert!(!other.path().join("data").exists());
    }
    fs::create_dir_all(other.path().join("data")).unwrap();
    fs::copy(site.path().join("data/keyward.pepper"), other.path().join("data/keyward.pepper"))
        .unwrap();
    put(&other, "bad.toml", &text.replace("roles = [\"administrator\"]", "roles = [\"x\"]"));
    for args in [&["apply", "bad.toml"][..], &["apply", "all.toml", "--dry-run"]] {
        said(&other.run(args));
        assert!(!other.store().exists());
    }
    let told = other.json(&["apply", "all.toml"]);
    assert_eq!((&told["changed"], &told["dry_run"]), (&json!(0), &json!(false)));
    assert_eq!(String::from_utf8(other.run(&["export"]).stdout).unwrap(), text);
    assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
    let made = Server::start(other, server.key.clone());
    let asked = made.request("GET", "/user/1").header("API-KEY", &bob.credential).send();
    assert_eq!(asked.status, 200, "{}", asked.body);
    assert_eq!(made.asks("GET", "/user/2").send().status, 200);
    let told = made.site.json(&["apply", "all.toml", "--prune"]);
    assert_eq!(told["changes"], json!([]));
}

#[test]
fn an_apply_that_is_killed_has_done_all_of_it_or_nothing() {
    let site = Site::new();
    site.json(&["init"]);
    let key = |at: usize| {
        format!(
            "[[keys]]\nid = \"{at:08}\"\nuser = \"user{at}\"\ndigest = \"{}\"\n",
            "a".repeat(64)
        )
    };
    let export = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let pepper = export.lines().find(|line| line.starts_with("pepper")).unwrap();
    let user = |at: usize| format!("[[users]]\nname = \"user{at}\"\n");
    let users: String = (0..400).map(user).collect();
    let keys: String = (0..400).map(key).collect();
    put(&site, "state.toml", &format!("version = 1\n{pepper}\n{users}{keys}"));
    let mut seen = std::collections::BTreeSet::new();
    for patience in [10, 30, 50, 70, 90, 110, 130, 160, 200, 250, 300, 400, 2000] {
        let other = Site::new();
        let from = site.path().join(".");
        let copied = Command::new("cp").arg("-a").args([&*from, other.path()]).status().unwrap();
        assert!(copied.success());
        let mut apply = other.command(&["apply", "state.toml"]);
        let mut child = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(patience));
        let _ = child.kill();
        child.wait().unwrap();
        let text = String::from_utf8(other.run(&["export"]).stdout).unwrap();
        let counts = ["[[users]]", "[[keys]]"].map(|what| text.matches(what).count());
        assert!([[1, 1], [401, 401]].contains(&counts), "{counts:?} after {patience} ms");
        assert_eq!(other.json(&["audit", "verify"])["state"], "intact");
        seen.insert(counts);
        let told = other.json(&["apply", "state.toml"]);
        let count = |name: &str| told[name].as_u64().unwrap();
        assert_eq!(count("added") + count("unchanged"), 800);
    }
    assert_eq!(seen.len(), 2, "it was killed too early or too late each time: {seen:?}");
}
