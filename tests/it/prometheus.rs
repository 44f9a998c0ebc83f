//! The real Prometheus reads the metrics, and accepts the shipped rules. If Debian's package
//! `prometheus` is missing, the tests are skipped; if the variable `CI` is set, they fail instead.

#![allow(clippy::print_stderr, reason = "a skipped test prints the reason")]

use std::{
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Server, client::Request};

fn is_installed() -> bool {
    let is_there = Command::new("promtool").arg("--version").output().is_ok();
    assert!(is_there || std::env::var_os("CI").is_none(), "apt-get install prometheus");
    if !is_there {
        eprintln!("skipped: apt-get install prometheus");
    }
    is_there
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/observability").join(name)
}

#[test]
fn shipped_rules_are_valid_and_name_existing_metrics() {
    let server = Server::new();
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    let page = Request::new(server.admin, "GET", "/metrics").send().body;
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(shipped("grafana.json")).unwrap()).unwrap();
    let rules = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let mut texts = vec![rules.as_str()];
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| {
        panel["targets"].as_array().unwrap().iter().map(|target| target["expr"].as_str().unwrap())
    });
    texts.extend(targets);
    // The other families appear with the first backup, upstream or refused connection.
    let later = ["keyward_backup_", "http_client_request_duration_seconds"];
    let mut checked = 0;
    for text in texts {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("keyward_") || word.starts_with("http_")) {
            let is_label = ["keyward_listener", "http_response_status_code"].contains(&name);
            if is_label || later.iter().any(|known| name.starts_with(known)) {
                continue;
            }
            checked += 1;
            let is_there = page.lines().any(|line| line.starts_with(name));
            assert!(is_there, "{name} is no metric\n{page}");
        }
    }
    assert!(checked > 10, "{checked}");
    if is_installed() {
        let rules = shipped("alerts.yml");
        let checked =
            Command::new("promtool").args(["check", "rules"]).arg(rules).output().unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        let config = shipped("prometheus.yml");
        let checked = Command::new("promtool").args(["check", "config"]).arg(config).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

#[test]
fn promtool_accepts_the_page() {
    if !is_installed() {
        return;
    }
    let server = Server::new();
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    let page = Request::new(server.admin, "GET", "/metrics").send().body;
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}\n{page}");
}

struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A free port.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn prometheus_scrapes_the_server_and_finds_its_requests() {
    if !is_installed() {
        return;
    }
    let server = Server::new();
    for _ in 0..5 {
        assert_eq!(server.request("GET", "/user/1").send().status, 401);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(shipped("prometheus.yml")).unwrap();
    let config = config.replace("127.0.0.1:8081", &server.admin.to_string());
    let config =
        config.replace("15s", "1s").replace("alerts.yml", shipped("alerts.yml").to_str().unwrap());
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let child = Command::new("prometheus")
        .current_dir(folder.path())
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    let query =
        "/api/v1/query?query=keyward_decisions_total%7Bcode%3D%22MISSING_API_KEY_HEADER%22%7D";
    for _ in 0..600 {
        sleep(Duration::from_millis(100));
        let Some(response) = Request::new(address, "GET", query).try_send() else { continue };
        if response.status != 200 {
            continue;
        }
        let value = response.json()["data"]["result"][0]["value"][1].clone();
        if value == "5" {
            return;
        }
    }
    panic!("Prometheus did not find the requests");
}
