//! Runs the real program in a temporary folder.

// The attribute makes the path relative to this file, because `tests/crash.rs` includes this file
// too.
#[path = "client.rs"]
pub mod client;

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
pub use client::{Request, Response, exchange};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The maximum time that a test waits for an event. No test requires a shorter time.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A temporary folder for a store, and the environment variables that configure the program.
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
            ("KEYWARD_VERIFY__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_SERVER__WORKERS", "2"),
            ("KEYWARD_LOG__LEVEL", "trace"),
            ("KEYWARD_LOG__CLIENTS", "all"),
            // The tests' addresses are exempt from the failure limits, because tests often send
            // wrong credentials on purpose.
            ("KEYWARD_LIMITS__FAILURE_EXEMPT", "127.0.0.0/8"),
        ] {
            site = site.with_env(name, value);
        }
        site
    }

    /// Sets an environment variable for every command in this folder.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
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

    /// A command that runs the program with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyward"));
        command.args(args).current_dir(self.path()).env_clear();
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// A shell that runs a script in this folder. The script can run the program as `keyward`.
    pub fn shell(&self, script: &str) -> Command {
        let program = Path::new(env!("CARGO_BIN_EXE_keyward"));
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders = program.parent().into_iter().map(Path::to_owned);
        let path = std::env::join_paths(folders.chain(std::env::split_paths(&inherited))).unwrap();
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(self.path()).env_clear().env("PATH", path);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program and waits until it ends.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the program, which must succeed, and reads the JSON that it prints.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--output", "json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "keyward {args:?}: {}\n{errors}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("keyward {args:?}: {error}: {}", String::from_utf8_lossy(&output.stdout))
        })
    }

    /// Creates the store and starts the server.
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
    /// The listener for proxies that ask. `None` means a Unix socket, or no listener.
    pub verify: Option<SocketAddr>,
    pub admin: SocketAddr,
    child: Child,
    printed: Arc<Mutex<String>>,
    logged: Arc<Mutex<String>>,
    /// The thread that reads the log until the end of the stream.
    log_reader: Option<thread::JoinHandle<()>>,
    /// Texts that the log must never contain. `drop` searches the log for these texts.
    secrets: Mutex<Vec<String>>,
}

impl Server {
    /// Creates a store in a new folder, and starts a server with this store.
    pub fn new() -> Self {
        Site::new().start()
    }

    /// Starts a server with the store in this folder. If the folder has no store, the server
    /// creates a store.
    pub fn start(site: Site, key: String) -> Self {
        let command = site.command(&["serve"]);
        Self::start_with(site, key, command)
    }

    /// Starts the server with another command in this folder.
    pub fn start_with(site: Site, key: String, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (printed, _) = collect(child.stdout.take().unwrap());
        let (logged, log_reader) = collect(child.stderr.take().unwrap());
        let control = site.path().join("data/keyward.control");
        let deadline = Instant::now() + TIMEOUT;
        let is_ready = || {
            let text = std::fs::read(&control).ok()?;
            let control: Value = serde_json::from_slice(&text).ok()?;
            (control["pid"] == json!(child.id())).then_some(control)
        };
        let control = loop {
            if let Some(control) = is_ready() {
                break control;
            }
            assert!(Instant::now() < deadline, "not ready: {}", logged.lock().unwrap());
            thread::sleep(Duration::from_millis(2));
        };
        let public = control["public"].as_str().unwrap().parse().unwrap();
        let verify = control["verify"].as_str().and_then(|address| address.parse().ok());
        // If the admin listener uses TLS, the control file has the path of a Unix socket instead of
        // an address.
        let admin = control["address"].as_str().unwrap().parse();
        let server = Self {
            public,
            verify,
            admin: admin.unwrap_or_else(|_| admin_address_in_log(&logged)),
            key: key.clone(),
            site,
            child,
            printed,
            logged,
            log_reader: Some(log_reader),
            secrets: Mutex::default(),
        };
        server.forbid_key_in_log(&key);
        server.forbid_key_in_log(control["key"].as_str().unwrap());
        server.forbid_in_log(&server.pepper());
        server.forbid_in_log("argon2id$");
        server
    }

    /// The pepper, in the text form of its file.
    pub fn pepper(&self) -> String {
        let text = std::fs::read_to_string(self.site.path().join("data/keyward.pepper")).unwrap();
        text.trim().to_owned()
    }

    /// Adds a text that the log must not contain.
    pub fn forbid_in_log(&self, secret: &str) {
        self.secrets.lock().unwrap().push(secret.to_owned());
    }

    /// Adds the secret part and the digest of a key to the texts that the log must not contain.
    pub fn forbid_key_in_log(&self, key: &str) {
        // A test that does not know the administrator's key starts the server with an empty text.
        if key.is_empty() {
            return;
        }
        let pepper = keyward::model::Pepper::from_hex(&self.pepper()).unwrap();
        let digest = serde_json::to_value(pepper.digest(key)).unwrap();
        self.forbid_in_log(digest.as_str().unwrap());
        self.forbid_in_log(key.rsplit('_').next().unwrap());
    }

