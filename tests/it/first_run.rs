//! The first minutes: one command starts the program, one pasted line makes a user.

use std::{process::Command, thread, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Answer, PATIENCE, Request, Server, Site, credential};

/// The line of `text` that begins with `curl`.
fn curl_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| line.starts_with("curl "))
}

#[test]
fn the_printed_line_makes_a_user() {
    let server = Server::start(Site::new(), String::new());
    let until = std::time::Instant::now() + PATIENCE;
    while curl_line(&server.printed()).is_none() {
        assert!(std::time::Instant::now() < until, "no curl line: {}", server.printed());
        thread::sleep(Duration::from_millis(5));
    }
    let printed = server.printed();
    let output = Command::new("sh").args(["-c", curl_line(&printed).unwrap()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
    assert!(head.starts_with("HTTP/1.1 201"), "{head}");
    let entity: Value = serde_json::from_str(body).unwrap();
    let uid = entity["uid"][0]["value"].as_u64().unwrap();
    let location = format!("http://{}/user/{uid}", server.public);
    assert!(head.to_lowercase().contains(&format!("location: {location}\r\n")), "{head}");

    // With the key that was printed, the user is read back, changed and deleted.
    let key = printed.split_whitespace().find(|word| word.starts_with("kw_")).unwrap();
    let ask = |method: &str, body: Option<Value>| -> Answer {
        let target = format!("/user/{uid}?_format=json");
        let request = Request::new(server.public, method, &target)
            .header("API-KEY", credential("admin", key));
        match body {
            Some(body) => request.json(&body).send(),
            None => request.send(),
        }
    };
    assert_eq!(ask("GET", None).json(), entity);
    let changed = ask("PATCH", Some(json!({ "name": [{ "value": "alpaca" }] })));
    assert_eq!((changed.status, &changed.json()["name"][0]["value"]), (200, &json!("alpaca")));
    let gone = ask("DELETE", None);
    assert_eq!((gone.status, gone.body.as_str()), (204, ""));
    assert_eq!(ask("GET", None).status, 404);

    // The key is printed once, and to nobody but the person at the terminal.
    assert_eq!(printed.matches(key).count(), 1);
    assert!(!server.logged().contains(key));
}

#[test]
fn a_second_start_prints_no_key() {
    let server = Server::new();
    let key = server.key.clone();
    let site = server.kill();
    let server = Server::start(site, key);
    assert_eq!(server.asks("GET", "/user/1").send().status, 200);
    assert!(!server.printed().contains("kw_"));
    assert!(curl_line(&server.printed()).is_none());
}

#[test]
fn init_prints_what_programs_read() {
    let site = Site::new();
    let first = site.json(&["init"]);
    assert_eq!(first["username"], "admin");
    assert_eq!(first["application"], "default");
    assert!(first["key"].as_str().unwrap().starts_with("kw_"));
    let again = site.run(&["init"]);
    assert!(!again.status.success());
    assert!(again.stdout.is_empty());
}

#[test]
fn sigterm_stops_it_and_the_store_opens_again() {
    let mut server = Server::new();
    server.user("bob", &[]);
    assert!(server.stop().success());
    assert!(!server.site.path().join("data/keyward.control").exists());
    // No server: the command line opens the store itself.
    assert_eq!(server.site.json(&["user", "show", "bob"])["name"], "bob");
}
