//! The listener for proxies that ask: only there may they ask, whatever else is trusted or full.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use serde_json::{Value, json};

use crate::harness::{Response, Server, Site, TIMEOUT, credential};

/// The question of a proxy about `GET /user/1`, from a client with this address.
fn ask(server: &Server, at: SocketAddr, client: &str) -> Response {
    crate::harness::Request::new(at, "GET", "/-/verify")
        .header("API-KEY", server.admin_credential())
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", "/user/1")
        .header("X-Forwarded-Host", "api.example")
        .header("X-Forwarded-For", client)
        .send()
}

/// A proxy on this machine that forwards everything to the public listener must not open the
/// verify endpoints to its clients. Otherwise they could guess passwords under forged addresses.
#[test]
fn client_of_a_forwarding_proxy_cannot_ask() {
    let site = Site::new().with_env("KEYWARD_LIMITS__FAILURE_EXEMPT", "");
    let server = site.with_env("KEYWARD_SERVER__TRUSTED_PROXIES", "").start();
    server.site.json(&["app", "add", "people", "--type", "basic"]);
    server.add_user("victim", &[]);
    let guess = |at: SocketAddr, number: u8| {
        crate::harness::Request::new(at, "GET", "/-/verify")
            .header("AUTH-METHOD", "people")
            .header("Authorization", format!("Basic {}", credential("victim", "wrong")))
            .header("X-Forwarded-Method", "GET")
            .header("X-Forwarded-Uri", "/user/1")
            .header("X-Forwarded-Host", "api.example")
            .header("X-Forwarded-For", format!("198.51.100.{number}"))
            .send()
            .status
    };
    // An ordinary path of the public listener, on which the flood control counts the peer.
    let statuses: Vec<u16> = (0..12).map(|number| guess(server.public, number)).collect();
    assert_eq!(statuses[..5], [401; 5], "{statuses:?}");
    assert_eq!(statuses[11], 429, "{statuses:?}");
    assert_eq!(ask(&server, server.public, "203.0.113.7").status, 404);
    assert_eq!(guess(server.verify.unwrap(), 0), 401, "the question itself is right");
    assert_eq!(ask(&server, server.verify.unwrap(), "203.0.113.7").status, 200);
}

#[test]
fn untrusted_peer_may_not_ask_and_an_empty_address_means_no_listener() {
    let site = Site::new().with_env("KEYWARD_VERIFY__TRUSTED_PROXIES", "203.0.113.0/24");
    let server = site.start();
    let refused = ask(&server, server.verify.unwrap(), "203.0.113.7");
    assert_eq!((refused.status, refused.json()["error"].clone()), (403, json!("UNTRUSTED_PROXY")));
    server.wait_for_log("add its address to verify.trusted_proxies");
    let site = Site::new().with_env("KEYWARD_VERIFY__LISTEN", "");
    let server = site.start();
    assert_eq!(server.verify, None);
    assert!(!server.logged().contains("verify="), "{}", server.logged());
    assert_eq!(ask(&server, server.public, "203.0.113.7").status, 404);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

/// The response to the question of a proxy at a Unix socket.
fn ask_at_socket(server: &Server, path: &std::path::Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let credential = server.admin_credential();
    write!(
        stream,
        "GET /-/verify HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\nAPI-KEY: {credential}\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Uri: /user/1\r\nX-Forwarded-Host: api.example\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n"
    )
    .unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn unix_socket_is_for_the_group_and_its_peers_count_as_loopback() {
    for (trusted, runtime, status) in [
        ("127.0.0.1", "shared", "HTTP/1.1 200"),
        ("127.0.0.1", "per_worker", "HTTP/1.1 200"),
        ("203.0.113.7, ::1", "shared", "HTTP/1.1 403"),
    ] {
        let site = Site::new();
        let path = site.path().join("verify.sock");
        let server = site
            .with_env("KEYWARD_VERIFY__LISTEN", &format!("unix:{}", path.display()))
            .with_env("KEYWARD_VERIFY__TRUSTED_PROXIES", trusted)
            .with_env("KEYWARD_SERVER__RUNTIME", runtime)
            .start();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let response = ask_at_socket(&server, &path);
        assert!(response.starts_with(status), "{trusted}: {response}");
        let control = std::fs::read(server.site.path().join("data/keyward.control")).unwrap();
        let control: Value = serde_json::from_slice(&control).unwrap();
        assert_eq!(control["verify"], json!(format!("unix:{}", path.display())));
        // A server that was killed leaves its socket behind. The next one replaces it.
        let key = server.key.clone();
        let server = Server::start(server.kill(), key);
        assert!(ask_at_socket(&server, &path).starts_with(status));
    }
}

#[test]
fn workers_have_verify_listeners_of_their_own() {
    let site = Site::new().with_env("KEYWARD_SERVER__RUNTIME", "per_worker");
    let mut server = site.with_env("KEYWARD_SERVER__WORKERS", "3").start();
    let verify = server.verify.unwrap();
    for _ in 0..20 {
        assert_eq!(ask(&server, verify, "203.0.113.7").status, 200);
    }
    assert_eq!(crate::workers::listener_count(verify.port()), 3);
    assert!(server.stop().success());
}

#[test]
fn proxy_can_ask_while_clients_fill_the_public_listener() {
    let site = Site::new()
        .with_env("KEYWARD_LIMITS__CONNECTIONS", "4")
        .with_env("KEYWARD_LIMITS__HEADER_READ_SECONDS", "300");
    let server = site.start();
    let idle: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect_timeout(&server.public, TIMEOUT).unwrap()).collect();
    assert_eq!(ask(&server, server.verify.unwrap(), "203.0.113.7").status, 200);
    drop(idle);
}

#[test]
fn printed_configuration_has_the_verify_listener() {
    let site = Site::new();
    let printed = String::from_utf8(site.run(&["config", "print"]).stdout).unwrap();
    let (_, section) = printed.split_once("[verify]\n").unwrap();
    assert!(section.starts_with("listen = \"127.0.0.1:0\"\n"), "{section}");
    assert!(section.contains("trusted_proxies = \"127.0.0.0/8, ::1\"\n"), "{section}");
    let (server, _) = printed.split_once("[verify]\n").unwrap();
    assert!(server.contains("trusted_proxies = \"\"\n"), "{server}");
}
