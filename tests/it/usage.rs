//! How often keys were used, and what was spent: over a stop, a kill, and the end of a user.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Key, PATIENCE, Server, Site};

fn server(seconds: &str) -> (Server, Key) {
    let server = Site::new().with("KEYWARD_LIMITS__USAGE_WRITE_SECONDS", seconds).start();
    server.user_with("bob", &["access user profiles"]);
    let key = server.key("bob", &["--credits", "5/month"]);
    server.site.json(&["user", "edit", "bob", "--credits", "9/month"]);
    (server, key)
}

fn ask(server: &Server, key: &Key, times: usize) -> Vec<u16> {
    let ask = |_| server.request("GET", "/user/1").header("API-KEY", &key.credential).send().status;
    (0..times).map(ask).collect()
}

fn shown(server: &Server, key: &Key) -> (u64, Value) {
    let shown = server.site.json(&["key", "show", &key.id]);
    (shown["uses"].as_u64().unwrap(), shown["last_used"].clone())
}

/// Stops the server, or kills it, and starts it again.
fn again(mut server: Server, is_killed: bool) -> Server {
    let key = server.key.clone();
    let site = match is_killed {
        true => server.kill(),
        false => {
            assert!(server.stop().success());
            std::mem::take(&mut server.site)
        }
    };
    Server::start(site, key)
}

#[test]
fn a_clean_stop_loses_nothing() {
    let (server, key) = server("3600");
    assert_eq!(shown(&server, &key), (0, json!(null)));
    assert_eq!(ask(&server, &key, 3), [200; 3]);
    // What is refused is no use.
    let wrong = server.request("GET", "/nowhere").header("API-KEY", &key.credential).send();
    assert_eq!(wrong.status, 404);
    let before = shown(&server, &key);
    assert_eq!(before.0, 3);
    assert!(before.1.as_str().unwrap().starts_with("20"), "{before:?}");
    let server = again(server, false);
    assert_eq!(shown(&server, &key), before);
    assert_eq!(ask(&server, &key, 3), [200, 200, 429], "two of five credits are left");
    assert_eq!(shown(&server, &key).0, 5);
    let server = again(server, false);
    let other = server.key("bob", &[]);
    assert_eq!(
        ask(&server, &other, 5),
        [200, 200, 200, 200, 429],
        "four of the user's nine are left"
    );
}

#[test]
fn a_killed_server_forgets_what_was_not_written_yet_and_no_more() {
    let (first, key) = server("1");
    assert_eq!(ask(&first, &key, 3), [200; 3]);
    // What was used a second ago is written, and the write takes its time.
    let (begun, wait) = (Instant::now(), Duration::from_secs(3));
    while begun.elapsed() < wait {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(wait < PATIENCE);
    let first = again(first, true);
    assert_eq!(shown(&first, &key).0, 3);
    assert_eq!(ask(&first, &key, 3), [200, 200, 429]);
    drop(first);
    // A decision writes nothing.
    let (second, key) = server("3600");
    assert_eq!(ask(&second, &key, 3), [200; 3]);
    let second = again(second, true);
    assert_eq!(shown(&second, &key), (0, json!(null)));
}

#[test]
fn a_user_who_goes_takes_it_along() {
    let (server, key) = server("1");
    assert_eq!(ask(&server, &key, 2), [200; 2]);
    thread::sleep(Duration::from_secs(2));
    server.site.json(&["backup", "before.backup"]);
    let has = |name: &str| {
        let held = std::fs::read(server.site.path().join(name)).unwrap();
        String::from_utf8_lossy(&held).contains("\"times\":2")
    };
    assert!(has("before.backup"), "a backup holds it");
    server.site.run(&["user", "delete", "bob", "--yes"]);
    thread::sleep(Duration::from_secs(2));
    server.site.json(&["backup", "after.backup"]);
    assert!(!has("after.backup"));
}
