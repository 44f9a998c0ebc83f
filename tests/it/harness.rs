//! The real program in a folder of its own.

// Beside this file, wherever it is taken in from.
#[path = "client.rs"]
mod client;

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
#[allow(unused_imports, reason = "the harness is shared")]
pub use client::{Answer, Request, exchange};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before a test gives up. Nothing is asserted about being faster.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a store and its configuration.
pub struct Site {
    dir: TempDir,
    variables: Vec<(String, String)>,
}

impl Default for Site {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }
}

impl Site {
    /// An empty folder.
    pub fn new() -> Self {
        let mut site = Self::default();
        for (name, value) in [
            ("KEYWARD_SERVER__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_SERVER__WORKERS", "2"),
            ("KEYWARD_LOG__LEVEL", "trace"),
            // Tests are wrong on purpose, and often.
            ("KEYWARD_LIMITS__FAILURE_EXEMPT", "127.0.0.0/8"),
        ] {
            site = site.with(name, value);
        }
        site
    }

    /// Sets an environment variable for every command in this folder.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn store(&self) -> PathBuf {
        self.path().join("data/keyward")
    }

    /// The program with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command.args(args).current_dir(self.path()).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// A shell in this folder that finds the program, as `keyward`, where an operator's shell would.
    pub fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_keyward"));
        let found = std::env::var_os("PATH").unwrap_or_default();
        let folders = program.parent().into_iter().map(Path::to_owned);
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&found))).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.path()).env_clear().env("PATH", path);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the program, which must succeed, and reads the JSON that it prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "keyward {args:?}: {}\n{errors}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|problem| {
            panic!("keyward {args:?}: {problem}: {}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// Makes the store and starts the server.
    pub fn start(self) -> Server {
        let first = self.json(&["init"]);
        let key = first["key"].as_str().unwrap().to_owned();
        Server::start(self, key)
    }
}

/// A server that runs until it is dropped.
pub struct Server {
    pub site: Site,
    /// The first administrator's key.
    pub key: String,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    child: Child,
    printed: Arc<Mutex<String>>,
    logged: Arc<Mutex<String>>,
    /// Who reads what it logs, until the last byte.
    logger: Option<thread::JoinHandle<()>>,
    /// What must never be seen in a log: checked when the server goes, in every test.
    secrets: Mutex<Vec<String>>,
}

impl Server {
    /// A new store with a server on it.
    pub fn new() -> Self {
        Site::new().start()
    }

    /// Starts the server on a store that is there, or makes a new one.
    pub fn start(site: Site, key: String) -> Self {
        let mut child =
            site.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (printed, _) = collect(child.stdout.take().unwrap());
        let (logged, logger) = collect(child.stderr.take().unwrap());
        let control = site.path().join("data/keyward.control");
        let until = Instant::now() + PATIENCE;
        let is_ready = || {
            let text = std::fs::read(&control).ok()?;
            let control: Value = serde_json::from_slice(&text).ok()?;
            (control["pid"] == json!(child.id())).then_some(control)
        };
        let control = loop {
            if let Some(control) = is_ready() {
                break control;
            }
            assert!(Instant::now() < until, "not ready: {}", logged.lock().unwrap());
            thread::sleep(Duration::from_millis(2));
        };
        let public = control["public"].as_str().unwrap().parse().unwrap();
        // The control file of a server whose admin listener has TLS names the socket beside the store.
        let admin = control["address"].as_str().unwrap().parse();
        let server = Self {
            public,
            admin: admin.unwrap_or_else(|_| admin_in(&logged)),
            key: key.clone(),
            site,
            child,
            printed,
            logged,
            logger: Some(logger),
            secrets: Mutex::default(),
        };
        server.hide_key(&key);
        server.hide_key(control["key"].as_str().unwrap());
        server.hide(&server.pepper());
        server.hide("argon2id$");
        server
    }

    /// The pepper, as its file holds it.
    pub fn pepper(&self) -> String {
        let text = std::fs::read_to_string(self.site.path().join("data/keyward.pepper")).unwrap();
        text.trim().to_owned()
    }

