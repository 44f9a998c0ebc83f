//! Scripts in the real program: the shipped ones with clients that are not ours, and what every script is promised to be unable to do.

mod answers;
mod closed;
mod examples;
mod keys;
mod loading;
mod reload;
mod signed;
mod tokens;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Answer, PATIENCE, Request, Server, Site};

/// A script that the repository ships.
fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A folder with these scripts. A busy machine gets more time for a call than a script should need.
fn site(scripts: &[(&str, &str)]) -> Site {
    let site = Site::new()
        .with("KEYWARD_SCRIPTS__CALL_MILLISECONDS", "5000")
        .with("KEYWARD_SCRIPTS__TEST_SECONDS", "30");
    for (file, text) in scripts {
        write(&site, file, text);
    }
    site
}

/// A server with these scripts.
fn server(scripts: &[(&str, &str)]) -> Server {
    site(scripts).start()
}

fn write(site: &Site, file: &str, text: &str) {
    let path = site.path().join("scripts").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A secret in the folder of secrets, which is not to be logged.
fn secret(site: &Site, name: &str, value: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = site.path().join("secrets");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), value).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Makes a resource with a fixed answer, changed so.
fn resource(server: &Server, id: &str, path: &str, changes: Value) {
    let mut record = json!({
        "id": id, "handler": "respond", "path": path, "methods": ["GET", "POST"], "formats": ["any"],
        "authentication": ["*"], "respond": { "status": 200, "content_type": "text/plain", "body": "passed" },
    });
    record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    if record["handler"] != "respond" {
        record.as_object_mut().unwrap().remove("respond");
    }
    let answer = manages(server, "POST", "/api/v1/resources").json(&record).send();
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// Makes an application of this type the default one.
fn application(server: &Server, auth_type: &str) {
    let record =
        json!({ "id": "scripted", "name": "Scripted", "type": auth_type, "is_default": true });
    let answer = manages(server, "POST", "/api/v1/applications").json(&record).send();
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// A request to the admin API, whatever the default application is.
fn manages(server: &Server, method: &str, target: &str) -> Request {
    server.manages(method, target).header("AUTH-METHOD", "default")
}

fn attributes(server: &Server, uid: u64, attributes: Value) {
    let target = format!("/api/v1/users/{uid}");
    let change = json!({ "attributes": attributes });
    let answer = manages(server, "PATCH", &target).json(&change).send();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// The error of an answer in the form of authentication.
fn code(answer: &Answer) -> (u16, String) {
    let code = answer.json()["error"].as_str().unwrap_or_default().to_owned();
    (answer.status, code)
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// What `/health/ready` counts.
fn problems(server: &Server) -> u64 {
    let answer = Request::new(server.admin, "GET", "/health/ready").send();
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["script_problems"].as_u64().unwrap_or_default()
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Has the server read its scripts again, and waits until it has said so.
fn hang_up(server: &Server) {
    let before = loads(server);
    let pid = control(server)["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the scripts were loaded again", || loads(server) > before);
}

/// How often the server has said what a load came to.
fn loads(server: &Server) -> usize {
    let logged = server.logged();
    logged.matches("scripts loaded").count() + logged.matches("scripts stay as they were").count()
}

fn control(server: &Server) -> Value {
    let text = fs::read(server.site.path().join("data/keyward.control")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Runs a client in a shell that knows where the server is, and returns what it prints.
#[track_caller]
fn client(server: &Server, script: &str) -> String {
    let script = format!("set -euo pipefail\nSERVER={}\n{script}", server.public);
    let output = server.site.shell(&script).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.trim_end().to_owned()
}

/// Fails where a program is missing, and says how to get it.
#[track_caller]
fn needs(program: &str, package: &str) {
    let found = std::process::Command::new(program).arg("--version").output();
    assert!(found.is_ok(), "this test needs {program}: apt-get install {package}");
}
