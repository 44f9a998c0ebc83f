//! Workers with a listener each: the same server as with one for all.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::harness::{PATIENCE, Server, Site};

fn site() -> Site {
    Site::new().with("KEYWARD_SERVER__RUNTIME", "per_worker").with("KEYWARD_SERVER__WORKERS", "3")
}

/// How many sockets of this machine listen on a port of 127.0.0.1.
fn listening(port: u16) -> usize {
    let wanted = format!("0100007F:{port:04X} 00000000:0000 0A");
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    all.lines().filter(|line| line.contains(&wanted)).count()
}

#[test]
fn each_has_its_listener_and_all_decide_alike() {
    let mut server = site().start();
    assert_eq!(listening(server.public.port()), 3);
    let key = server.user_with("bob", &["access user profiles"]);
    // Each on a connection of its own, which the kernel gives to one of the workers.
    let ask = || {
        let asked = server.request("GET", "/user/1").header("API-KEY", &key.credential);
        asked.send().status
    };
    let all = |expected: u16| (0..40).all(|_| ask() == expected);
    assert!(all(200));
    server.site.json(&["key", "revoke", &key.id]);
    assert!(all(401));
    assert!(server.stop().success());
}

/// What a server says that cannot start there.
fn refused_at(address: &str) -> String {
    let site = site().with("KEYWARD_SERVER__LISTEN", address);
    let mut child = site.command(&["serve"]).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("it serves at {address}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_port_that_another_program_has_is_not_shared() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused_at(&address);
    assert!(said.contains(&format!("cannot listen on {address}: it is in use")), "{said}");
}

/// Though each of its listeners would let others in.
#[test]
fn two_servers_do_not_share_a_port() {
    let one = site().start();
    let address = one.public.to_string();
    let said = refused_at(&address);
    assert!(said.contains(&format!("cannot listen on {address}: it is in use")), "{said}");
}

#[test]
fn one_server_has_one_listener_for_all_workers() {
    let server = Server::new();
    assert_eq!(listening(server.public.port()), 1);
}

/// An upstream that keeps its connections, and takes its time for paths that end in `slow`.
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
        // To the empty line at its end.
        lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        // Long enough for others to come at the same time, or for the server to be told to stop.
        thread::sleep(Duration::from_millis(if request.contains("slow") { 800 } else { 60 }));
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nin").is_err() {
            return;
        }
    }
}

/// A worker with nothing to do stays until the others are done: a connection to the upstream may be one that it has made.
#[test]
fn what_is_in_flight_is_answered_whoever_has_made_the_connection() {
    let upstream = format!("http://{}", upstream());
    for _ in 0..5 {
        let mut server = site().start();
        let rule = ["--method", "POST", "--format", "any", "--authentication", "*"];
        let proxy = ["resource", "add", "app", "--handler", "proxy", "--path", "/app/{*rest}"];
        server.site.json(&[&proxy[..], &rule[..], &["--upstream", &upstream]].concat());
        // Sent once: what was lost is not tried again.
        let asked = |target| server.asks("POST", target).body("");
        let ask = |target| asked(target).try_send().map(|answer| answer.status);
        // Connections of all workers, which then lie ready for any of them.
        thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(|| ask("/app/quick"))).collect();
            all.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), Some(200)));
        });
        let slow = asked("/app/slow");
        let answered = thread::spawn(move || slow.try_send().map(|answer| answer.status));
        thread::sleep(Duration::from_millis(250));
        assert!(server.stop().success());
        assert_eq!(answered.join().unwrap(), Some(200));
    }
}
