//! Starts the real server on a store, and reads its memory and CPU time.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use keyward::store::EngineKind;

use super::Outcome;

/// The maximum time from the start of the server until the server is ready.
const START_TIMEOUT: Duration = Duration::from_secs(300);

/// A running server. Dropping it ends the process.
pub struct Server {
    child: Child,
    /// Address of the public listener.
    pub public: String,
    /// Time from the start until `/health/ready` responded.
    pub ready: Duration,
}

impl Server {
    /// Starts the server and waits until it is ready.
    pub fn start(store: &Path, engine: EngineKind) -> Outcome<Self> {
        let mut control = store.as_os_str().to_owned();
        control.push(".control");
        let _ = fs::remove_file(&control);
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_keyward"))
            .env_clear()
            .env("KEYWARD_STORE__PATH", store)
            .env("KEYWARD_STORE__ENGINE", engine.name())
            .env("KEYWARD_STORE__PEPPER_FILE", store.with_extension("pepper"))
            .env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_VERIFY__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_LIMITS__CONNECTIONS", "100000")
            // Idle connections have to stay open until the end of the bench.
            .env("KEYWARD_LIMITS__IDLE_SECONDS", "3600")
            .current_dir(store.parent().ok_or("no folder")?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, public: String::new(), ready: Duration::ZERO };
        let addresses = loop {
            let text = fs::read(&control).unwrap_or_default();
            if let Ok(addresses) = serde_json::from_slice::<serde_json::Value>(&text) {
                break addresses;
            }
            if server.child.try_wait()?.is_some() || begun.elapsed() > START_TIMEOUT {
                return Err("the server did not become ready".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let address = |field: &str| addresses[field].as_str().unwrap_or_default().to_owned();
        server.public = address("public");
        check_ready(&address("address"))?;
        server.ready = begun.elapsed();
        Ok(server)
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> Outcome<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// CPU time that all threads of the server have used.
    pub fn cpu(&self) -> Outcome<Duration> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that ends between the listing and this read is skipped.
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

fn check_ready(address: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /health/ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    if !response.starts_with("HTTP/1.1 200") {
        return Err(response.into());
    }
    Ok(())
}
