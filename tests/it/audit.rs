//! Tests of the audit trail through the command line and the admin API.

use std::{thread, time::Duration};

use keyward::{
    SledStore, Store as _,
    store::{Batch, Table, table},
};
use serde_json::{Value, json};

use crate::harness::{Request, Server, Site, TIMEOUT};

/// All entries of the audit trail, newest first.
fn entries(site: &Site) -> Vec<Value> {
    site.json(&["audit", "list"]).as_array().unwrap().clone()
}

#[test]
fn each_change_is_recorded_with_its_actor() {
    let server = Server::new();
    let editor = server.user_with_permissions("ann", &["administer users", "change own username"]);
    // Make changes through the command line, the admin API and the user resource.
    let newest = &entries(&server.site)[0];
    assert_eq!(
        (&newest["actor"], &newest["action"]),
        (&json!({ "kind": "operator", "client": "127.0.0.1" }), &json!("key.create"))
    );
    let created = Request::new(server.admin, "POST", "/api/v1/users")
        .header("API-KEY", &editor.credential)
        .json(&json!({ "name": "eve", "password": "correct horse" }))
        .send();
    assert_eq!(created.status, 201, "{}", created.body);
    server.forbid_in_log("correct horse");
    let newest = &entries(&server.site)[0];
    let ann = json!({ "kind": "user", "uid": 2, "name": "ann", "key": editor.id, "application": "default", "client": "127.0.0.1" });
    assert_eq!((&newest["actor"], &newest["object"]), (&ann, &json!("user/3")));
    assert_eq!(newest["after"]["password"], "(secret)");
    let renamed = server
        .request("PATCH", "/user/2?_format=json")
        .header("API-KEY", &editor.credential)
        .json(&json!({ "name": [{ "value": "anna" }] }))
        .send();
    assert_eq!(renamed.status, 200, "{}", renamed.body);
    let newest = &entries(&server.site)[0];
    assert_eq!((&newest["actor"], &newest["action"]), (&ann, &json!("user.change")));
    assert_eq!(
        (&newest["before"]["name"], &newest["after"]["name"]),
        (&json!("ann"), &json!("anna"))
    );
    let deleted = server.request_as_admin("DELETE", "/user/3").send();
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    let newest = &entries(&server.site)[0];
    assert_eq!(
        (&newest["actor"]["name"], &newest["action"]),
        (&json!("admin"), &json!("user.delete"))
    );
    // A rejected change writes no entry.
    let count = entries(&server.site).len();
    assert_eq!(server.admin_api("DELETE", "/api/v1/users/1").send().status, 409);
    assert_eq!(entries(&server.site).len(), count);
    assert_eq!(server.site.json(&["audit", "verify"])["entries"], count);
}

#[test]
fn the_trail_can_be_exported_and_verified_with_and_without_a_server() {
    let server = Server::new();
    for number in 0..5 {
        server.add_user(&format!("user{number}"), &[]);
    }
    let export = |site: &Site| String::from_utf8(site.run(&["audit", "export"]).stdout).unwrap();
    let exported = export(&server.site);
    let numbers: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["number"].clone())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let text = String::from_utf8(server.site.run(&["audit", "verify"]).stdout).unwrap();
    assert!(text.starts_with("The audit trail is intact: 6 entries, up to 6 with"), "{text}");
    let table =
        String::from_utf8(server.site.run(&["audit", "list", "--limit", "1"]).stdout).unwrap();
    assert!(table.contains("operator") && table.contains("user/6"), "{table}");
    let site = server.kill();
    assert_eq!(export(&site), exported);
    site.json(&["user", "add", "late"]);
    let verdict = site.json(&["audit", "verify"]);
    assert_eq!((&verdict["state"], &verdict["last"]), (&json!("intact"), &json!(7)));
    assert!(export(&site).starts_with(&exported));
}

#[test]
fn a_query_selects_the_order_and_the_page_of_the_trail() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let send = |query: &str| server.admin_api("GET", &format!("/api/v1/audit{query}")).send();
    let numbers = |query: &str| -> Vec<u64> {
        let body = send(query).json();
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(""), [2, 1]);
    assert_eq!(numbers("?order=oldest"), [1, 2]);
    assert_eq!(numbers("?order=newest&limit=1"), [2]);
    assert_eq!(send("?limit=1").json()["next"], "2");
    assert_eq!(numbers("?limit=1&after=2"), [1]);
    assert_eq!(send("?limit=1&after=2").json()["next"], Value::Null);
    for query in ["?order=x", "?after=x", "?after=-1", "?name=x"] {
        assert_eq!(send(query).status, 400, "{query}");
    }
    assert_eq!(server.admin_api("DELETE", "/api/v1/audit").send().status, 405);
}

