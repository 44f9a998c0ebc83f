//! Tests of `key generate --all`, which generates keys for all users, and of resuming an
//! interrupted run.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Server, Site, TIMEOUT, credential};

/// Creates `count` users through the admin API.
fn add_users(server: &Server, count: usize) {
    for number in 0..count {
        let body = json!({ "name": format!("user {number}") });
        let created = server.admin_api("POST", "/api/v1/users").json(&body).send();
        assert_eq!(created.status, 201, "{}", created.body);
    }
}

/// Parses the CSV output. Returns the key of each user by UID.
fn parse_csv(text: &str) -> BTreeMap<u64, String> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("uid,username,id,key"));
    let mut keys = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 4, "{line}");
        assert!(fields[3].contains(&format!("_{}_", fields[2])));
        let duplicate = keys.insert(fields[0].parse().unwrap(), fields[3].to_owned());
        assert!(duplicate.is_none(), "{line}");
    }
    keys
}

/// The owners of all keys: one UID for each key, sorted.
fn owners_of_keys(site: &Site) -> Vec<u64> {
    let listed = site.json(&["key", "list"]);
    let mut users: Vec<u64> =
        listed.as_array().unwrap().iter().map(|key| key["user"].as_u64().unwrap()).collect();
    users.sort_unstable();
    users
}

#[test]
fn generate_all_creates_a_working_key_for_each_user() {
    let server = Server::new();
    add_users(&server, 5);
    let output = server
        .site
        .run(&["key", "generate", "--all", "--yes", "--file", "keys.csv", "--label", "all"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && stderr.contains("6 keys were created. They are in keys.csv."),
        "{stderr}"
    );
    assert!(output.stdout.is_empty());
    let path = server.site.path().join("keys.csv");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!server.site.path().join("keys.csv.run").exists());
    let keys = parse_csv(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(keys.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for (uid, key) in &keys {
        server.forbid_in_log(key.rsplit('_').next().unwrap());
        let name = if *uid == 1 { "admin".into() } else { format!("user {}", uid - 2) };
        let request = server.request("GET", &format!("/user/{uid}"));
        assert_eq!(request.header("API-KEY", credential(&name, key)).send().status, 200, "{name}");
    }
    // An existing file is not overwritten.
    let output = server.site.run(&["key", "generate", "--all", "--yes", "--file", "keys.csv"]);
    assert_eq!(output.status.code(), Some(2));
    // `--missing-only` creates keys only for users without a key. Here the output is JSON lines.
    server.add_user("late", &[]);
    let args = ["key", "generate", "--all", "--missing-only", "--format", "jsonl"];
    let printed = String::from_utf8(server.site.run(&args).stdout).unwrap();
    let rows: Vec<Value> = printed.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["uid"]), (1, &json!(7)), "{printed}");
    server.forbid_in_log(rows[0]["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert!(server.site.run(&args).stdout.is_empty());
    let entries = server.site.json(&["audit", "list", "--limit", "2"]);
    assert_eq!(
        (&entries[0]["action"], &entries[0]["after"]["keys"]),
        (&json!("key.generate-all"), &json!(1))
    );
}

#[test]
fn only_an_administrator_generates_keys_for_administrators() {
    let server = Server::new();
    let helper = server.user_with_permissions("helper", &["administer users"]);
    let generate_all = |body: Value| {
        let request =
            crate::harness::Request::new(server.admin, "POST", "/api/v1/keys/generate-all");
        request.header("API-KEY", &helper.credential).json(&body).send()
    };
    let response = generate_all(json!({})).json();
    let items = response["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["user"]), (1, &json!(2)));
    server.forbid_in_log(items[0]["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert_eq!(response["skipped"]["administrator"], 1);
    for (body, field) in [
        (json!({ "run": "x" }), "run"),
        (json!({ "run": "+0000000000000000000000000000001" }), "run"),
        (json!({ "limit": 0 }), "limit"),
        (json!({ "limit": 5001 }), "limit"),
        (json!({ "after": "x" }), "after"),
        (json!({ "missing_only": 1 }), "missing_only"),
        (json!({ "user": 1 }), "user"),
        (json!({ "expires": "2001-01-01T00:00:00Z" }), "expires"),
    ] {
        let response = generate_all(body.clone());
        assert_eq!(response.status, 422, "{body}: {}", response.body);
        assert_eq!(response.json()["errors"][0]["location"], field, "{body}");
    }
    let scoped = server.generate_key("helper", &["--scope", "administer users"]);
    let request = crate::harness::Request::new(server.admin, "POST", "/api/v1/keys/generate-all");
    assert_eq!(request.header("API-KEY", scoped.credential).json(&json!({})).send().status, 403);
}

#[test]
fn a_killed_run_resumes_without_duplicate_keys() {
    let mut site = {
        let server = Server::new();
        add_users(&server, 60);
        server.kill()
    };
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    // Kill the command at different moments: before the first write to the file, between two
    // writes, and after a commit whose response the command has not received.
    for delay in [1, 5, 10, 15, 20, 25, 30, 40, 60] {
        let mut child =
            site.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(delay));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let path = site.path().join("keys.csv");
    let run_file = site.path().join("keys.csv.run");
    if !run_file.exists() {
        // There is no run file, for one of two reasons: a run finished before its kill, or no run
        // began. Start a new run on the same store.
        let _ = std::fs::remove_file(&path);
    }
    let start = Instant::now();
    loop {
        let output = site.run(&args);
        if output.status.success() {
            break;
        }
        assert!(start.elapsed() < TIMEOUT, "{}", String::from_utf8_lossy(&output.stderr));
    }
    // UID 1 is the administrator, whose key was created at the first start.
    assert_eq!(owners_of_keys(&site), (1..=61).collect::<Vec<_>>());
    let server = Server::start(std::mem::take(&mut site), String::new());
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn a_resumed_run_writes_the_keys_of_the_lost_response() {
    let server = Server::new();
    add_users(&server, 30);
    let run = "00112233445566778899aabbccddeeff";
    let path = server.site.path().join("keys.csv");
    let run_file = server.site.path().join("keys.csv.run");
    // Create the keys of all users without the command, as if the command had been killed before it
    // wrote these keys to the file.
    let body = json!({ "run": run, "missing_only": true });
    let lost = server.admin_api("POST", "/api/v1/keys/generate-all").json(&body).send().json();
    let lost: BTreeSet<String> = lost["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(lost.len(), 30);
    lost.iter().for_each(|key| server.forbid_in_log(key.rsplit('_').next().unwrap()));
    std::fs::write(&run_file, json!({ "run": run, "asked": { "missing_only": true } }).to_string())
        .unwrap();
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    // A command with other options cannot resume this run.
    let output = server.site.run(&["key", "generate", "--all", "--yes", "--file", "keys.csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!path.exists());
    assert!(server.site.run(&args).status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(parse_csv(&text).into_values().collect::<BTreeSet<_>>(), lost);
    // Truncate the file in the middle of a row, as after a kill.
    std::fs::write(&run_file, json!({ "run": run, "asked": { "missing_only": true } }).to_string())
        .unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(server.site.run(&args).status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(owners_of_keys(&server.site).len(), 31);
}
