//! The real program on a store, and what it takes.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::Outcome;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A server, until it is dropped.
pub struct Server {
    child: Child,
    /// Where it can be asked.
    pub public: String,
    /// How long it took until `/health/ready` answered.
    pub ready: Duration,
}

impl Server {
    /// Starts it.
    pub fn start(store: &Path) -> Outcome<Self> {
        let mut control = store.as_os_str().to_owned();
        control.push(".control");
        let _ = fs::remove_file(&control);
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_keyward"))
            .env_clear()
            .env("KEYWARD_STORE__PATH", store)
            .env("KEYWARD_STORE__PEPPER_FILE", store.with_extension("pepper"))
            .env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_LIMITS__CONNECTIONS", "100000")
            // Connections that wait shall wait until the end.
            .env("KEYWARD_LIMITS__IDLE_SECONDS", "3600")
            .current_dir(store.parent().ok_or("no folder")?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, public: String::new(), ready: Duration::ZERO };
        let found = loop {
            let text = fs::read(&control).unwrap_or_default();
            if let Ok(found) = serde_json::from_slice::<serde_json::Value>(&text) {
                break found;
            }
            if server.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                return Err("the program does not get ready".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let address = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
        server.public = address("public");
        is_ready(&address("address"))?;
        server.ready = begun.elapsed();
        Ok(server)
    }

    /// The bytes that it holds in memory.
    pub fn resident(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// The CPU time that its threads have used.
    pub fn cpu(&self) -> Outcome<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // One that has just ended is none.
            let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0);
        }
        Ok(Duration::from_nanos(nanos))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn is_ready(address: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(answer.into()),
    }
}
