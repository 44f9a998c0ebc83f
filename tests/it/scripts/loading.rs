//! Tests of loading scripts: broken scripts stop the start, and after a failed reload the last good
//! scripts stay active.

use std::process::Output;

use crate::harness::{Server, Site};

use super::*;

/// Asserts that the server does not start, and returns the standard error.
fn failed_start(site: &Site) -> String {
    // A server that starts despite the error would run for ever, so `timeout` ends the server.
    let mut command = std::process::Command::new("timeout");
    let program = site.command(&["serve"]);
    command.args(["-k", "1", "60"]).arg(program.get_program()).args(program.get_args());
    command.current_dir(site.path()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert_ne!(status.code(), Some(124), "the server started");
    assert!(!status.success(), "the server started");
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    String::from_utf8_lossy(&stderr).into_owned()
}

#[test]
fn broken_script_stops_the_start_and_its_place_is_shown() {
    let text = "// A comment.\nfn on_request(req) {\n    if req.path == \"/\" { denny(403, \"NO\", \"No.\"); }\n}\n";
    let site = site(&[("hooks.rhai", text)]);
    let stderr = failed_start(&site);
    assert!(
        stderr.contains("hooks.rhai:3:26: there is no function denny; did you mean deny?"),
        "{stderr}"
    );
    let lines: Vec<&str> = stderr.lines().collect();
    let shown = lines.iter().position(|line| line.contains("denny(403")).unwrap();
    let caret = lines[shown + 1].find('^').unwrap();
    assert_eq!(lines[shown].find("denny"), Some(caret), "{stderr}");
    // The failed start created no store, so the next start creates the first key.
    write_script(&site, "hooks.rhai", "fn on_request(req) {}");
    let server = site.start();
    assert_eq!(server.request_as_admin("GET", "/user/1?_format=json").send().status, 200);
}

#[test]
fn failing_script_test_stops_the_start() {
    let text = "fn on_request(req) {}\nfn test_sums() {\n    assert_eq(1 + 1, 3);\n}\n";
    let stderr = failed_start(&site(&[("hooks.rhai", text)]));
    assert!(stderr.contains("hooks.rhai:3:5: test_sums failed"), "{stderr}");
}

#[test]
fn missing_script_that_a_record_needs_stops_the_start() {
    let server = server(&[
        ("auth/mine.rhai", "fn verify(req, user, credential) { false }"),
        ("handlers/hello.rhai", "fn handle(req, identity) { \"hello\" }"),
    ]);
    create_resource(&server, "hello", "/hello", json!({ "handler": "script:hello" }));
    create_default_application(&server, "mine");
    let key = server.key.clone();
    let site = server.kill();
    let folder = site.path().join("scripts");
    for (file, owner) in [
        ("auth/mine.rhai", "the application scripted"),
        ("handlers/hello.rhai", "the resource hello"),
    ] {
        let (path, moved_away) = (folder.join(file), site.path().join("away"));
        fs::rename(&path, &moved_away).unwrap();
        let stderr = failed_start(&site);
        let expected = format!("{file}: this script is missing, and {owner} needs it.");
        assert!(stderr.contains(&expected), "{stderr}");
        fs::rename(moved_away, path).unwrap();
    }
    let server = Server::start(site, key);
    assert_eq!(
        status_and_code(&server.request_as_admin("GET", "/hello").send()),
        error(401, "AUTHENTICATION_FAILED")
    );
}

/// Damages the files of active scripts in several ways. Each time, the loaded scripts stay active.
#[test]
fn last_good_scripts_stay_active_when_a_file_is_damaged() {
    let hook =
        "fn on_request(req) { if req.path == \"/shut\" { deny(403, \"SHUT\", \"Shut.\"); } }";
    let server = server(&[
        ("hooks.rhai", hook),
        ("auth/mine.rhai", "fn verify(req, user, credential) { credential.secret == \"k\" }"),
    ]);
    create_resource(&server, "shut", "/shut", json!({}));
    create_default_application(&server, "mine");
    let file = |name: &str| server.site.path().join("scripts").join(name);
    let hook_error = || status_and_code(&server.request("GET", "/shut").send());
    let scripted_status = || {
        let request = server.request("GET", "/user/1?_format=json");
        request.header("API-KEY", crate::harness::credential("admin", "k")).send().status
    };
    assert_eq!(
        (hook_error(), scripted_status(), problem_count(&server)),
        (error(403, "SHUT"), 200, 0)
    );
    let damage = |description: &str, name: &str, change: &dyn Fn(&Path)| {
        let path = file(name);
        let good = fs::read(&path).unwrap();
        change(&path);
        reload_by_signal(&server);
        wait_until(description, || problem_count(&server) == 1);
        assert_eq!((hook_error(), scripted_status()), (error(403, "SHUT"), 200), "{description}");
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        let _ = fs::remove_file(&path);
        fs::write(&path, good).unwrap();
        reload_by_signal(&server);
        wait_until("the repaired script is loaded", || problem_count(&server) == 0);
        assert_eq!((hook_error(), scripted_status()), (error(403, "SHUT"), 200), "{description}");
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
    server.wait_for_log(
        "cannot reload the scripts, so the old scripts stay in use: hooks.rhai:1:21: ",
    );
}

#[test]
fn changed_scripts_are_reloaded_automatically() {
    let hook = |code: &str| format!("fn on_request(req) {{ deny(403, \"{code}\", \"No.\"); }}");
    let server = server(&[("hooks.rhai", &hook("FIRST"))]);
    create_resource(&server, "orders", "/orders", json!({}));
    let error_code = || status_and_code(&server.request_as_admin("GET", "/orders").send()).1;
    assert_eq!(error_code(), "FIRST");
    write_script(&server.site, "hooks.rhai", &hook("SECOND"));
    wait_until("the second script is active", || error_code() == "SECOND");
    // A hook is no longer active after its file is deleted.
    fs::remove_file(server.site.path().join("scripts/hooks.rhai")).unwrap();
    wait_until("the hook is removed", || {
        server.request_as_admin("GET", "/orders").send().status == 200
    });
}
