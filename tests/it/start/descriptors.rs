//! File descriptors: an administrator can connect, whatever clients have open.

use std::net::{SocketAddr, TcpStream};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::harness::{Key, Server, Site, TIMEOUT};

/// A folder for a server that does not close idle connections during a test.
fn patient_site() -> Site {
    Site::new()
        .with_env("KEYWARD_LIMITS__IDLE_SECONDS", "3600")
        .with_env("KEYWARD_LIMITS__HEADER_READ_SECONDS", "300")
}

/// Starts a server on a new store, under a limit of file descriptors.
fn server_with_limit(ulimit: &str) -> Server {
    let site = patient_site();
    let first = site.json(&["init"]);
    let command = site.shell(&format!("ulimit {ulimit}; exec keyward serve"));
    Server::start_with(site, first["key"].as_str().unwrap().to_owned(), command)
}

/// Connections that send nothing.
fn idle_connections(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| TcpStream::connect_timeout(&to, TIMEOUT).unwrap()).collect()
}

fn assert_revoked(server: &Server, key: &Key) {
    let shown = server.site.json(&["key", "show", &key.id]);
    assert_eq!(shown["state"], "revoked", "{shown}");
}

#[test]
fn keys_can_be_revoked_while_idle_connections_take_all_descriptors() {
    let server = server_with_limit("-n 64");
    let keys: Vec<Key> = ["ann", "bob"]
        .into_iter()
        .map(|name| server.user_with_permissions(name, &["access user profiles"]))
        .collect();
    let idle = idle_connections(server.public, 94);
    server.site.json(&["key", "revoke", &keys[0].id]);
    let target = format!("/api/v1/keys/{}/revoke", keys[1].id);
    let response = server.admin_api("POST", &target).send();
    assert_eq!(response.status, 200, "{}", response.body);
    for key in &keys {
        assert_revoked(&server, key);
    }
    assert!(!server.logged().contains("could not be accepted"), "{}", server.logged());
    let logged = server.logged();
    let line = logged.lines().find(|line| line.contains("allows fewer connections")).unwrap();
    assert!(line.contains("limit=64") && line.contains("configured=10000"), "{line}");
    drop(idle);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

#[test]
fn keys_can_be_revoked_on_the_machine_while_the_admin_listener_is_full() {
    let server = patient_site().start();
    let key = server.user_with_permissions("ann", &["access user profiles"]);
    let _idle = idle_connections(server.admin, 80);
    server.site.json(&["key", "revoke", &key.id]);
    assert_revoked(&server, &key);
    assert!(server.site.run(&["healthcheck"]).status.success());
}

#[test]
fn soft_limit_is_raised_to_the_hard_limit() {
    let server = server_with_limit("-n 4000; ulimit -Sn 60");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers, ["4000", "4000"], "{line}");
}

#[test]
fn start_with_too_few_descriptors_says_how_many_are_needed() {
    let site = Site::new();
    site.json(&["init"]);
    let command = site.shell("ulimit -n 36; exec keyward serve");
    let (code, errors) = super::end_of(command);
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("(ulimit -n) is 36, but this server needs at least "), "{errors}");
}

#[test]
fn listener_without_descriptors_goes_on_when_there_are_some() {
    let server = Server::new();
    let pid = Pid::from_raw(server.pid().try_into().unwrap());
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count() as u64;
    let few = Rlimit { current: Some(open), maximum: Some(4000) };
    prlimit(pid, Resource::Nofile, few).unwrap();
    let _idle = idle_connections(server.public, 20);
    server.wait_for_log("connections could not be accepted");
    server.wait_for_log("Raise the limit of file descriptors");
    let many = Rlimit { current: Some(4000), maximum: Some(4000) };
    prlimit(pid, Resource::Nofile, many).unwrap();
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    assert_eq!(server.logged().matches("could not be accepted").count(), 1);
}