#[test]
fn the_trail_is_intact_after_the_server_is_killed() {
    let mut site = Site::new();
    site.json(&["init"]);
    for round in 0..3 {
        let server = Server::start(site, String::new());
        let control =
            std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
        let control: Value = serde_json::from_str(&control).unwrap();
        let key = format!("Bearer {}", control["key"].as_str().unwrap());
        let (admin, acknowledged) =
            (server.admin, std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (key, acknowledged) = (key.clone(), acknowledged.clone());
                thread::spawn(move || {
                    for number in 0.. {
                        let body = json!({ "name": format!("u{round}-{writer}-{number}") });
                        let request = Request::new(admin, "POST", "/api/v1/users")
                            .header("AUTH-METHOD", "keyward.operator")
                            .header("Authorization", &key)
                            .json(&body);
                        match request.try_send() {
                            Some(response) if response.status == 201 => {
                                acknowledged.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                            }
                            _ => return,
                        };
                    }
                })
            })
            .collect();
        let start = std::time::Instant::now();
        while acknowledged.load(std::sync::atomic::Ordering::Relaxed) < 40 {
            assert!(start.elapsed() < TIMEOUT, "the server acknowledged fewer than 40 writes");
            thread::sleep(Duration::from_millis(2));
        }
        site = server.kill();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let verdict = site.json(&["audit", "verify"]);
        assert_eq!(verdict["state"], "intact", "{verdict}");
        // The trail has exactly one entry per user in the store.
        let users = site.json(&["user", "list"]).as_array().unwrap().len() as u64;
        assert_eq!(verdict["last"], users);
        assert!(users > acknowledged.load(std::sync::atomic::Ordering::Relaxed));
    }
}

/// Changes records of a store that no server uses, as an attacker without the pepper can.
fn forge(site: &Site, change: impl FnOnce(&SledStore, &mut Batch)) {
    let store = SledStore::open(&site.store(), 16).unwrap();
    let mut batch = Batch::new();
    change(&store, &mut batch);
    assert!(!batch.writes.is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.commit(batch)).unwrap();
}

/// Removes all entries and both marks.
fn remove_trail(store: &SledStore, batch: &mut Batch) {
    for (row, _) in store.scan(Table::Audit, &[], None, usize::MAX).unwrap() {
        batch.delete(Table::Audit, row);
    }
    batch.delete(Table::Meta, *b"audit-end").delete(Table::Meta, *b"audit-begin");
}

