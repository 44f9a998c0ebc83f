//! Tests of scripts in the real program: shipped scripts with independent clients (curl, openssl,
//! PyJWT), and the limits that no script can exceed.

mod bodies;
mod examples;
mod fail_closed;
mod hostile_clients;
mod keys;
mod loading;
mod reload;
mod responses;
mod shares;
mod signed;
mod tokens;

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Request, Response, Server, Site, TIMEOUT};

/// The text of a script or another file in the repository.
fn shipped(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A site with these scripts. The time limits are larger than the defaults, so that the scripts
/// also finish on a busy machine.
fn site(scripts: &[(&str, &str)]) -> Site {
    let site = Site::new()
        .with_env("KEYWARD_SCRIPTS__CALL_MILLISECONDS", "5000")
        .with_env("KEYWARD_SCRIPTS__TEST_SECONDS", "30");
    for (file, text) in scripts {
        write_script(&site, file, text);
    }
    site
}

/// A server with these scripts.
fn server(scripts: &[(&str, &str)]) -> Server {
    site(scripts).start()
}

fn write_script(site: &Site, file: &str, text: &str) {
    let path = site.path().join("scripts").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes a secret into the folder of secrets.
fn write_secret(site: &Site, name: &str, value: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = site.path().join("secrets");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), value).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600)).unwrap();
}

/// Creates a resource with a fixed response. The fields in `changes` replace fields of the record.
fn create_resource(server: &Server, id: &str, path: &str, changes: Value) {
    let mut record = json!({
        "id": id, "handler": "respond", "path": path, "methods": ["GET", "POST"], "formats": ["any"],
        "authentication": ["*"], "respond": { "status": 200, "content_type": "text/plain", "body": "passed" },
    });
    record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    if record["handler"] != "respond" {
        record.as_object_mut().unwrap().remove("respond");
    }
    let response = admin_request(server, "POST", "/api/v1/resources").json(&record).send();
    assert_eq!(response.status, 201, "{}", response.body);
}

/// Creates a default application with this authentication type.
fn create_default_application(server: &Server, auth_type: &str) {
    let record =
        json!({ "id": "scripted", "name": "Scripted", "type": auth_type, "is_default": true });
    let response = admin_request(server, "POST", "/api/v1/applications").json(&record).send();
    assert_eq!(response.status, 201, "{}", response.body);
}

/// A request to the admin API that names the application `default`, because some tests make another
/// application the default application.
fn admin_request(server: &Server, method: &str, target: &str) -> Request {
    server.admin_api(method, target).header("AUTH-METHOD", "default")
}

fn set_attributes(server: &Server, uid: u64, attributes: Value) {
    let target = format!("/api/v1/users/{uid}");
    let change = json!({ "attributes": attributes });
    let response = admin_request(server, "PATCH", &target).json(&change).send();
    assert_eq!(response.status, 200, "{}", response.body);
}

/// The status and the error code of a response.
fn status_and_code(response: &Response) -> (u16, String) {
    let code = response.json()["error"].as_str().unwrap_or_default().to_owned();
    (response.status, code)
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The number of script problems that `/health/ready` reports.
fn problem_count(server: &Server) -> u64 {
    let response = Request::new(server.admin, "GET", "/health/ready").send();
    assert_eq!(response.status, 200, "{}", response.body);
    response.json()["script_problems"].as_u64().unwrap_or_default()
}

/// Waits until the condition is true.
#[track_caller]
fn wait_until(description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {description}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends SIGHUP, which reloads the scripts, and waits until the log has the result.
fn reload_by_signal(server: &Server) {
    let before = finished_loads(server);
    let pid = control(server)["pid"].to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    wait_until("the scripts were reloaded", || finished_loads(server) > before);
}

/// The number of successful and failed loads of scripts in the log.
fn finished_loads(server: &Server) -> usize {
    let logged = server.logged();
    logged.matches("scripts loaded").count() + logged.matches("cannot reload the scripts").count()
}

fn control(server: &Server) -> Value {
    let text = fs::read(server.site.path().join("data/keyward.control")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// Runs a shell script with the address of the server in `SERVER`, and returns its output.
#[track_caller]
fn run_client(server: &Server, script: &str) -> String {
    let script = format!("set -euo pipefail\nSERVER={}\n{script}", server.public);
    let output = server.site.shell(&script).output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out.trim_end().to_owned()
}

/// Panics if a program is missing, and names the package that contains the program.
#[track_caller]
fn require_program(program: &str, package: &str) {
    let found = std::process::Command::new(program).arg("--version").output();
    assert!(found.is_ok(), "this test needs {program}: apt-get install {package}");
}
