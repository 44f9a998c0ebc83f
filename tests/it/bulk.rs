//! Keys for all users: into a file, and on from where it was broken off.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::PermissionsExt as _,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, Site, credential};

/// Users of a server, made through its API.
fn crowd(server: &Server, count: usize) {
    for number in 0..count {
        let body = json!({ "name": format!("user {number}") });
        let made = server.manages("POST", "/api/v1/users").json(&body).send();
        assert_eq!(made.status, 201, "{}", made.body);
    }
}

/// The rows of a CSV file: the key of each user.
fn keys(text: &str) -> BTreeMap<u64, String> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("uid,username,id,key"));
    let mut keys = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields.len(), 4, "{line}");
        assert!(fields[3].contains(&format!("_{}_", fields[2])));
        let twice = keys.insert(fields[0].parse().unwrap(), fields[3].to_owned());
        assert!(twice.is_none(), "{line}");
    }
    keys
}

fn users_of_keys(site: &Site) -> Vec<u64> {
    let listed = site.json(&["key", "list"]);
    let mut users: Vec<u64> =
        listed.as_array().unwrap().iter().map(|key| key["user"].as_u64().unwrap()).collect();
    users.sort_unstable();
    users
}

#[test]
fn each_user_gets_a_key_that_works() {
    let server = Server::new();
    crowd(&server, 5);
    let output =
        server.site.run(&["key", "generate", "--all", "--file", "keys.csv", "--label", "all"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("6 keys were made. They are in keys.csv."),
        "{said}"
    );
    assert!(output.stdout.is_empty());
    let path = server.site.path().join("keys.csv");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!server.site.path().join("keys.csv.run").exists());
    let keys = keys(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(keys.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for (uid, key) in &keys {
        server.hide(key.rsplit('_').next().unwrap());
        let name = if *uid == 1 { "admin".into() } else { format!("user {}", uid - 2) };
        let asked = server.request("GET", &format!("/user/{uid}"));
        assert_eq!(asked.header("API-KEY", credential(&name, key)).send().status, 200, "{name}");
    }
    // A file that is there is not written over.
    let output = server.site.run(&["key", "generate", "--all", "--file", "keys.csv"]);
    assert_eq!(output.status.code(), Some(2));
    // Nobody is without a key; into a pipe, as lines of JSON.
    crowd_of_one(&server);
    let args = ["key", "generate", "--all", "--missing-only", "--format", "jsonl"];
    let printed = String::from_utf8(server.site.run(&args).stdout).unwrap();
    let rows: Vec<Value> = printed.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["uid"]), (1, &json!(7)), "{printed}");
    server.hide(rows[0]["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert!(server.site.run(&args).stdout.is_empty());
    let told = server.site.json(&["audit", "list", "--limit", "2"]);
    assert_eq!(
        (&told[0]["action"], &told[0]["after"]["keys"]),
        (&json!("key.generate-all"), &json!(1))
    );
}

fn crowd_of_one(server: &Server) {
    server.user("late", &[]);
}

#[test]
fn only_an_administrator_makes_keys_for_administrators() {
    let server = Server::new();
    let helper = server.user_with("helper", &["administer users"]);
    let ask = |body: Value| {
        let asked = crate::harness::Request::new(server.admin, "POST", "/api/v1/keys/generate-all");
        asked.header("API-KEY", &helper.credential).json(&body).send()
    };
    let answer = ask(json!({})).json();
    let items = answer["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["user"]), (1, &json!(2)));
    server.hide(items[0]["key"].as_str().unwrap().rsplit('_').next().unwrap());
    assert_eq!(answer["skipped"]["administrator"], 1);
    for (body, place) in [
        (json!({ "run": "x" }), "run"),
        (json!({ "run": "+0000000000000000000000000000001" }), "run"),
        (json!({ "limit": 0 }), "limit"),
        (json!({ "limit": 5001 }), "limit"),
        (json!({ "after": "x" }), "after"),
        (json!({ "missing_only": 1 }), "missing_only"),
        (json!({ "user": 1 }), "user"),
        (json!({ "expires": "2001-01-01T00:00:00Z" }), "expires"),
    ] {
        let answer = ask(body.clone());
        assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        assert_eq!(answer.json()["errors"][0]["location"], place, "{body}");
    }
    let scoped = server.key("helper", &["--scope", "administer users"]);
    let asked = crate::harness::Request::new(server.admin, "POST", "/api/v1/keys/generate-all");
    assert_eq!(asked.header("API-KEY", scoped.credential).json(&json!({})).send().status, 403);
}

#[test]
fn a_run_that_is_killed_goes_on_and_makes_nothing_twice() {
    let mut site = {
        let server = Server::new();
        crowd(&server, 60);
        server.kill()
    };
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    // Killed sooner or later: before the file, in it, and after the commit whose answer is lost.
    for patience in [1, 5, 10, 15, 20, 25, 30, 40, 60] {
        let mut child =
            site.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(patience));
        let _ = child.kill();
        child.wait().unwrap();
    }
    // As if the file had been cut in the middle of a row, and the answer to its end lost.
    let path = site.path().join("keys.csv");
    let notes = site.path().join("keys.csv.run");
    if !notes.exists() {
        // It was done before it could be killed, or was killed each time before it began: begin anew, with the store as it is.
        let _ = std::fs::remove_file(&path);
    }
    let begun = Instant::now();
    loop {
        let output = site.run(&args);
        if output.status.success() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", String::from_utf8_lossy(&output.stderr));
    }
    // The administrator has a key of the first start.
    assert_eq!(users_of_keys(&site), (1..=61).collect::<Vec<_>>());
    let server = Server::start(std::mem::take(&mut site), String::new());
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let server = Server::new();
    crowd(&server, 30);
    let run = "00112233445566778899aabbccddeeff";
    let path = server.site.path().join("keys.csv");
    let notes = server.site.path().join("keys.csv.run");
    // The keys of all users are in the store, and of the file there is a half.
    let body = json!({ "run": run, "missing_only": true });
    let lost = server.manages("POST", "/api/v1/keys/generate-all").json(&body).send().json();
    let lost: BTreeSet<String> = lost["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["key"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(lost.len(), 30);
    lost.iter().for_each(|key| server.hide(key.rsplit('_').next().unwrap()));
    std::fs::write(&notes, json!({ "run": run, "asked": { "missing_only": true } }).to_string())
        .unwrap();
    let args = ["key", "generate", "--all", "--missing-only", "--file", "keys.csv"];
    // With other options it is another run.
    let output = server.site.run(&["key", "generate", "--all", "--file", "keys.csv"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!path.exists());
    assert!(server.site.run(&args).status.success());
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(keys(&text).into_values().collect::<BTreeSet<_>>(), lost);
    // Cut in the middle of a row.
    std::fs::write(&notes, json!({ "run": run, "asked": { "missing_only": true } }).to_string())
        .unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(server.site.run(&args).status.success());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(users_of_keys(&server.site).len(), 31);
}
