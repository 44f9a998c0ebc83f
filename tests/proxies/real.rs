//! The real program of Keyward in a folder of its own, for tests that stop it, kill it, run its
//! commands or read its log.

use std::{
    fs::File,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::program::Kind;

const TIMEOUT: Duration = Duration::from_secs(30);
const PROGRAM: &str = env!("CARGO_BIN_EXE_keyward");

/// A server that runs until it is dropped.
pub struct RealKeyward {
    child: Child,
    folder: TempDir,
    variables: Vec<(&'static str, &'static str)>,
    /// The value of `API-KEY` for the administrator.
    pub credential: String,
    pub public: SocketAddr,
    pub verify: SocketAddr,
    pub grpc: SocketAddr,
}

impl RealKeyward {
    /// Starts a server with these hooks (or with none), and with more environment variables.
    pub fn start(hooks: &str, more: &[(&'static str, &'static str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut variables = vec![
            ("KEYWARD_SERVER__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_VERIFY__LISTEN", "127.0.0.1:0"),
            ("KEYWARD_VERIFY__GRPC_LISTEN", "127.0.0.1:0"),
            ("KEYWARD_LIMITS__FAILURE_EXEMPT", "127.0.0.0/8"),
        ];
        variables.extend_from_slice(more);
        if !hooks.is_empty() {
            std::fs::create_dir(folder.path().join("scripts")).unwrap();
            std::fs::write(folder.path().join("scripts/hooks.rhai"), hooks).unwrap();
        }
        let run = |args: &[&str]| command(folder.path(), &variables, PROGRAM, args);
        let first = run(&["init", "--output", "json"]).output().unwrap();
        assert!(first.status.success(), "{first:?}");
        let first: Value = serde_json::from_slice(&first.stdout).unwrap();
        let credential = STANDARD.encode(format!("admin:{}", first["key"].as_str().unwrap()));
        let log = File::create(folder.path().join("log")).unwrap();
        let child = run(&["serve"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (public, verify, grpc) = (address, address, address);
        let mut server = Self { child, folder, variables, credential, public, verify, grpc };
        let deadline = Instant::now() + TIMEOUT;
        while !server.log().contains("\"ready\"") && !server.log().contains(" ready ") {
            assert!(Instant::now() < deadline, "not ready: {}", server.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        server.public = server.address("public");
        server.verify = server.address("verify");
        server.grpc = server.address("grpc");
        server
    }

    /// The address of a listener, from the log.
    fn address(&self, listener: &str) -> SocketAddr {
        let log = self.log();
        let (_, rest) = log.split_once(&format!("{listener}=")).expect("the address in the log");
        let end = rest.find(|c: char| c.is_whitespace()).unwrap_or(rest.len());
        rest[..end].parse().unwrap_or_else(|problem| panic!("{problem}: {log}"))
    }

    /// The address at which a proxy asks.
    pub fn asked_by(&self, kind: Kind) -> SocketAddr {
        match kind {
            Kind::EnvoyGrpc => self.grpc,
            Kind::HaproxyTcp(_) => self.public,
            _ => self.verify,
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Runs a line of a shell, in which `keyward` is the program.
    pub fn shell(&self, line: &str) {
        let script = format!("keyward() {{ '{PROGRAM}' \"$@\"; }}\n{line}");
        let mut shell = command(self.folder.path(), &self.variables, "bash", &["-c", &script]);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn command(folder: &Path, variables: &[(&str, &str)], program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).env_clear().stdin(Stdio::null());
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables.iter().copied());
    command
}

impl Drop for RealKeyward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
