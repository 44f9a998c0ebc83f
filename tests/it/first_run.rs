//! Tests of the first run: one command starts the program, and the `curl` line that the program
//! prints creates a user.

use std::{process::Command, thread, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Request, Response, Server, Site, TIMEOUT, credential};

/// The line of `text` that begins with `curl`.
fn curl_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| line.starts_with("curl "))
}

#[test]
fn the_printed_curl_line_creates_a_user() {
    let server = Server::start(Site::new(), String::new());
    let deadline = std::time::Instant::now() + TIMEOUT;
    while curl_line(&server.printed()).is_none() {
        assert!(std::time::Instant::now() < deadline, "no curl line: {}", server.printed());
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

    // Read, change and delete the user with the printed key.
    let key = printed.split_whitespace().find(|word| word.starts_with("kw_")).unwrap();
    let send = |method: &str, body: Option<Value>| -> Response {
        let target = format!("/user/{uid}?_format=json");
        let request = Request::new(server.public, method, &target)
            .header("API-KEY", credential("admin", key));
        match body {
            Some(body) => request.json(&body).send(),
            None => request.send(),
        }
    };
    assert_eq!(send("GET", None).json(), entity);
    let changed = send("PATCH", Some(json!({ "name": [{ "value": "alpaca" }] })));
    assert_eq!((changed.status, &changed.json()["name"][0]["value"]), (200, &json!("alpaca")));
    let deleted = send("DELETE", None);
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(send("GET", None).status, 404);

    // The key is printed once on standard output, and is not logged.
    assert_eq!(printed.matches(key).count(), 1);
    assert!(!server.logged().contains(key));
}

#[test]
fn a_second_start_prints_no_key() {
    let server = Server::new();
    let key = server.key.clone();
    let site = server.kill();
    let server = Server::start(site, key);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    assert!(!server.printed().contains("kw_"));
    assert!(curl_line(&server.printed()).is_none());
}

#[test]
fn init_prints_the_first_key_as_json_once() {
    let site = Site::new();
    let first = site.json(&["init"]);
    assert_eq!(first["username"], "admin");
    assert_eq!(first["application"], "default");
    assert!(first["key"].as_str().unwrap().starts_with("kw_"));
    let second = site.run(&["init"]);
    assert!(!second.status.success());
    assert!(second.stdout.is_empty());
}

#[test]
fn sigterm_stops_the_server_and_releases_the_store() {
    let mut server = Server::new();
    server.add_user("bob", &[]);
    assert!(server.stop().success());
    assert!(!server.site.path().join("data/keyward.control").exists());
    // This command opens the store, which is only possible if the server has released the store.
    assert_eq!(server.site.json(&["user", "show", "bob"])["name"], "bob");
}
