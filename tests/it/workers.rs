//! Tests of `runtime = "per_worker"`: each worker has a listener, and clients see no difference.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{Server, Site, TIMEOUT};

fn site() -> Site {
    Site::new()
        .with_env("KEYWARD_SERVER__RUNTIME", "per_worker")
        .with_env("KEYWARD_SERVER__WORKERS", "3")
}

/// The number of sockets that listen on this port of 127.0.0.1.
pub fn listener_count(port: u16) -> usize {
    let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    all.lines().filter(|line| line.contains(&wanted)).count()
}

#[test]
fn every_worker_has_a_listener_and_decides_the_same() {
    let mut server = site().start();
    assert_eq!(listener_count(server.public.port()), 3);
    let key = server.user_with_permissions("bob", &["access user profiles"]);
    // Each request has a new connection, and the kernel gives the connection to one of the workers.
    let status = || {
        let request = server.request("GET", "/user/1").header("API-KEY", &key.credential);
        request.send().status
    };
    let all_are = |expected: u16| (0..40).all(|_| status() == expected);
    assert!(all_are(200));
    server.site.json(&["key", "revoke", &key.id]);
    assert!(all_are(401));
    assert!(server.stop().success());
}

/// Asserts that a server cannot start at this address, and returns the server's standard error.
fn failed_start(address: &str) -> String {
    let site = site().with_env("KEYWARD_SERVER__LISTEN", address);
    let mut child = site.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the server started at {address}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn port_of_another_program_is_not_shared() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let stderr = failed_start(&address);
    assert!(
        stderr.contains(&format!("cannot listen on {address}: the address is in use")),
        "{stderr}"
    );
}

/// The listeners of one server share a port, but the listeners of another server must not share the
/// same port.
#[test]
fn two_servers_do_not_share_a_port() {
    let server = site().start();
    let address = server.public.to_string();
    let stderr = failed_start(&address);
    assert!(
        stderr.contains(&format!("cannot listen on {address}: the address is in use")),
        "{stderr}"
    );
}

#[test]
fn shared_runtime_has_one_listener() {
    let server = Server::new();
    assert_eq!(listener_count(server.public.port()), 1);
}

/// An upstream that keeps connections open, and responds late to paths that contain `slow`.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(&stream));
        }
    });
    address
}

fn serve(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        // Skip the header section, up to the empty line.
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        // Wait long enough for requests to overlap, and after a slow request for the server to
        // begin to stop.
        thread::sleep(Duration::from_millis(if request.contains("slow") { 800 } else { 60 }));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin").is_err() {
            return;
        }
    }
}

/// An idle worker must not end before the other workers, because another worker may be using an
/// upstream connection that belongs to the idle worker.
#[test]
fn stop_completes_requests_on_connections_of_other_workers() {
    let upstream = format!("http://{}", upstream());
    for _ in 0..5 {
        let mut server = site().start();
        let rule = ["--method", "POST", "--format", "any", "--authentication", "*"];
        let proxy = ["resource", "add", "app", "--handler", "proxy", "--path", "/app/{*rest}"];
        server.site.json(&[&proxy[..], &rule[..], &["--upstream", &upstream]].concat());
        // The requests use POST with an empty body, because the proxy does not retry a lost POST
        // request.
        let request = |target| server.request_as_admin("POST", target).body("");
        let status = |target| request(target).try_send().map(|response| response.status);
        // Open upstream connections in all workers. Any worker can reuse these connections.
        thread::scope(|scope| {
            let threads: Vec<_> = (0..12).map(|_| scope.spawn(|| status("/app/quick"))).collect();
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Some(200)));
        });
        let slow = request("/app/slow");
        let slow_status = thread::spawn(move || slow.try_send().map(|response| response.status));
        thread::sleep(Duration::from_millis(250));
        assert!(server.stop().success());
        assert_eq!(slow_status.join().unwrap(), Some(200));
    }
}
