//! Tests that kill the server during an import and during rotations. Each batch is stored entirely
//! or not at all, a change is kept if its response arrived, an interrupted import can be repeated,
//! and the audit trail is intact. (`bulk` tests keys for all users, `backup` tests restores, and
//! `tests/crash.rs` tests single writes.)

use std::{
    collections::{HashMap, HashSet},
    fs,
    process::Stdio,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{Request, Server, Site};

const ROWS: usize = 6000;

fn user_count(site: &Site) -> usize {
    site.json(&["user", "list"]).as_array().unwrap().len()
}

#[test]
fn killed_import_can_be_repeated() {
    let mut server = Server::new();
    let row = |number: usize| format!("user{number:04},a-key-of-user-{number}\n");
    let rows: String = (0..ROWS).map(row).collect();
    let mut counts_seen = HashSet::new();
    for round in 0..6_u64 {
        fs::write(server.site.path().join("rows.csv"), &rows).unwrap();
        let args = ["key", "import", "rows.csv", "--create-users"];
        let mut child = server.site.command(&args);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The import checks all rows before it stores the first batch. In the first round, wait
        // until the first batch is stored, so that the kill comes during a later batch.
        let has_first_batch = || {
            let found = server.admin_api("GET", "/api/v1/users?name=user0000").send().json();
            !found["items"].as_array().unwrap().is_empty()
        };
        while round == 0 && !has_first_batch() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(round * 97 % 400));
        let key = server.key.clone();
        let site = server.kill();
        let _ = child.kill();
        child.wait().unwrap();
        server = Server::start(site, key);
        assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact", "round {round}");
        // One user and one key, those of the administrator, are not from the file. A batch contains
        // all rows of a user, and in this file each user has one row.
        let imported = user_count(&server.site) - 1;
        let keys = server.site.json(&["key", "list"]).as_array().unwrap().len() - 1;
        assert_eq!(imported, keys, "round {round}");
        counts_seen.insert(imported);
        if imported == ROWS {
            break;
        }
    }
    // At least one kill must have come between the first and the last batch.
    assert!(counts_seen.iter().any(|imported| (1..ROWS).contains(imported)), "{counts_seen:?}");
    let repeated = server.site.json(&["key", "import", "rows.csv", "--create-users"]);
    let count = |name: &str| repeated[name].as_u64().unwrap() as usize;
    assert_eq!(
        (count("keys") + count("known"), count("keys")),
        (ROWS, count("users")),
        "{repeated}"
    );
    assert_eq!(user_count(&server.site), ROWS + 1);
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
}

/// Rotates a key repeatedly until the server no longer responds. When the response to a rotation
/// arrives, adds the old and the new id to `confirmed`.
fn rotate(
    server: &Server,
    mut id: String,
    is_over: &AtomicBool,
    confirmed: &Mutex<HashMap<String, String>>,
) {
    while !is_over.load(Ordering::Relaxed) {
        let target = format!("/api/v1/keys/{id}/rotate");
        let request = Request::new(server.admin, "POST", &target);
        let request =
            request.header("API-KEY", server.admin_credential()).json(&json!({ "overlap": "1h" }));
        let Some(response) = request.try_send() else { return };
        assert_eq!(response.status, 201, "{}", response.body);
        let new_id = response.json()["id"].as_str().unwrap().to_owned();
        confirmed.lock().unwrap().insert(id, new_id.clone());
        id = new_id;
    }
}

/// Asserts that each rotated key has exactly one successor, and that each confirmed rotation is
/// stored. Returns the number of rotated keys.
fn check_rotations(server: &Server, confirmed: &HashMap<String, String>) -> usize {
    let listed = server.site.json(&["key", "list"]);
    let keys: HashMap<&str, &Value> =
        listed.as_array().unwrap().iter().map(|key| (key["id"].as_str().unwrap(), key)).collect();
    let successors: Vec<&str> =
        keys.values().filter_map(|key| key["rotated"]["to"].as_str()).collect();
    assert!(successors.iter().all(|to| keys.contains_key(to)));
    let different: HashSet<&&str> = successors.iter().collect();
    assert_eq!(different.len(), successors.len());
    for (old, new) in confirmed {
        assert_eq!(keys[old.as_str()]["rotated"]["to"], json!(new));
    }
    // Four keys are not the successor of another key: the first keys of the three users, and the
    // administrator's key.
    assert_eq!(keys.len() - successors.len(), 4);
    successors.len()
}

#[test]
fn killed_rotation_is_stored_entirely_or_not_at_all() {
    let mut server = Site::new().with_env("KEYWARD_LIMITS__KEYS_PER_USER", "10000").start();
    let key = server.key.clone();
    let first: Vec<String> =
        ["a", "b", "c"].map(|name| server.user_with_permissions(name, &[]).id).into();
    let confirmed = Mutex::new(HashMap::new());
    for round in 0..8_u64 {
        let newest = |id: &String| {
            let listed = server.site.json(&["key", "list"]);
            let mut id = id.clone();
            let successor = |id: &str| {
                let key = listed.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
                key["rotated"]["to"].as_str().map(str::to_owned)
            };
            while let Some(next) = successor(&id) {
                id = next;
            }
            id
        };
        let newest: Vec<String> = first.iter().map(newest).collect();
        let is_over = AtomicBool::new(false);
        let pid = server.pid();
        thread::scope(|scope| {
            for id in newest {
                scope.spawn(|| rotate(&server, id, &is_over, &confirmed));
            }
            thread::sleep(Duration::from_millis(15 + round * 7919 % 40));
            let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            assert!(killed.unwrap().success());
            is_over.store(true, Ordering::Relaxed);
        });
        server = Server::start(server.kill(), key.clone());
        assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact", "round {round}");
        let rotated = check_rotations(&server, &confirmed.lock().unwrap());
        assert!(rotated >= confirmed.lock().unwrap().len(), "round {round}");
    }
    assert!(confirmed.lock().unwrap().len() > 20, "too few rotations to prove anything");
}
