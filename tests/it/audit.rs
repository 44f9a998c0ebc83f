//! The audit trail, from the outside.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Request, Server, Site};

/// The trail, the newest entry first.
fn listed(site: &Site) -> Vec<Value> {
    site.json(&["audit", "list"]).as_array().unwrap().clone()
}

#[test]
fn every_face_signs_with_who_it_was() {
    let server = Server::new();
    let editor = server.user_with("ann", &["administer users", "change own username"]);
    // With the command line, through the admin API, and through the user resource.
    let newest = &listed(&server.site)[0];
    assert_eq!(
        (&newest["actor"], &newest["action"]),
        (&json!({ "kind": "operator", "client": "127.0.0.1" }), &json!("key.create"))
    );
    let made = Request::new(server.admin, "POST", "/api/v1/users")
        .header("API-KEY", &editor.credential)
        .json(&json!({ "name": "eve", "password": "correct horse" }))
        .send();
    assert_eq!(made.status, 201, "{}", made.body);
    server.hide("correct horse");
    let newest = &listed(&server.site)[0];
    let ann = json!({ "kind": "user", "uid": 2, "name": "ann", "key": editor.id, "application": "default", "client": "127.0.0.1" });
    assert_eq!((&newest["actor"], &newest["object"]), (&ann, &json!("user/3")));
    assert_eq!(newest["after"]["password"], "(secret)");
    let renamed = server
        .request("PATCH", "/user/2?_format=json")
        .header("API-KEY", &editor.credential)
        .json(&json!({ "name": [{ "value": "anna" }] }))
        .send();
    assert_eq!(renamed.status, 200, "{}", renamed.body);
    let newest = &listed(&server.site)[0];
    assert_eq!((&newest["actor"], &newest["action"]), (&ann, &json!("user.change")));
    assert_eq!(
        (&newest["before"]["name"], &newest["after"]["name"]),
        (&json!("ann"), &json!("anna"))
    );
    let deleted = server.asks("DELETE", "/user/3").send();
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    let newest = &listed(&server.site)[0];
    assert_eq!(
        (&newest["actor"]["name"], &newest["action"]),
        (&json!("admin"), &json!("user.delete"))
    );
    // What was refused has changed nothing, and is not told.
    let count = listed(&server.site).len();
    assert_eq!(server.manages("DELETE", "/api/v1/users/1").send().status, 409);
    assert_eq!(listed(&server.site).len(), count);
    assert_eq!(server.site.json(&["audit", "verify"])["entries"], count);
}

#[test]
fn the_trail_is_exported_and_checked_with_a_server_and_without() {
    let server = Server::new();
    for number in 0..5 {
        server.user(&format!("user{number}"), &[]);
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
fn a_query_names_the_order_and_the_place() {
    let server = Server::new();
    server.user("bob", &[]);
    let ask = |query: &str| server.manages("GET", &format!("/api/v1/audit{query}")).send();
    let numbers = |query: &str| -> Vec<u64> {
        let body = ask(query).json();
        body["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(""), [2, 1]);
    assert_eq!(numbers("?order=oldest"), [1, 2]);
    assert_eq!(numbers("?order=newest&limit=1"), [2]);
    assert_eq!(ask("?limit=1").json()["next"], "2");
    assert_eq!(numbers("?limit=1&after=2"), [1]);
    assert_eq!(ask("?limit=1&after=2").json()["next"], Value::Null);
    for query in ["?order=x", "?after=x", "?after=-1", "?name=x"] {
        assert_eq!(ask(query).status, 400, "{query}");
    }
    assert_eq!(server.manages("DELETE", "/api/v1/audit").send().status, 405);
}

#[test]
fn the_trail_is_whole_after_a_power_cut() {
    let mut site = Site::new();
    site.json(&["init"]);
    for round in 0..3 {
        let server = Server::start(site, String::new());
        let control =
            std::fs::read_to_string(server.site.path().join("data/keyward.control")).unwrap();
        let control: Value = serde_json::from_str(&control).unwrap();
        let key = format!("Bearer {}", control["key"].as_str().unwrap());
        let (admin, answered) =
            (server.admin, std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (key, answered) = (key.clone(), answered.clone());
                thread::spawn(move || {
                    for number in 0.. {
                        let body = json!({ "name": format!("u{round}-{writer}-{number}") });
                        let asked = Request::new(admin, "POST", "/api/v1/users")
                            .header("AUTH-METHOD", "keyward.operator")
                            .header("Authorization", &key)
                            .json(&body);
                        match asked.try_send() {
                            Some(answer) if answer.status == 201 => {
                                answered.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
                            }
                            _ => return,
                        };
                    }
                })
            })
            .collect();
        let begun = std::time::Instant::now();
        while answered.load(std::sync::atomic::Ordering::Relaxed) < 40 {
            assert!(begun.elapsed() < PATIENCE, "nothing is written");
            thread::sleep(Duration::from_millis(2));
        }
        site = server.kill();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let verdict = site.json(&["audit", "verify"]);
        assert_eq!(verdict["state"], "intact", "{verdict}");
        // Each user that is there has its entry, and the other way round.
        let users = site.json(&["user", "list"]).as_array().unwrap().len() as u64;
        assert_eq!(verdict["last"], users);
        assert!(users > answered.load(std::sync::atomic::Ordering::Relaxed));
    }
}
