//! `kill -9` while keys are imported and rotated: each part is there or not, what was answered holds, what was broken off is repeated, and the audit trail
//! is whole. (For keys of all users see `bulk`, for restores `backup`, for single writes the crash test.)

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

fn users(site: &Site) -> usize {
    site.json(&["user", "list"]).as_array().unwrap().len()
}

#[test]
fn an_import_that_is_killed_is_repeated() {
    let mut server = Server::new();
    let rows: String = (0..ROWS).map(|at| format!("user{at:04},a-key-of-user-{at}\n")).collect();
    let mut parts_seen = HashSet::new();
    for round in 0..6_u64 {
        fs::write(server.site.path().join("rows.csv"), &rows).unwrap();
        let args = ["key", "import", "rows.csv", "--create-users"];
        let mut child = server.site.command(&args);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It looks at all rows first; killed is it once the first part of them is there, or some of the next.
        let is_begun = || {
            let asked = server.manages("GET", "/api/v1/users?name=user0000").send().json();
            !asked["items"].as_array().unwrap().is_empty()
        };
        while round == 0 && !is_begun() && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(round * 97 % 400));
        let key = server.key.clone();
        let site = server.kill();
        let _ = child.kill();
        child.wait().unwrap();
        server = Server::start(site, key);
        assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact", "round {round}");
        // One user is there without the file; the parts end where a user ends, and here each has one key.
        let made = users(&server.site) - 1;
        let keys = server.site.json(&["key", "list"]).as_array().unwrap().len() - 1;
        assert_eq!(made, keys, "round {round}");
        parts_seen.insert(made);
        if made == ROWS {
            break;
        }
    }
    // Otherwise it was never in the middle.
    assert!(parts_seen.iter().any(|made| (1..ROWS).contains(made)), "{parts_seen:?}");
    let done = server.site.json(&["key", "import", "rows.csv", "--create-users"]);
    let count = |name: &str| done[name].as_u64().unwrap() as usize;
    assert_eq!((count("keys") + count("known"), count("keys")), (ROWS, count("users")), "{done}");
    assert_eq!(users(&server.site), ROWS + 1);
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
}

/// Rotates keys until the server is gone; what was answered is in `answered`: the old key and the new.
fn rotate(
    server: &Server,
    mut id: String,
    is_over: &AtomicBool,
    answered: &Mutex<HashMap<String, String>>,
) {
    while !is_over.load(Ordering::Relaxed) {
        let target = format!("/api/v1/keys/{id}/rotate");
        let request = Request::new(server.admin, "POST", &target);
        let request =
            request.header("API-KEY", server.administrator()).json(&json!({ "overlap": "1h" }));
        let Some(answer) = request.try_send() else { return };
        assert_eq!(answer.status, 201, "{}", answer.body);
        let made = answer.json()["id"].as_str().unwrap().to_owned();
        answered.lock().unwrap().insert(id, made.clone());
        id = made;
    }
}

/// Each key that is replaced has its successor, and each that was answered to be replaced is.
fn check(server: &Server, answered: &HashMap<String, String>) -> usize {
    let listed = server.site.json(&["key", "list"]);
    let keys: HashMap<&str, &Value> =
        listed.as_array().unwrap().iter().map(|key| (key["id"].as_str().unwrap(), key)).collect();
    let successors: Vec<&str> =
        keys.values().filter_map(|key| key["rotated"]["to"].as_str()).collect();
    assert!(successors.iter().all(|to| keys.contains_key(to)));
    let different: HashSet<&&str> = successors.iter().collect();
    assert_eq!(different.len(), successors.len());
    for (old, new) in answered {
        assert_eq!(keys[old.as_str()]["rotated"]["to"], json!(new));
    }
    // Whoever is nobody's successor was made as it is: three, and the administrator's.
    assert_eq!(keys.len() - successors.len(), 4);
    successors.len()
}

#[test]
fn a_rotation_that_is_killed_has_happened_or_not() {
    let mut server = Site::new().with("KEYWARD_LIMITS__KEYS_PER_USER", "10000").start();
    let key = server.key.clone();
    let first: Vec<String> = ["a", "b", "c"].map(|name| server.user_with(name, &[]).id).into();
    let answered = Mutex::new(HashMap::new());
    for round in 0..8_u64 {
        let newest = |id: &String| {
            let answered = server.site.json(&["key", "list"]);
            let mut id = id.clone();
            let of = |id: &str| {
                let key = answered.as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
                key["rotated"]["to"].as_str().map(str::to_owned)
            };
            while let Some(next) = of(&id) {
                id = next;
            }
            id
        };
        let newest: Vec<String> = first.iter().map(newest).collect();
        let is_over = AtomicBool::new(false);
        let pid = server.pid();
        thread::scope(|scope| {
            for id in newest {
                scope.spawn(|| rotate(&server, id, &is_over, &answered));
            }
            thread::sleep(Duration::from_millis(15 + round * 7919 % 40));
            let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
            assert!(killed.unwrap().success());
            is_over.store(true, Ordering::Relaxed);
        });
        server = Server::start(server.kill(), key.clone());
        assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact", "round {round}");
        let listed = check(&server, &answered.lock().unwrap());
        assert!(listed >= answered.lock().unwrap().len(), "round {round}");
    }
    assert!(answered.lock().unwrap().len() > 20, "too few to prove anything");
}
