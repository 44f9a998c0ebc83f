//! `kill -9` under concurrent writes, again and again: every write that was answered is there, every revocation that was answered holds,
//! and the store opens each time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

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

/// What was answered, and so must hold for ever.
#[derive(Default)]
struct Promised {
    /// Users by number.
    users: HashMap<u64, String>,
    /// Keys by id: the owner, the text, and what is known of its revocation.
    keys: HashMap<String, Promise>,
}

struct Promise {
    user: String,
    text: String,
    revocation: Revocation,
}

#[derive(Clone, Copy, PartialEq)]
enum Revocation {
    None,
    /// Asked for, and the answer never came: both outcomes are right.
    Asked,
    Answered,
}

#[test]
fn nothing_that_was_answered_is_lost() {
    let promised = Mutex::new(Promised::default());
    let mut server = Server::start(Site::new(), String::new());
    server.key = server.site.json(&["key", "generate", "admin"])["key"].as_str().unwrap().into();
    let key = server.key.clone();
    for round in 0..ROUNDS {
        let site = disturb(server, round, &promised);
        server = Server::start(site, key.clone());
        // All of them at the end, and a part of them after each round.
        let share = if round + 1 == ROUNDS { 1 } else { 1 + round / 4 };
        check(&server, &promised.lock().unwrap(), round, share);
    }
    let promised = promised.into_inner().unwrap();
    let revoked = promised.keys.values().filter(|key| key.revocation == Revocation::Answered);
    println!(
        "{ROUNDS} rounds: {} users, {} keys, {} revocations",
        promised.users.len(),
        promised.keys.len(),
        revoked.count()
    );
    // A run in which nothing was written proves nothing.
    assert!(promised.users.len() as u64 > ROUNDS && promised.keys.len() as u64 > ROUNDS);
}

/// Lets writers write, and kills the server at a moment that nobody chose.
fn disturb(server: Server, round: u64, promised: &Mutex<Promised>) -> Site {
    let is_over = AtomicBool::new(false);
    let numbers = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let (admin, credential) = (server.admin, server.administrator());
            let (is_over, numbers) = (&is_over, &numbers);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let number = numbers.fetch_add(1, Ordering::Relaxed);
                    let name = format!("user-{round}-{number}");
                    if write(admin, &credential, &name, promised).is_none() {
                        break;
                    }
                }
            });
        }
        // 20 to 150 ms, spread without a pattern over the rounds.
        thread::sleep(Duration::from_millis(20 + round * 7919 % 131));
        let site = server.kill();
        is_over.store(true, Ordering::Relaxed);
        site
    })
}

/// Makes a user with two keys and takes one back. Ends early when the server is gone.
fn write(
    admin: std::net::SocketAddr,
    credential: &str,
    name: &str,
    promised: &Mutex<Promised>,
) -> Option<()> {
    let send = |target: &str, body: Value| -> Option<Value> {
        let request = Request::new(admin, "POST", target).header("API-KEY", credential);
        let answer = request.json(&body).try_send()?;
        assert!([200, 201].contains(&answer.status), "{target}: {}", answer.body);
        Some(answer.json())
    };
    let uid = send("/api/v1/users", json!({ "name": name }))?["uid"].as_u64().unwrap();
    promised.lock().unwrap().users.insert(uid, name.to_owned());
    let mut ids = Vec::new();
    for _ in 0..2 {
        let made = send(&format!("/api/v1/users/{uid}/keys"), json!({}))?;
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let promise =
            Promise { user: name.to_owned(), text: text("key"), revocation: Revocation::None };
        promised.lock().unwrap().keys.insert(text("id"), promise);
        ids.push(text("id"));
    }
    let mark = |revocation| {
        promised.lock().unwrap().keys.get_mut(&ids[0]).unwrap().revocation = revocation;
    };
    mark(Revocation::Asked);
    send(&format!("/api/v1/keys/{}/revoke", ids[0]), json!({}))?;
    mark(Revocation::Answered);
    Some(())
}

/// Holds the server to what it answered before it was killed: to one in `share` of it.
fn check(server: &Server, promised: &Promised, round: u64, share: u64) {
    let ask = |target: &str, credential: &str| {
        Request::new(server.admin, "GET", target).header("API-KEY", credential).send()
    };
    for (uid, name) in promised.users.iter().filter(|(uid, _)| *uid % share == 0) {
        let answer = ask(&format!("/api/v1/users/{uid}"), &server.administrator());
        assert_eq!(answer.status, 200, "round {round}: user {uid} {name} is lost");
        assert_eq!(answer.json()["name"], json!(name), "round {round}");
    }
    for (number, (id, key)) in promised.keys.iter().enumerate() {
        if !(number as u64).is_multiple_of(share) {
            continue;
        }
        // Nobody but an administrator may list users: a key that works is 403, one that does not is 401.
        let status = ask("/api/v1/users", &credential(&key.user, &key.text)).status;
        let is_right = match key.revocation {
            Revocation::None => status == 403,
            Revocation::Asked => status == 403 || status == 401,
            Revocation::Answered => status == 401,
        };
        assert!(is_right, "round {round}: key {id} of {} answers {status}", key.user);
    }
}