/// Runs a command. Returns its exit code, its output and its standard error.
fn run(site: &Site, args: &[&str]) -> (i32, String, String) {
    let output = site.run(args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// A stopped site with six audit entries.
fn site_with_entries() -> Site {
    let site = Site::new();
    site.json(&["init"]);
    for name in ["a", "b", "c", "d", "e"] {
        site.json(&["user", "add", name]);
    }
    site
}

#[test]
fn removed_trail_is_reported_by_every_face() {
    let server = Server::new();
    server.add_user("ann", &[]);
    server.wait_for_log("the audit trail is intact");
    let key = server.key.clone();
    let site = server.kill();
    forge(&site, remove_trail);
    for args in [&["audit", "verify"], &["audit", "export"], &["audit", "list"]] {
        let (exit, stdout, stderr) = run(&site, args);
        assert_eq!((exit, stdout.as_str()), (1, ""), "{args:?}");
        assert!(stderr.contains("no record of the trail's end"), "{args:?}: {stderr}");
    }
    let check = |server: &Server| {
        server.wait_for_log("the audit trail was tampered with");
        let ready = Request::new(server.admin, "GET", "/health/ready").send();
        assert_eq!(ready.status, 200, "{}", ready.body);
        let problem = ready.json()["audit_problem"].as_str().unwrap().to_owned();
        assert!(problem.contains("tampered with at entry 1"), "{problem}");
        let (exit, _, stderr) = run(&server.site, &["healthcheck"]);
        assert!(exit == 0 && stderr.starts_with(&format!("warning: {problem}")), "{stderr}");
        let verdict = server.admin_api("GET", "/api/v1/audit/verify").send();
        assert_eq!(verdict.json()["state"], "tampered");
        let page = server.admin_api("GET", "/api/v1/audit?order=oldest").send();
        assert_eq!(
            (page.status, &page.json()["type"]),
            (500, &json!("urn:keyward:problem:audit-trail-broken"))
        );
    };
    let server = Server::start(site, key.clone());
    check(&server);
    // Changes are still made, and do not make the trail intact again.
    server.add_user("bob", &[]);
    let server = Server::start(server.kill(), key);
    check(&server);
    let (exit, stdout, stderr) = run(&server.site, &["audit", "list"]);
    assert!(exit == 1 && stderr.contains("broken at entry 1. When"), "{stderr}");
    assert!(stdout.contains("user/3"), "{stdout}");
}

#[test]
fn export_fails_at_the_entry_that_is_missing_or_changed() {
    let site = site_with_entries();
    let (exit, complete, _) = run(&site, &["audit", "export"]);
    assert_eq!((exit, complete.lines().count()), (0, 6));
    let third = table::audit(3);
    let kept = std::cell::RefCell::new(Vec::new());
    forge(&site, |store, batch| {
        *kept.borrow_mut() = store.get(Table::Audit, &third).unwrap().unwrap().json;
        batch.delete(Table::Audit, third);
    });
    let fails_at = |number: u64, problem: &str, lines: usize| {
        let (exit, stdout, stderr) = run(&site, &["audit", "export"]);
        assert_eq!((exit, stdout.lines().count()), (1, lines), "{stderr}");
        assert!(complete.starts_with(&stdout), "{stdout}");
        let expected = format!("broken at entry {number}. {problem}");
        assert!(stderr.contains(&expected), "{expected}: {stderr}");
        let (exit, _, stderr) = run(&site, &["audit", "verify"]);
        assert!(exit == 1 && stderr.contains(&format!("at entry {number}. ")), "{stderr}");
    };
    fails_at(3, "The entry is missing.", 2);
    forge(&site, |_, batch| {
        let changed = String::from_utf8(kept.take()).unwrap().replace("user/3", "user/4");
        batch.put(Table::Audit, third, changed.into_bytes());
    });
    fails_at(3, "The entry is not what was written.", 2);
    // The list ends at the entry, too: newest first.
    let (exit, _, stderr) = run(&site, &["audit", "list"]);
    assert!(exit == 1 && stderr.contains("broken at entry 3"), "{stderr}");
    let newest = site.json(&["audit", "list", "--limit", "3"]);
    assert_eq!(newest[2]["number"], 4);
}

#[test]
fn export_fails_when_the_trail_was_truncated_or_has_a_row_too_many() {
    let site = site_with_entries();
    let last = std::cell::RefCell::new(Vec::new());
    forge(&site, |store, batch| {
        *last.borrow_mut() = store.get(Table::Audit, &table::audit(6)).unwrap().unwrap().json;
        batch.delete(Table::Audit, table::audit(6));
    });
    let (exit, stdout, stderr) = run(&site, &["audit", "export"]);
    assert_eq!((exit, stdout.lines().count()), (1, 5), "{stderr}");
    assert!(stderr.contains("broken at entry 6. The entry is missing."), "{stderr}");
    // The entry is put back, and a second one under a key that is no number.
    forge(&site, |_, batch| {
        batch.put(Table::Audit, table::audit(6), last.borrow().clone());
        batch.put(Table::Audit, *b"zz", last.borrow().clone());
    });
    for args in [&["audit", "export"], &["audit", "verify"]] {
        let (exit, _, stderr) = run(&site, args);
        assert!(exit == 1 && stderr.contains("a row after the trail's end"), "{stderr}");
    }
    forge(&site, |_, batch| {
        batch.delete(Table::Audit, *b"zz");
    });
    assert_eq!(run(&site, &["audit", "export"]).0, 0);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn restore_begins_a_generation_that_names_the_end_it_came_from() {
    let site = site_with_entries();
    let end = site.json(&["audit", "verify"]);
    site.json(&["backup", "all.backup"]);
    site.json(&["user", "add", "late"]);
    let mut generations = vec![end["generation"].clone()];
    for _ in 0..2 {
        assert_eq!(run(&site, &["restore", "all.backup"]).0, 0);
        let verdict = site.json(&["audit", "verify"]);
        assert_eq!((&verdict["state"], &verdict["last"]), (&json!("intact"), &json!(7)));
        let restored = &site.json(&["audit", "list", "--limit", "1"])[0];
        assert_eq!(restored["action"], "store.restore");
        assert_eq!(restored["generation"], verdict["generation"]);
        let from = json!({ "generation": end["generation"], "number": 6, "hash": end["hash"] });
        assert_eq!(restored["after"]["trail"], from);
        // Two restores of one backup differ.
        assert!(!generations.contains(&verdict["generation"]), "{generations:?}");
        generations.push(verdict["generation"].clone());
        assert_eq!(run(&site, &["audit", "export"]).1.lines().count(), 7);
    }
    let first = &site.json(&["audit", "list"])[6];
    assert_eq!(
        (&first["action"], &first["generation"]),
        (&json!("store.first-start"), &end["generation"])
    );
}

#[test]
fn restore_of_a_tampered_trail_warns_and_the_trail_stays_tampered() {
    for removes_everything in [true, false] {
        let site = site_with_entries();
        forge(&site, |store, batch| {
            if removes_everything {
                remove_trail(store, batch);
            } else {
                batch.delete(Table::Audit, table::audit(2));
            }
        });
        site.json(&["backup", "all.backup"]);
        let number = if removes_everything { 1 } else { 2 };
        let (exit, _, stderr) = run(&site, &["restore", "all.backup"]);
        let expected =
            format!("warning: the audit trail in the backup was tampered with at entry {number}. ");
        assert!(exit == 0 && stderr.contains(&expected), "{stderr}");
        for args in [&["audit", "verify"], &["audit", "export"]] {
            let (exit, _, stderr) = run(&site, args);
            assert!(exit == 1 && stderr.contains(&format!("at entry {number}. ")), "{stderr}");
        }
        let newest = &site.json(&["audit", "list", "--limit", "1"])[0];
        assert_eq!(newest["after"]["trail"]["state"], "tampered");
    }
}