    /// The standard output of the server so far.
    pub fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// The log of the server so far.
    pub fn logged(&self) -> String {
        self.logged.lock().unwrap().clone()
    }

    /// Waits until the log contains this text. The log comes through a pipe, and may arrive later
    /// than the response.
    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.logged().contains(text) {
            assert!(
                Instant::now() < deadline,
                "the log does not contain {text:?}: {}",
                self.logged()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The process ID of the server.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server with SIGKILL and returns its folder.
    pub fn kill(mut self) -> Site {
        self.wait_for_ready_log();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.site)
    }

    /// Sends SIGTERM and waits until the server has ended.
    pub fn stop(&mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not stop");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Creates a user with the command line, and returns the UID.
    pub fn add_user(&self, name: &str, args: &[&str]) -> u64 {
        let created = self.site.json(&[&["user", "add", name], args].concat());
        created["uid"].as_u64().unwrap()
    }

    /// Generates a key with the command line.
    pub fn generate_key(&self, name: &str, args: &[&str]) -> Key {
        let created = self.site.json(&[&["key", "generate", name], args].concat());
        let text = |field: &str| created[field].as_str().unwrap().to_owned();
        self.forbid_key_in_log(&text("key"));
        self.forbid_in_log(&credential(name, &text("key")));
        Key { id: text("id"), text: text("key"), credential: credential(name, &text("key")) }
    }

    /// Creates a user with a key and, unless `permissions` is empty, a role with these permissions.
    pub fn user_with_permissions(&self, name: &str, permissions: &[&str]) -> Key {
        if permissions.is_empty() {
            self.add_user(name, &[]);
        } else {
            let role = format!("role-of-{}", name.to_lowercase());
            let mut args = vec!["role", "add", &role, "--label", "A role"];
            for permission in permissions {
                args.extend(["--permission", permission]);
            }
            self.site.json(&args);
            self.add_user(name, &["--role", &role]);
        }
        self.generate_key(name, &[])
    }

    /// The value of `API-KEY` for the first administrator.
    pub fn admin_credential(&self) -> String {
        credential("admin", &self.key)
    }

    /// A request to the public listener with the administrator's credential.
    pub fn request_as_admin(&self, method: &str, target: &str) -> Request {
        self.request(method, target).header("API-KEY", self.admin_credential())
    }

    /// A request to the public listener without a credential.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.public, method, target)
    }

    /// A request to the verify listener without a credential.
    pub fn verify_request(&self, method: &str, target: &str) -> Request {
        Request::new(self.verify.unwrap(), method, target)
    }

    /// A request to the admin listener with the administrator's credential.
    pub fn admin_api(&self, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target).header("API-KEY", self.admin_credential())
    }

    /// A request to the admin listener with this credential.
    pub fn admin_api_as(&self, credential: &str, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target).header("API-KEY", credential)
    }

    /// Changes the default application.
    pub fn patch_application(&self, change: Value) {
        let target = "/api/v1/applications/default";
        let response = self.admin_api("PATCH", target).json(&change).send();
        assert_eq!(response.status, 200, "{}", response.body);
    }

    /// Changes the user resource.
    pub fn patch_resource(&self, change: Value) {
        let target = "/api/v1/resources/entity.user";
        let response = self.admin_api("PATCH", target).json(&change).send();
        assert_eq!(response.status, 200, "{}", response.body);
    }
}

impl Server {
    /// A server responds a moment before it logs that it is ready. A kill in between would leave
    /// the log without this line, which tells that the log was read.
    fn wait_for_ready_log(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.logged().contains("ready") && Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.wait_for_ready_log();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            return;
        }
        // Wait for the last lines of the log, which may still be in the pipe.
        if let Some(reader) = self.log_reader.take() {
            reader.join().unwrap();
        }
        let logged = self.logged();
        assert!(logged.contains("ready"), "the log was not read, so secrets would not be found");
        for secret in self.secrets.lock().unwrap().iter() {
            let line = logged.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "a secret was logged: {}", line.unwrap_or_default());
        }
        assert!(!logged.contains("panicked"), "{logged}");
    }
}

/// A generated key.
pub struct Key {
    pub id: String,
    pub text: String,
    /// The value of the `API-KEY` header field.
    pub credential: String,
}

/// `base64(user:secret)`.
pub fn credential(user: &str, secret: &str) -> String {
    STANDARD.encode(format!("{user}:{secret}"))
}

/// The admin listener's address, from the log line that reports that the server is ready.
fn admin_address_in_log(logged: &Mutex<String>) -> SocketAddr {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let logged = logged.lock().unwrap().clone();
        let address =
            logged.lines().find_map(|line| line.split_once("admin=").map(|(_, rest)| rest));
        if let Some(address) = address.filter(|text| text.contains("users=")) {
            return address.split(' ').next().unwrap().parse().unwrap();
        }
        assert!(
            Instant::now() < deadline,
            "the log has no address of the admin listener: {logged}"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

/// The text that was read so far, and the thread that reads the stream.
type Collected = (Arc<Mutex<String>>, thread::JoinHandle<()>);

/// Reads a stream to its end in a new thread.
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
