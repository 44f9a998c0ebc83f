//! Tests of usage counts and credits: after a stop, after a kill, and after the user is deleted.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Key, Server, Site, TIMEOUT};

/// A server that writes usage to the store every `seconds` seconds, and a key with limited credits.
fn server(seconds: &str) -> (Server, Key) {
    let server = Site::new().with_env("KEYWARD_LIMITS__USAGE_WRITE_SECONDS", seconds).start();
    server.user_with_permissions("bob", &["access user profiles"]);
    let key = server.generate_key("bob", &["--credits", "5/month"]);
    server.site.json(&["user", "edit", "bob", "--credits", "9/month"]);
    (server, key)
}

/// Sends requests with this key, and returns the statuses.
fn send(server: &Server, key: &Key, times: usize) -> Vec<u16> {
    let send_one =
        |_| server.request("GET", "/user/1").header("API-KEY", &key.credential).send().status;
    (0..times).map(send_one).collect()
}

/// The use count and the time of the last use, as the command line shows them.
fn usage(server: &Server, key: &Key) -> (u64, Value) {
    let shown = server.site.json(&["key", "show", &key.id]);
    (shown["uses"].as_u64().unwrap(), shown["last_used"].clone())
}

/// Stops or kills the server, and starts it again.
fn restart(mut server: Server, is_killed: bool) -> Server {
    let key = server.key.clone();
    let site = if is_killed {
        server.kill()
    } else {
        assert!(server.stop().success());
        std::mem::take(&mut server.site)
    };
    Server::start(site, key)
}

#[test]
fn clean_stop_loses_no_usage() {
    let (server, key) = server("3600");
    assert_eq!(usage(&server, &key), (0, json!(null)));
    assert_eq!(send(&server, &key, 3), [200; 3]);
    // A denied request does not count.
    let not_found = server.request("GET", "/nowhere").header("API-KEY", &key.credential).send();
    assert_eq!(not_found.status, 404);
    let before = usage(&server, &key);
    assert_eq!(before.0, 3);
    assert!(before.1.as_str().unwrap().starts_with("20"), "{before:?}");
    let server = restart(server, false);
    assert_eq!(usage(&server, &key), before);
    assert_eq!(send(&server, &key, 3), [200, 200, 429], "two of five credits are left");
    assert_eq!(usage(&server, &key).0, 5);
    let server = restart(server, false);
    let other = server.generate_key("bob", &[]);
    assert_eq!(
        send(&server, &other, 5),
        [200, 200, 200, 200, 429],
        "four of the user's nine are left"
    );
}

#[test]
fn kill_loses_only_usage_that_was_not_written_yet() {
    let (first, key) = server("1");
    assert_eq!(send(&first, &key, 3), [200; 3]);
    // Wait until the usage is written: the interval is one second, and the write takes some time.
    let (started, wait) = (Instant::now(), Duration::from_secs(3));
    while started.elapsed() < wait {
        thread::sleep(Duration::from_millis(50));
    }
    assert!(wait < TIMEOUT);
    let first = restart(first, true);
    assert_eq!(usage(&first, &key).0, 3);
    assert_eq!(send(&first, &key, 3), [200, 200, 429]);
    drop(first);
    // A decision does not write usage to the store, so a kill loses all usage if the interval is
    // long.
    let (second, key) = server("3600");
    assert_eq!(send(&second, &key, 3), [200; 3]);
    let second = restart(second, true);
    assert_eq!(usage(&second, &key), (0, json!(null)));
}

#[test]
fn deleting_a_user_deletes_its_usage() {
    let (server, key) = server("1");
    assert_eq!(send(&server, &key, 2), [200; 2]);
    thread::sleep(Duration::from_secs(2));
    server.site.json(&["backup", "before.backup"]);
    let has_usage = |name: &str| {
        let bytes = std::fs::read(server.site.path().join(name)).unwrap();
        String::from_utf8_lossy(&bytes).contains("\"times\":2")
    };
    assert!(has_usage("before.backup"), "the backup must contain the usage");
    server.site.run(&["user", "delete", "bob", "--yes"]);
    thread::sleep(Duration::from_secs(2));
    server.site.json(&["backup", "after.backup"]);
    assert!(!has_usage("after.backup"));
}
