//! Tests of what browsers and caches need: CORS, and the fields that keep caches from mixing
//! clients.

mod application;
mod caches;
mod chromium;
mod cors;
mod pass;
mod refusals;
mod settings;
mod verify;

use std::process::Stdio;

use serde_json::{Value, json};

use self::application::Application;
use crate::harness::{Key, Request, Response, Server, Site};

/// A server with the users ada and bob, in front of an application.
struct Fixture {
    server: Server,
    application: Application,
    ada: Key,
    bob: Key,
}

impl Fixture {
    fn new() -> Self {
        Self::with(Site::new())
    }

    fn with(site: Site) -> Self {
        let server = site.start();
        let application = Application::start();
        let ada = server.user_with_permissions("ada", &[]);
        let bob = server.user_with_permissions("bob", &[]);
        Self { server, application, ada, bob }
    }

    /// Creates a resource that forwards to the application. The fields in `changes` replace fields
    /// of the record.
    fn forward(&self, id: &str, path: &str, changes: Value) {
        let proxy = json!({ "upstreams": [format!("http://{}", self.application.address)] });
        let mut record = json!({ "handler": "proxy", "proxy": proxy });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.create(id, path, record);
    }

    /// Creates a resource.
    fn create(&self, id: &str, path: &str, changes: Value) {
        let response = self.try_create(id, path, changes);
        assert_eq!(response.status, 201, "{}", response.body);
    }

    fn try_create(&self, id: &str, path: &str, changes: Value) -> Response {
        let mut record = json!({
            "id": id, "path": path, "methods": ["GET", "POST"], "formats": ["any"], "authentication": ["*"],
        });
        record.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        self.server.admin_api("POST", "/api/v1/resources").json(&record).send()
    }

    fn get(&self, path: &str) -> Request {
        self.server.request("GET", path)
    }

    /// A request with the key of ada.
    fn ada(&self, method: &str, path: &str) -> Request {
        self.server.request(method, path).header("API-KEY", &self.ada.credential)
    }

    /// A preflight of a page of `https://app.example`, for a GET.
    fn preflight(&self, path: &str) -> Request {
        self.preflight_from("https://app.example", "GET", path)
    }

    fn preflight_from(&self, origin: &str, method: &str, path: &str) -> Request {
        let request = self.server.request("OPTIONS", path).header("Origin", origin);
        request.header("Access-Control-Request-Method", method)
    }
}

/// The names of all CORS fields of a response.
fn cors_fields(response: &Response) -> Vec<&str> {
    let names = response.headers.iter().map(|(name, _)| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

/// The file of a program, in `PATH` or in `/usr/sbin`. `None` means that the program is missing,
/// and that the test must be skipped.
#[allow(clippy::print_stderr, reason = "a skipped test prints the reason")]
fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        let text = format!("{name} is missing: apt-get install {name}");
        assert!(std::env::var_os("CI").is_none(), "{text}");
        eprintln!("skipped: {text}");
    }
    found
}

/// A program that runs until it is dropped.
struct Running(std::process::Child);

impl Running {
    fn start(mut command: std::process::Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
        Self(command.spawn().unwrap())
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
