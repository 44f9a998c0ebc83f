//! Tests of reloads under load: no request is lost, and all scripts that decide a request are of
//! one version.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;

const CLIENTS: usize = 8;
const REQUESTS: usize = 2000;
const RELOADS: usize = 50;

/// The two scripts of a version. Each script has the version in a constant, and each function
/// reports this version.
fn scripts(version: usize) -> [(&'static str, String); 2] {
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

/// Tells the clients to stop when this value is dropped, also if the test fails.
struct StopLoad<'a>(&'a AtomicBool);

impl Drop for StopLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces the whole folder of scripts at once, as a deployment does.
fn deploy(server: &Server, version: usize) {
    let root = server.site.path();
    let next = root.join(format!("set-{version}"));
    for (file, text) in scripts(version) {
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
fn reload_loses_no_request_and_never_mixes_versions() {
    let site = site(&[])
        .with_env("KEYWARD_SCRIPTS__DIR", "current")
        .with_env("KEYWARD_LOG__LEVEL", "info");
    let first = site.path().join("current");
    for (file, text) in scripts(0) {
        let path = first.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let server = site.start();
    // Replace the folder with a symbolic link, because a link can be replaced atomically.
    fs::rename(&first, server.site.path().join("set-first")).unwrap();
    deploy(&server, 0);
    reload_by_signal(&server);
    create_resource(&server, "version", "/version", json!({ "handler": "script:version" }));
    let (request_count, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let seen = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    // Continue until all reloads are done and at least `REQUESTS` requests were
                    // sent.
                    while request_count.fetch_add(1, Ordering::Relaxed) < REQUESTS
                        || !is_over.load(Ordering::Relaxed)
                    {
                        let response = server.request_as_admin("GET", "/version").send();
                        assert_eq!(response.status, 200, "{response:?}");
                        let header = |name: &str| response.header(name).map(str::to_owned);
                        let body = Some(response.body.clone());
                        assert_eq!(header("x-request-version"), body, "{response:?}");
                        assert_eq!(header("x-response-version"), body, "{response:?}");
                        seen.push(response.body.parse::<usize>().unwrap());
                    }
                    seen
                })
            })
            .collect();
        let stop_load = StopLoad(&is_over);
        for version in 1..=RELOADS {
            deploy(&server, version);
            reload_by_signal(&server);
        }
        drop(stop_load);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(seen.len() >= REQUESTS, "{}", seen.len());
    let different: std::collections::BTreeSet<_> = seen.iter().collect();
    assert!(different.len() > RELOADS / 2, "the load saw only {different:?}");
    let last = RELOADS.to_string();
    wait_until("the last version is active", || {
        server.request_as_admin("GET", "/version").send().body == last
    });
}

/// SIGHUP must not end a server that has just reported that it is ready.
#[test]
fn sighup_right_after_the_start_reloads_the_scripts() {
    for _ in 0..5 {
        let server = server(&[("hooks.rhai", "fn on_request(req) {}")]);
        reload_by_signal(&server);
        assert_eq!(server.request_as_admin("GET", "/user/1?_format=json").send().status, 200);
    }
}
