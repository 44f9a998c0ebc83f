//! Tests of the audit trail through the command line and the admin API.

use std::{thread, time::Duration};

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
