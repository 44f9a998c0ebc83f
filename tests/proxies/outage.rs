//! The real program behind each proxy: the command in the head of the shipped file works, and no
//! request passes while Keyward does not respond.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    client::{Response, send},
    program::{Kind, Program, Version},
    real::RealKeyward,
    upstream::Upstream,
};

/// The longest time until a client gets a response although Keyward does not respond. HAProxy asks
/// four times and waits a second each time.
const LONGEST: Duration = Duration::from_secs(8);

pub async fn run(kind: Kind) {
    let mut keyward = RealKeyward::start("", &[]);
    let upstream = Upstream::start();
    let Some(program) = Program::start(kind, keyward.asked_by(kind), upstream.address) else {
        return;
    };
    let credential = format!("API-KEY: {}\r\n", keyward.credential);
    let get = async || -> Response {
        let started = Instant::now();
        let response = send(program.address, "GET", "/some/path", &credential, b"").await;
        assert!(started.elapsed() < LONGEST, "{kind:?}: {:?} {response:?}", started.elapsed());
        response
    };
    // Without a resource, Keyward allows nothing.
    assert_eq!(get().await.status, 404, "{kind:?}");
    keyward.shell(&command_in_head(kind));
    let response = get().await;
    assert_eq!(response.status, 200, "{kind:?}: {response:?} {}", program.log());
    assert_eq!(upstream.take().len(), 1);
    // The subrequest of a request with as many fields as the public listener accepts passes too.
    let more: String = (3..100).map(|index| format!("X-Field-{index}: 1\r\n")).collect();
    let fields = format!("{credential}{more}");
    let response = send(program.address, "GET", "/some/path", &fields, b"").await;
    assert_eq!((response.status, upstream.take().len()), (200, 1), "{kind:?}: {response:?}");

    keyward.signal(Signal::STOP);
    for _ in 0..2 {
        let response = get().await;
        assert!((502..=504).contains(&response.status), "{kind:?}: {response:?}");
    }
    assert!(upstream.take().is_empty(), "{kind:?}");
    keyward.signal(Signal::CONT);
    assert_eq!(get().await.status, 200, "{kind:?}");
    assert_eq!(upstream.take().len(), 1);

    keyward.kill();
    let response = get().await;
    assert!((502..=504).contains(&response.status), "{kind:?}: {response:?}");
    assert!(upstream.take().is_empty(), "{kind:?}");
}

/// The command that adds a resource, in the head of the shipped file.
fn command_in_head(kind: Kind) -> String {
    let files = kind.shipped_files();
    let mut commands = files.iter().flat_map(|(_, text)| text.lines()).filter_map(|line| {
        let rest = line.trim_start_matches('#').trim_start();
        rest.starts_with("keyward resource add").then_some(rest)
    });
    let command = commands.next().expect("a command in the head of the file");
    assert_eq!(commands.next(), None);
    command.to_owned()
}

/// In TCP mode HAProxy forwards connections, and Keyward itself forwards the requests.
pub async fn run_tcp() {
    let kind = Kind::HaproxyTcp(Version::Two);
    let more = [
        ("KEYWARD_SERVER__PROXY_PROTOCOL", "on"),
        ("KEYWARD_SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let mut keyward = RealKeyward::start("", &more);
    let upstream = Upstream::start();
    let Some(program) = Program::start(kind, keyward.asked_by(kind), upstream.address) else {
        return;
    };
    let command = command_in_head(kind);
    assert!(command.contains("127.0.0.1:9000"), "{command}");
    keyward.shell(&command.replace("127.0.0.1:9000", &upstream.address.to_string()));
    let credential = format!("API-KEY: {}\r\n", keyward.credential);
    let response = send(program.address, "GET", "/some/path", &credential, b"").await;
    assert_eq!(response.status, 200, "{response:?} {}", program.log());
    assert_eq!(upstream.take().len(), 1);
    keyward.kill();
    let mut connected = tokio::net::TcpStream::connect(program.address).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::io::AsyncReadExt::read_to_end(&mut connected, &mut rest);
    let closed = tokio::time::timeout(LONGEST, closed).await;
    assert!(closed.is_ok() && rest.is_empty(), "{closed:?} {rest:?}");
}

/// HAProxy goes on with a request if a Lua action fails. The shipped file must then refuse it.
pub async fn run_failing_action() {
    let keyward = RealKeyward::start("", &[]);
    let upstream = Upstream::start();
    let fail = |text: String| {
        text.replace(
            "    local headers, count = ",
            "    error('broken')\n    local headers, count = ",
        )
    };
    let (kind, asked) = (Kind::Haproxy, keyward.verify);
    assert!(kind.shipped_files().into_iter().any(|(_, text)| fail(text.clone()) != text));
    let Some(program) = Program::start_changed(kind, asked, upstream.address, fail) else { return };
    let response = send(program.address, "GET", "/some/path", "", b"").await;
    assert_eq!((response.status, upstream.take().len()), (503, 0), "{response:?}");
}
