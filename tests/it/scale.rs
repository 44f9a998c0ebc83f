//! Tests of work with many records: it ends with its client and with the server, exports are whole,
//! and changes of many users are counted.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Server, Site, TIMEOUT};

/// A state file whose check takes minutes: each pattern of one half overlaps with each one of the
/// other half.
fn slow_state_file(site: &Site) {
    let mut text = String::from("version = 1\n");
    for number in 0..1_500 {
        for (half, path) in
            [("a", format!("/s/{number}/{{x}}")), ("b", format!("/s/{{x}}/{number}"))]
        {
            text.push_str(&format!(
                "[[resources]]\nid = \"{half}{number}\"\nhandler = \"respond\"\npath = \"{path}\"\n\
                 methods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"*\"]\n"
            ));
        }
    }
    fs::write(site.path().join("slow.toml"), text).unwrap();
}

/// The CPU time of the server's threads, in clock ticks.
fn cpu_ticks(server: &Server) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// A server that applies the slow file for a client.
fn busy_server(shutdown_seconds: &str) -> (Server, Child) {
    let site = Site::new().with_env("KEYWARD_SERVER__SHUTDOWN_SECONDS", shutdown_seconds);
    let site = site.with_env("KEYWARD_LOG__LEVEL", "info");
    slow_state_file(&site);
    let server = site.start();
    let idle = cpu_ticks(&server);
    let mut client = server.site.command(&["apply", "slow.toml"]);
    let client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    // Reading the file takes a fraction of this time.
    while cpu_ticks(&server) < idle + 300 {
        assert!(Instant::now() < deadline, "the server is not busy");
        thread::sleep(Duration::from_millis(20));
    }
    (server, client)
}

/// Asserts that no resource of the file is in the store.
fn assert_nothing_applied(site: &Site) {
    let resources = site.json(&["resource", "list"]);
    assert_eq!(resources.as_array().unwrap().len(), 1, "{resources}");
}

#[test]
fn server_ends_in_time_although_a_file_is_being_applied() {
    let (mut server, mut client) = busy_server("2");
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    client.wait().unwrap();
    assert_nothing_applied(&server.site);
}

#[test]
fn second_signal_ends_the_server_at_once() {
    let (mut server, mut client) = busy_server("3600");
    let pid = server.pid().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    server.wait_for_log("stopping");
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    client.wait().unwrap();
    assert_nothing_applied(&server.site);
}

#[test]
fn work_ends_soon_after_its_client_has_left() {
    let (server, mut client) = busy_server("10");
    client.kill().unwrap();
    client.wait().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let before = cpu_ticks(&server);
        thread::sleep(Duration::from_millis(500));
        // A busy thread takes 50 ticks in this time.
        if cpu_ticks(&server) < before + 10 {
            break;
        }
        assert!(Instant::now() < deadline, "the server goes on");
    }
    assert_nothing_applied(&server.site);
}

#[test]
fn export_ends_with_a_mark_and_a_cut_file_is_refused() {
    let server = Server::new();
    for number in 0..30 {
        server.add_user(&format!("user-{number}"), &[]);
    }
    let run = |args: &[&str]| server.site.run(args);
    assert!(run(&["export", "state.toml"]).status.success());
    let text = fs::read_to_string(server.site.path().join("state.toml")).unwrap();
    // Roles, the application, the resource, the users and the key.
    assert!(text.ends_with("\n# end: 37 records.\n"), "{text}");
    assert_eq!(String::from_utf8(run(&["export"]).stdout).unwrap(), text);
    assert!(run(&["apply", "state.toml"]).status.success());
    for end in [text.len() - 2, text.len() - 25, text.len() / 2] {
        fs::write(server.site.path().join("cut.toml"), &text[..end]).unwrap();
        let refused = run(&["apply", "cut.toml", "--prune"]);
        assert_eq!(refused.status.code(), Some(4));
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert!(errors.contains("The end of the file is missing"), "{errors}");
    }
    assert_eq!(server.site.json(&["user", "list"]).as_array().unwrap().len(), 31);
    // No file is left beside the store.
    let names = fs::read_dir(server.site.path().join("data")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name.to_string_lossy().starts_with("keyward")), "{names:?}");
}

#[test]
fn many_users_are_changed_and_deleted_by_conditions() {
    let server = Server::new();
    let json = |args: &[&str]| server.site.json(args);
    json(&["role", "add", "reader", "--label", "Readers"]);
    for number in 0..5 {
        server.add_user(&format!("build-{number}"), &[]);
    }
    server.generate_key("build-0", &["--label", "old"]);
    let dry =
        json(&["user", "edit", "--where", "name=build-*", "--add-role", "reader", "--dry-run"]);
    assert_eq!(
        (&dry["matched"], &dry["changed"], &dry["dry_run"]),
        (&5.into(), &5.into(), &true.into())
    );
    assert_eq!(dry["first"].as_array().unwrap().len(), 5);
    assert_eq!(json(&["user", "show", "build-1"])["roles"], serde_json::json!([]));
    let edit = ["user", "edit", "--where", "name=build-*", "--add-role", "reader"];
    assert_eq!(json(&edit)["changed"], 5);
    assert_eq!(json(&edit)["unchanged"], 5);
    assert_eq!(json(&["user", "show", "build-1"])["roles"], serde_json::json!(["reader"]));
    assert_eq!(json(&["user", "block", "--where", "role=reader and name=*-4"])["changed"], 1);
    assert_eq!(json(&["user", "show", "build-4"])["active"], false);
    assert_eq!(json(&["user", "unblock", "--where", "active=false"])["changed"], 1);
    let revoked = json(&["key", "revoke", "--where", "user=build-0,label=old"]);
    assert_eq!((&revoked["changed"], &revoked["unchanged"]), (&1.into(), &0.into()));
    let text = server.site.run(&["user", "delete", "--where", "role=reader", "--yes"]);
    let note = String::from_utf8(text.stderr).unwrap();
    assert!(note.contains("5 users were deleted, 0 stay unchanged."), "{note}");
    assert_eq!(json(&["user", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn invalid_change_of_many_says_what_is_wrong() {
    let server = Server::new();
    for (args, code, text) in [
        (
            &["user", "edit", "--where", "rolle=x", "--add-role", "a"][..],
            4,
            "There is no condition \"rolle\"",
        ),
        (
            &["user", "edit", "--where", "role=x", "--add-role", "nobody"],
            4,
            "There is no role \"nobody\"",
        ),
        (&["user", "edit", "--where", "role=x"], 2, "give --add-role or --remove-role"),
        (&["user", "edit", "--where", "role=x", "--name", "y"], 2, "--name is for one user"),
        (&["user", "edit", "admin", "--where", "role=x"], 2, "cannot be used with"),
        (&["user", "block"], 2, "required"),
        (&["key", "revoke", "--where", "user=nobody"], 4, "There is no user \"nobody\""),
        (&["key", "revoke", "--where", "label=x", "--user", "admin"], 2, "cannot be used with"),
        (&["user", "delete", "--where", "", "--yes"], 4, "There is no condition."),
    ] {
        let output = server.site.run(args);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
    let bodies = [
        serde_json::json!({ "where": "role=x" }),
        serde_json::json!({ "where": "role=x", "delete": true, "active": false }),
        serde_json::json!({ "where": "role=x", "delete": true, "after": "x" }),
    ];
    for body in bodies {
        let response = server.admin_api("POST", "/api/v1/users/bulk").json(&body).send();
        assert_eq!(response.status, 422, "{}", response.body);
    }
}
