//! A machine's clock that goes back, as the real program sees it: the store has a newer time.

use std::sync::Arc;

use keyward::{
    accounts::{Accounts, NewKey, NewUser, Passwords, RotateOptions, create_pepper},
    model::{ADMINISTRATOR, Actor, Clock, Entropy, Timestamp},
    store::SledStore,
};
use serde_json::Value;

use crate::harness::{Server, Site, credential};

const DAY: i64 = 86_400;

/// The credentials of keys in a store whose last write was long after now.
struct Credentials {
    /// Expired after 100 days.
    expired: String,
    /// Rotated after now, with an overlap of 100 days.
    rotated: String,
    /// Never expires.
    valid: String,
}

/// The last write to a store.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    Change,
    Usage,
}

/// Creates a store as a server does whose clock shows `after` seconds from now at its end.
async fn store_from_the_future(site: &Site, after: i64, last: Last) -> Credentials {
    let entropy = Entropy::system();
    std::fs::create_dir_all(site.path().join("data")).unwrap();
    let pepper = create_pepper(&site.path().join("data/keyward.pepper"), &entropy).unwrap();
    let store = Arc::new(SledStore::open(&site.store(), 16).unwrap());
    let start = Clock::system().now();
    let clock = Clock::fixed(start);
    let accounts =
        Accounts::with(store, pepper, Passwords::new(1), clock.clone(), entropy).unwrap();
    accounts.first_start().await.unwrap().unwrap();
    let writer = accounts.as_actor(Actor::Program);
    let roles = vec![ADMINISTRATOR.into()];
    let ann = NewUser { name: "ann".into(), status: true, roles, ..NewUser::default() };
    let uid = writer.create_user(ann).await.unwrap().record.uid;
    let create = async |expires: Option<Timestamp>| {
        writer.issue_key(uid, NewKey { expires, ..NewKey::default() }).await.unwrap()
    };
    let valid = create(None).await;
    let expired = create(Some(start.plus(100 * DAY))).await;
    let rotated = create(None).await;
    let options = RotateOptions { overlap: Some(30 * DAY), ..RotateOptions::default() };
    writer.rotate_key(rotated.key.record.id, options).await.unwrap();
    clock.set(start.plus(after));
    match last {
        Last::Change => drop(create(None).await),
        Last::Usage => {
            accounts.counters().used(valid.key.record.id);
            accounts.write_usage().await.unwrap();
        }
    }
    let credential = |key: &str| credential("ann", key);
    Credentials {
        expired: credential(expired.text.expose()),
        rotated: credential(rotated.text.expose()),
        valid: credential(valid.text.expose()),
    }
}

fn status(server: &Server, credential: &str) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", credential).send().status
}

fn readiness(server: &Server) -> Value {
    let response = crate::harness::Request::new(server.admin, "GET", "/health/ready").send();
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_with_a_clock_400_days_back_accepts_no_expired_or_rotated_key() {
    for last in [Last::Change, Last::Usage] {
        let site = Site::new();
        let keys = store_from_the_future(&site, 400 * DAY, last).await;
        let server = Server::start(site, String::new());
        assert_eq!(status(&server, &keys.valid), 200);
        assert_eq!(status(&server, &keys.expired), 401, "the key has expired");
        assert_eq!(status(&server, &keys.rotated), 401, "the key was replaced");
        server.wait_for_log("the machine's clock is behind the newest time");
        let behind = readiness(&server)["clock_behind_seconds"].as_i64().unwrap();
        assert!((399 * DAY..=400 * DAY).contains(&behind), "{behind}");
        let output = server.site.run(&["healthcheck"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("clock is "), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_can_accept_the_machine_clock_once_for_all() {
    let site = Site::new();
    let keys = store_from_the_future(&site, 400 * DAY, Last::Change).await;
    let mut command = site.command(&["serve", "--accept-clock"]);
    command.env("KEYWARD_LOG__LEVEL", "info");
    let mut server = Server::start_with(site, String::new(), command);
    server.wait_for_log("the machine's clock was accepted");
    assert_eq!(status(&server, &keys.expired), 200);
    assert_eq!(readiness(&server)["clock_behind_seconds"], Value::Null);
    assert!(server.stop().success());
    // The next start needs no option.
    let server = Server::start(server.kill(), String::new());
    assert_eq!(status(&server, &keys.expired), 200);
    assert_eq!(readiness(&server)["clock_behind_seconds"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn clock_behind_is_logged_once_when_it_begins_and_once_when_it_ends() {
    let site = Site::new();
    store_from_the_future(&site, 15, Last::Change).await;
    let server = Server::start(site, String::new());
    server.wait_for_log("the machine's clock has caught up");
    let logged = server.logged();
    for line in ["the machine's clock is behind", "the machine's clock has caught up"] {
        assert_eq!(logged.matches(line).count(), 1, "{logged}");
    }
    assert_eq!(readiness(&server)["clock_behind_seconds"], Value::Null);
}

#[test]
fn time_of_a_server_without_requests_is_stored_when_it_stops() {
    let mut server = Server::new();
    server.site.json(&["user", "add", "bob"]);
    assert!(server.stop().success());
    let store = SledStore::open(&server.site.store(), 16).unwrap();
    let table = keyward::store::Table::Meta;
    let stored = keyward::store::Store::get(&store, table, b"newest-time").unwrap().unwrap();
    let stored: Value = stored.read(table, b"newest-time").unwrap();
    let age = Clock::system().now().0 - stored["time"].as_i64().unwrap();
    assert!((0..60).contains(&age), "{stored}");
}
