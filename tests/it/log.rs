//! The log under a flood of refused requests: it stays small, its lines have a bound, and no key
//! gets into it.

use std::io::{Read as _, Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::harness::{Server, Site};

#[test]
fn flood_of_refused_requests_writes_few_lines() {
    let server = Site::new().with_env("KEYWARD_LOG__CLIENTS", "sampled").start();
    let mut socket = std::net::TcpStream::connect(server.public).unwrap();
    let request = "GET /user/1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(500);
    socket.write_all(request.as_bytes()).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut responses = String::new();
    socket.read_to_string(&mut responses).unwrap();
    let refused = responses.matches("MISSING_API_KEY_HEADER").count();
    assert!(refused > 300, "{refused} responses");
    // Another code is another kind, so its first line is logged.
    assert_eq!(server.request("GET", "/").header("AUTH-METHOD", "x").send().status, 400);
    server.wait_for_log("INVALID_APPLICATION_ID");
    let logged = server.logged();
    let lines = logged.matches("code=\"MISSING_API_KEY_HEADER\"").count();
    // Two minutes if one ends during the flood.
    assert!((1..=12).contains(&lines), "{lines} lines");
}

#[test]
fn key_in_a_path_is_not_logged() {
    let mut server = Server::new();
    for format in ["text", "json"] {
        let key = server.key.clone();
        let site = server.kill().with_env("KEYWARD_LOG__FORMAT", format);
        server = Server::start(site, key);
        let key = server.key.clone();
        server.forbid_in_log(&key[12..]);
        let credential = STANDARD.encode(format!("admin:{key}"));
        server.forbid_in_log(&credential);
        let percent = key.replace('_', "%5F").replace('a', "%61");
        server.forbid_in_log(&percent[25..]);
        for target in [
            format!("/user/{key}"),
            format!("/user/{percent}"),
            format!("/a/{}?b={key}", credential.trim_end_matches('=')),
            format!("/user/{}/{}", "x".repeat(7000), key),
        ] {
            let response = server.request("GET", &target).send();
            assert!([400, 401, 404].contains(&response.status), "{}", response.status);
        }
        server.wait_for_log("[removed]");
        server.wait_for_log("bytes were left out)");
        assert!(server.logged().lines().all(|line| line.len() < 4200));
    }
}