    /// Remembers something that must not be logged.
    pub fn hide(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Remembers a key: its secret part, so that no part of its text is logged, and its digest.
    pub fn hide_key(&self, key: &str) {
        // Of a server that was started without one, nothing is known that could be found.
        if key.is_empty() {
            return;
        }
        let pepper = keyward::model::Pepper::from_hex(&self.pepper()).unwrap();
        let digest = serde_json::to_value(pepper.digest(key)).unwrap();
        self.hide(digest.as_str().unwrap());
        self.hide(key.rsplit('_').next().unwrap());
    }

    /// What it wrote to standard output so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// What it logged so far.
    pub fn logged(&self) -> String {
        self.logged.lock().unwrap().clone()
    }

    /// Waits until the log has told this: it comes after the answer, through a pipe.
    pub fn tells(&self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.logged().contains(text) {
            assert!(Instant::now() < until, "the log does not tell {text:?}: {}", self.logged());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) -> Site {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.site)
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not stop");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Makes a user with the command line, and returns its number.
    pub fn user(&self, name: &str, args: &[&str]) -> u64 {
        let made = self.site.json(&[&["user", "add", name], args].concat());
        made["uid"].as_u64().unwrap()
    }

    /// Makes a key with the command line.
    pub fn key(&self, name: &str, args: &[&str]) -> Key {
        let made = self.site.json(&[&["key", "generate", name], args].concat());
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        self.hide_key(&text("key"));
        self.hide(&credential(name, &text("key")));
        Key { id: text("id"), text: text("key"), credential: credential(name, &text("key")) }
    }

    /// Makes a user with a key and, if any are named, a role with these permissions.
    pub fn user_with(&self, name: &str, permissions: &[&str]) -> Key {
        if permissions.is_empty() {
            self.user(name, &[]);
        } else {
            let role = format!("role-of-{}", name.to_lowercase());
            let mut args = vec!["role", "add", &role, "--label", "A role"];
            for permission in permissions {
                args.extend(["--permission", permission]);
            }
            self.site.json(&args);
            self.user(name, &["--role", &role]);
        }
        self.key(name, &[])
    }

    /// The credential of the first administrator.
    pub fn administrator(&self) -> String {
        credential("admin", &self.key)
    }

    /// A request to the public listener with the administrator's credential.
    pub fn asks(&self, method: &str, target: &str) -> Request {
        self.request(method, target).header("API-KEY", self.administrator())
    }

    /// A request to the public listener without a credential.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.public, method, target)
    }

    /// A request to the admin listener with the administrator's credential.
    pub fn manages(&self, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target).header("API-KEY", self.administrator())
    }

    /// A request to the admin listener with this credential.
    pub fn manages_as(&self, credential: &str, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target).header("API-KEY", credential)
    }

    /// Changes the default application.
    pub fn application(&self, change: Value) {
        let target = "/api/v1/applications/default";
        let answer = self.manages("PATCH", target).json(&change).send();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    /// Changes the user resource.
    pub fn resource(&self, change: Value) {
        let target = "/api/v1/resources/entity.user";
        let answer = self.manages("PATCH", target).json(&change).send();
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            return;
        }
        // Its last lines may still be on their way.
        if let Some(logger) = self.logger.take() {
            logger.join().unwrap();
        }
        let logged = self.logged();
        assert!(logged.contains("ready"), "nothing was logged: the search would prove nothing");
        for secret in self.secrets.lock().unwrap().iter() {
            let line = logged.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "a secret was logged: {}", line.unwrap_or_default());
        }
        assert!(!logged.contains("panicked"), "{logged}");
    }
}

/// A key that was generated.
pub struct Key {
    pub id: String,
    pub text: String,
    /// What `API-KEY` carries.
    pub credential: String,
}

/// `base64(user:secret)`.
pub fn credential(user: &str, secret: &str) -> String {
    STANDARD.encode(format!("{user}:{secret}"))
}

/// The admin listener's address, as the line says that tells that the server is ready.
fn admin_in(logged: &Mutex<String>) -> SocketAddr {
    let until = Instant::now() + PATIENCE;
    loop {
        let logged = logged.lock().unwrap().clone();
        let place = logged.lines().find_map(|line| line.split_once("admin=").map(|(_, rest)| rest));
        if let Some(place) = place.filter(|place| place.contains("users=")) {
            return place.split(' ').next().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < until, "no admin listener: {logged}");
        thread::sleep(Duration::from_millis(2));
    }
}

type Collected = (Arc<Mutex<String>>, thread::JoinHandle<()>);

fn collect(stream: impl std::io::Read + Send + 'static) -> Collected {
    let text = Arc::new(Mutex::new(String::new()));
    let sink = text.clone();
    let reader = thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            sink.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    (text, reader)
}
