//! Kills the server many times with `kill -9` during concurrent writes. After each kill the store
//! opens and contains every acknowledged write and every acknowledged revocation.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test and reports its line")]

#[path = "it/harness.rs"]
#[allow(dead_code, reason = "the harness is shared")]
mod harness;

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use harness::{Request, Server, Site, credential};
use serde_json::{Value, json};

const ROUNDS: u64 = 100;
const WRITERS: usize = 6;

/// The acknowledged writes, which must never be lost.
#[derive(Default)]
struct Acknowledged {
    /// User names by UID.
    users: HashMap<u64, String>,
    /// Keys by id.
    keys: HashMap<String, IssuedKey>,
}

struct IssuedKey {
    user: String,
    text: String,
    revocation: Revocation,
}

#[derive(Clone, Copy, PartialEq)]
enum Revocation {
    None,
    /// The request was sent but no response arrived, so the key may be valid or revoked.
    Sent,
    Acknowledged,
}

#[test]
fn no_acknowledged_write_is_lost() {
    let acknowledged = Mutex::new(Acknowledged::default());
    let mut server = Server::start(Site::new(), String::new());
    server.key = server.site.json(&["key", "generate", "admin"])["key"].as_str().unwrap().into();
    let key = server.key.clone();
    for round in 0..ROUNDS {
        let site = write_and_kill(server, round, &acknowledged);
        server = Server::start(site, key.clone());
        // Check every write after the last round, but only a sample after each earlier round.
        let sample_step = if round + 1 == ROUNDS { 1 } else { 1 + round / 4 };
        check(&server, &acknowledged.lock().unwrap(), round, sample_step);
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    let revoked =
        acknowledged.keys.values().filter(|key| key.revocation == Revocation::Acknowledged);
    println!(
        "{ROUNDS} rounds: {} users, {} keys, {} revocations",
        acknowledged.users.len(),
        acknowledged.keys.len(),
        revoked.count()
    );
    // The test only proves something if enough writes were acknowledged.
    assert!(acknowledged.users.len() as u64 > ROUNDS && acknowledged.keys.len() as u64 > ROUNDS);
}

/// Writes from several threads, and kills the server after a varying time.
fn write_and_kill(server: Server, round: u64, acknowledged: &Mutex<Acknowledged>) -> Site {
    let is_over = AtomicBool::new(false);
    let numbers = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let (admin, credential) = (server.admin, server.admin_credential());
            let (is_over, numbers) = (&is_over, &numbers);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let name = format!("user-{round}-{number}");
                    if write(admin, &credential, &name, acknowledged).is_none() {
                        break;
                    }
                }
            });
        }
        // The time is 20 to 150 ms and varies irregularly from round to round.
        thread::sleep(Duration::from_millis(20 + round * 7919 % 131));
        let site = server.kill();
        is_over.store(true, Ordering::Relaxed);
        site
    })
}

/// Creates a user with two keys and revokes the first key. Returns `None` if the server no longer
/// responds.
fn write(
    admin: std::net::SocketAddr,
    credential: &str,
    name: &str,
    acknowledged: &Mutex<Acknowledged>,
) -> Option<()> {
    let send = |target: &str, body: Value| -> Option<Value> {
        let request = Request::new(admin, "POST", target).header("API-KEY", credential);
        let response = request.json(&body).try_send()?;
        assert!([200, 201].contains(&response.status), "{target}: {}", response.body);
        Some(response.json())
    };
    let uid = send("/api/v1/users", json!({ "name": name }))?["uid"].as_u64().unwrap();
    acknowledged.lock().unwrap().users.insert(uid, name.to_owned());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let created = send(&format!("/api/v1/users/{uid}/keys"), json!({}))?;
        let text = |field: &str| created[field].as_str().unwrap().to_owned();
        let issued =
            IssuedKey { user: name.to_owned(), text: text("key"), revocation: Revocation::None };
        acknowledged.lock().unwrap().keys.insert(text("id"), issued);
        ids.push(text("id"));
    }
    let mark = |revocation| {
        acknowledged.lock().unwrap().keys.get_mut(&ids[0]).unwrap().revocation = revocation;
    };
    mark(Revocation::Sent);
    send(&format!("/api/v1/keys/{}/revoke", ids[0]), json!({}))?;
    mark(Revocation::Acknowledged);
    Some(())
}

/// Checks that the server has the writes that were acknowledged before the kill. Of `sample_step`
/// users or keys, only one is checked.
fn check(server: &Server, acknowledged: &Acknowledged, round: u64, sample_step: u64) {
    let send = |target: &str, credential: &str| {
        Request::new(server.admin, "GET", target).header("API-KEY", credential).send()
    };
    for (uid, name) in acknowledged.users.iter().filter(|(uid, _)| *uid % sample_step == 0) {
        let response = send(&format!("/api/v1/users/{uid}"), &server.admin_credential());
        assert_eq!(response.status, 200, "round {round}: user {uid} {name} is lost");
        assert_eq!(response.json()["name"], json!(name), "round {round}");
    }
    for (number, (id, key)) in acknowledged.keys.iter().enumerate() {
        if !(number as u64).is_multiple_of(sample_step) {
            continue;
        }
        // The user is no administrator and may not list users. So a valid key gets 403, and an
        // invalid key gets 401.
        let status = send("/api/v1/users", &credential(&key.user, &key.text)).status;
        let is_expected = match key.revocation {
            Revocation::None => status == 403,
            Revocation::Sent => status == 403 || status == 401,
            Revocation::Acknowledged => status == 401,
        };
        assert!(is_expected, "round {round}: key {id} of {} gets {status}", key.user);
    }
}
