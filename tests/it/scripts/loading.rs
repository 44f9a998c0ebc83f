//! What is loaded and what is not: a broken set stops the start, and on a reload the last good one stays.

use std::process::Output;

use crate::harness::{Server, Site};

use super::*;

/// A start that must fail, and what it says.
fn fails(site: &Site) -> String {
    // One that starts after all would go on for ever.
    let mut command = std::process::Command::new("timeout");
    let program = site.command(&["serve"]);
    command.args(["-k", "1", "60"]).arg(program.get_program()).args(program.get_args());
    command.current_dir(site.path()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_ne!(status.code(), Some(124), "it started");
    assert!(!status.success(), "it started");
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn a_broken_script_stops_the_start_and_shows_where() {
    let text = "// A comment.\nfn on_request(req) {\n    if req.path == \"/\" { denny(403, \"NO\", \"No.\"); }\n}\n";
    let site = site(&[("hooks.rhai", text)]);
    let said = fails(&site);
    assert!(
        said.contains("hooks.rhai:3:26: there is no function denny; did you mean deny?"),
        "{said}"
    );
    let lines: Vec<&str> = said.lines().collect();
    let shown = lines.iter().position(|line| line.contains("denny(403")).unwrap();
    let caret = lines[shown + 1].find('^').unwrap();
    assert_eq!(lines[shown].find("denny"), Some(caret), "{said}");
    // Nothing was made of which nobody would have seen the key.
    write(&site, "hooks.rhai", "fn on_request(req) {}");
    let server = site.start();
    assert_eq!(server.asks("GET", "/user/1?_format=json").send().status, 200);
}

#[test]
fn a_failing_test_of_a_script_stops_the_start() {
    let text = "fn on_request(req) {}\nfn test_sums() {\n    assert_eq(1 + 1, 3);\n}\n";
    let said = fails(&site(&[("hooks.rhai", text)]));
    assert!(said.contains("hooks.rhai:3:5: test_sums failed"), "{said}");
}

#[test]
fn a_script_that_is_named_and_missing_stops_the_start() {
    let server = server(&[
        ("auth/mine.rhai", "fn verify(req, user, credential) { false }"),
        ("handlers/hello.rhai", "fn handle(req, identity) { \"hello\" }"),
    ]);
    resource(&server, "hello", "/hello", json!({ "handler": "script:hello" }));
    application(&server, "mine");
    let key = server.key.clone();
    let site = server.kill();
    let folder = site.path().join("scripts");
    for (file, owner) in [
        ("auth/mine.rhai", "the application scripted"),
        ("handlers/hello.rhai", "the resource hello"),
    ] {
        let (there, away) = (folder.join(file), site.path().join("away"));
        fs::rename(&there, &away).unwrap();
        let said = fails(&site);
        let says = format!("{file}: this script is missing, and {owner} needs it.");
        assert!(said.contains(&says), "{said}");
        fs::rename(away, there).unwrap();
    }
    let server = Server::start(site, key);
    assert_eq!(code(&server.asks("GET", "/hello").send()), error(401, "AUTHENTICATION_FAILED"));
}

/// The ways in which a script that is in force can be damaged, and what then stays.
#[test]
fn the_last_good_set_stays_when_a_file_is_damaged() {
    let hook =
        "fn on_request(req) { if req.path == \"/shut\" { deny(403, \"SHUT\", \"Shut.\"); } }";
    let server = server(&[
        ("hooks.rhai", hook),
        ("auth/mine.rhai", "fn verify(req, user, credential) { credential.secret == \"k\" }"),
    ]);
    resource(&server, "shut", "/shut", json!({}));
    application(&server, "mine");
    let file = |name: &str| server.site.path().join("scripts").join(name);
    let shut = || code(&server.request("GET", "/shut").send());
    let known = || {
        let named = server.request("GET", "/user/1?_format=json");
        named.header("API-KEY", crate::harness::credential("admin", "k")).send().status
    };
    assert_eq!((shut(), known(), problems(&server)), (error(403, "SHUT"), 200, 0));
    let damage = |what: &str, name: &str, does: &dyn Fn(&Path)| {
        let path = file(name);
        let good = fs::read(&path).unwrap();
        does(&path);
        hang_up(&server);
        until(what, || problems(&server) == 1);
        assert_eq!((shut(), known()), (error(403, "SHUT"), 200), "{what}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        let _ = fs::remove_file(&path);
        fs::write(&path, good).unwrap();
        hang_up(&server);
        until("all is well again", || problems(&server) == 0);
        assert_eq!((shut(), known()), (error(403, "SHUT"), 200), "{what}");
    };
    damage("broken", "hooks.rhai", &|path| fs::write(path, "fn on_request(req) {").unwrap());
    damage("truncated", "hooks.rhai", &|path| fs::write(path, &hook[..30]).unwrap());
    damage("emptied", "hooks.rhai", &|path| fs::write(path, "").unwrap());
    damage("no text", "hooks.rhai", &|path| fs::write(path, b"\xff\xfe").unwrap());
    damage("unreadable", "hooks.rhai", &|path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap();
    });
    damage("a folder", "hooks.rhai", &|path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    });
    damage("deleted", "auth/mine.rhai", &|path| fs::remove_file(path).unwrap());
    damage("emptied too", "auth/mine.rhai", &|path| fs::write(path, "").unwrap());
    server.tells("the scripts stay as they were: hooks.rhai:1:21: ");
}

#[test]
fn a_change_is_seen_without_being_asked_for() {
    let hook = |code: &str| format!("fn on_request(req) {{ deny(403, \"{code}\", \"No.\"); }}");
    let server = server(&[("hooks.rhai", &hook("FIRST"))]);
    resource(&server, "orders", "/orders", json!({}));
    let said = || code(&server.asks("GET", "/orders").send()).1;
    assert_eq!(said(), "FIRST");
    write(&server.site, "hooks.rhai", &hook("SECOND"));
    until("the second is in force", || said() == "SECOND");
    // A hook that is taken away by hand is gone: that is how one is switched off.
    fs::remove_file(server.site.path().join("scripts/hooks.rhai")).unwrap();
    until("it is gone", || server.asks("GET", "/orders").send().status == 200);
}
