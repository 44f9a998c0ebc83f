//! A reload during load: no request is lost, and none is decided by half of one set and half of the next.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const CLIENTS: usize = 8;
const REQUESTS: usize = 2000;
const RELOADS: usize = 50;

/// Each set has one number, in a constant of two files. Every function tells it.
fn sets(version: usize) -> [(&'static str, String); 2] {
    let hooks = format!(
        "const VERSION = \"{version}\";
        fn on_request(req) {{ req.set(\"version\", VERSION); }}
        fn on_permit(req, identity, resource) {{ if req.get(\"version\") != VERSION {{ deny(418, \"HALF\", \"Half.\"); }} }}
        fn on_response(req, identity, response) {{
            response.set_header(\"X-Request-Version\", req.get(\"version\"));
            response.set_header(\"X-Response-Version\", VERSION);
        }}"
    );
    let handler = format!("const VERSION = \"{version}\";\nfn handle(req, identity) {{ VERSION }}");
    [("hooks.rhai", hooks), ("handlers/version.rhai", handler)]
}

/// Ends the load when it goes, also where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts a whole folder in the place of the last one, as a deployment does.
fn deploy(server: &Server, version: usize) {
    let root = server.site.path();
    let next = root.join(format!("set-{version}"));
    for (file, text) in sets(version) {
        let path = next.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let link = root.join("link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&next, &link).unwrap();
    fs::rename(link, root.join("current")).unwrap();
}

#[test]
fn no_request_is_lost_and_none_is_decided_by_half_of_each_set() {
    let site = site(&[]).with("KEYWARD_SCRIPTS__DIR", "current").with("KEYWARD_LOG__LEVEL", "info");
    let first = site.path().join("current");
    for (file, text) in sets(0) {
        let path = first.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let server = site.start();
    // From here on the folder is a link, which can be changed at once.
    fs::rename(&first, server.site.path().join("set-first")).unwrap();
    deploy(&server, 0);
    hang_up(&server);
    resource(&server, "version", "/version", json!({ "handler": "script:version" }));
    let (asked, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    // Until all reloads are done, and for as many requests as were promised.
                    while asked.fetch_add(1, Ordering::Relaxed) < REQUESTS
                        || !is_over.load(Ordering::Relaxed)
                    {
                        let answer = server.asks("GET", "/version").send();
                        assert_eq!(answer.status, 200, "{answer:?}");
                        let told = |name: &str| answer.header(name).map(str::to_owned);
                        let body = Some(answer.body.clone());
                        assert_eq!(told("x-request-version"), body, "{answer:?}");
                        assert_eq!(told("x-response-version"), body, "{answer:?}");
                        seen.push(answer.body.parse::<usize>().unwrap());
                    }
                    seen
                })
            })
            .collect();
        let over = Over(&is_over);
        for version in 1..=RELOADS {
            deploy(&server, version);
            hang_up(&server);
        }
        drop(over);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(seen.len() >= REQUESTS, "{}", seen.len());
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert!(different.len() > RELOADS / 2, "the load saw only {different:?}");
    let last = RELOADS.to_string();
    until("the last is in force", || server.asks("GET", "/version").send().body == last);
}

/// Whoever is told that the server is ready may ask it to load its scripts again: the signal must not end it.
#[test]
fn a_signal_in_the_first_moment() {
    for _ in 0..5 {
        let server = server(&[("hooks.rhai", "fn on_request(req) {}")]);
        hang_up(&server);
        assert_eq!(server.asks("GET", "/user/1?_format=json").send().status, 200);
    }
}
