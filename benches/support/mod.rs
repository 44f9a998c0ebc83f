//! Starts servers, puts load on them with wrk, and computes medians of the measurements, for
//! several benches.

#![allow(dead_code, reason = "each bench uses a part of this module")]

pub mod peers;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The number that follows the option `name` on the command line, or `default`.
pub fn option(name: &str, default: u64) -> u64 {
    let args: Vec<String> = std::env::args().collect();
    let index = args.iter().position(|arg| arg == name);
    index.and_then(|index| args.get(index + 1)?.parse().ok()).unwrap_or(default)
}

/// Measurements of one round.
#[derive(Clone, Default)]
pub struct Figures {
    /// Requests a second.
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    /// CPU time per request, in microseconds.
    pub cpu_us: f64,
    pub resident_mib: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>7.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {:.2} µs CPU per request, {:.1} MiB",
            self.rate, self.p50_ms, self.p99_ms, self.p999_ms, self.cpu_us, self.resident_mib
        )
    }
}

/// Computes `figure(a) / figure(b)` for each round and returns the median of these ratios.
///
/// A disturbance during a round affects `a` and `b`, so most of it cancels out in the ratio.
pub fn ratio(a: &[Figures], b: &[Figures], figure: fn(&Figures) -> f64) -> f64 {
    let mut ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| figure(a) / figure(b)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// The median of each figure, over all rounds.
pub fn median(rounds: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        rate: middle(|round| round.rate),
        p50_ms: middle(|round| round.p50_ms),
        p99_ms: middle(|round| round.p99_ms),
        p999_ms: middle(|round| round.p999_ms),
        cpu_us: middle(|round| round.cpu_us),
        resident_mib: middle(|round| round.resident_mib),
    }
}

/// The responses that a round has to consist of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Every status is 2xx.
    Success,
    /// At least one status is not 2xx.
    Denial,
}

/// A running server. Dropping it ends the process.
pub struct Server {
    pub name: &'static str,
    pub address: String,
    /// The address for proxies that ask; empty if the server has none.
    pub verify: String,
    /// The address of the admin API; empty if the server has none.
    pub admin: String,
    /// The header field with a valid credential. More fields may follow, each after a line feed.
    pub header: String,
    child: Child,
    /// Time from the start of the process until it was ready, accurate to a few milliseconds.
    pub ready: Duration,
    /// Process id of the server to which this server sends subrequests. The measured CPU time is
    /// the sum for both servers.
    backend: Option<u32>,
}

/// A wrk script that prints the 99.9th percentile, because the table that wrk prints ends at 99 %.
const TAIL: &str = "done = function(summary, latency) io.write(string.format(\"99.9%%: %dus\\n\", latency:percentile(99.9))) end\n";

/// The folder in which Keyward runs, with a store, configuration and scripts.
pub struct Setup<'a> {
    folder: &'a Path,
    /// The log level.
    pub log: &'static str,
    /// The setting `server.runtime`.
    pub runtime: &'static str,
    /// The header field with the administrator's key.
    pub header: String,
}

impl<'a> Setup<'a> {
    /// Creates a store in `folder`.
    pub fn new(folder: &'a Path) -> Outcome<Self> {
        let mut setup = Self { folder, log: "warn", runtime: "shared", header: String::new() };
        let first = setup.command(&["init", "--output", "json"]).output()?;
        let first: serde_json::Value = serde_json::from_slice(&first.stdout)?;
        let credential = format!("admin:{}", first["key"].as_str().ok_or("no key")?);
        setup.header = format!("API-KEY: {}", STANDARD.encode(credential));
        Ok(setup)
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, file: &str, text: &str) -> Outcome<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        std::fs::write(&path, text)?;
        // Keyward rejects secrets that others can read.
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Runs a command of Keyward and waits until the command ends.
    pub fn run(&self, args: &[&str]) -> Outcome<()> {
        let output = self.command(args).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{args:?}: {stderr}").into());
        }
        Ok(())
    }

    /// Runs a command of Keyward and parses the JSON that it prints.
    pub fn json(&self, args: &[&str]) -> Outcome<serde_json::Value> {
        let output = self.command(&[args, &["--output", "json"]].concat()).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{args:?}: {stderr}").into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Runs a command of Keyward with `input` as its standard input.
    pub fn pipe(&self, args: &[&str], input: &str) -> Outcome<()> {
        let mut child = self.command(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().ok_or("no stdin")?.write_all(input.as_bytes())?;
        if !child.wait()?.success() {
            return Err(format!("{args:?} failed").into());
        }
        Ok(())
    }

    /// Starts the server and waits until it has written its control file.
    pub fn serve(self, name: &'static str) -> Outcome<Server> {
        let log = std::fs::File::create(self.folder.join("server.log"))?;
        let begun = Instant::now();
        let mut child = self.command(&["serve"]).stdout(Stdio::null()).stderr(log).spawn()?;
        let control = self.folder.join("data/keyward.control");
        let until = Instant::now() + Duration::from_secs(30);
        let (address, verify, admin) = loop {
            let text = std::fs::read(&control).unwrap_or_default();
            if let Ok(control) = serde_json::from_slice::<serde_json::Value>(&text) {
                let text = |field: &str| control[field].as_str().unwrap_or_default().to_owned();
                break (text("public"), text("verify"), text("address"));
            }
            if child.try_wait()?.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.join("server.log"))?;
                return Err(format!("the server did not become ready: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let ready = begun.elapsed();
        let mut server = Server::new(name, address.parse()?, self.header, child);
        server.ready = ready;
        server.verify = verify;
        server.admin = admin;
        Ok(server)
    }

    fn command(&self, args: &[&str]) -> Command {
        // The variable names another build of Keyward to measure instead of the one that cargo
        // made.
        let other = std::env::var_os("KEYWARD_BENCH_PROGRAM");
        let mut command = Command::new(other.unwrap_or(env!("CARGO_BIN_EXE_keyward").into()));
        command.args(args).current_dir(self.folder).env_clear();
        command.env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0");
        command.env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0");
        command.env("KEYWARD_VERIFY__LISTEN", "127.0.0.1:0");
        command.env("KEYWARD_LOG__LEVEL", self.log);
        command.env("KEYWARD_SERVER__RUNTIME", self.runtime);
        // The benches' addresses are exempt from the failure limit, because some benches send many
        // wrong credentials on purpose.
        command.env("KEYWARD_LIMITS__FAILURE_EXEMPT", "127.0.0.0/8, 192.0.2.7");
        command
    }
}

impl Server {
    fn new(name: &'static str, address: SocketAddr, header: String, child: Child) -> Self {
        let address = address.to_string();
        let (ready, verify, admin) = (Duration::ZERO, String::new(), String::new());
        Self { name, address, verify, admin, header, child, ready, backend: None }
    }

    /// Adds the CPU time of `backend`, the server to which this server sends subrequests.
    #[must_use]
    pub fn with_backend(mut self, backend: &Self) -> Self {
        self.backend = Some(backend.child.id());
        self
    }

    /// Builds and starts `examples/bare.rs`, which responds with `body` to every request.
    pub fn bare(folder: &Path, body: &str) -> Outcome<Self> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--release", "--locked", "--example", "bare", "--message-format=json"])
            .stderr(Stdio::inherit())
            .output()?;
        let executable = String::from_utf8(built.stdout)?
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["target"]["name"] == "bare")
            .find_map(|message| message["executable"].as_str().map(str::to_owned))
            .ok_or("the bare server was not built")?;
        let file = folder.join("response.json");
        std::fs::write(&file, body)?;
        let begun = Instant::now();
        let mut child = Command::new(executable)
            .args(["--header", "cache-control: no-cache, private", "--body"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut address)?;
        let ready = begun.elapsed();
        let mut server = Self::new("bare", address.trim().parse()?, String::new(), child);
        server.ready = ready;
        Ok(server)
    }

    /// Makes the server reload its scripts.
    pub fn reload(&self) -> Outcome<()> {
        Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status()?;
        // The server does not report the end of a reload. A reload takes a few milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// Sends one GET request. Returns head and body of the response.
    pub fn get(&self, path: &str, header: &str) -> Outcome<(String, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n\r\n"
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").ok_or("no head")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// The address of the listener that serves a path.
    pub fn address_of(&self, path: &str) -> &str {
        if path.starts_with("/-/verify") && !self.verify.is_empty() {
            &self.verify
        } else {
            &self.address
        }
    }

    /// Puts load on one path with wrk. Every response must be a success.
    pub fn drive(&self, path: &str, header: &str, load: Load) -> Outcome<Figures> {
        self.drive_expecting(path, header, load, Expected::Success)
    }

    /// Puts load on one path with wrk, and fails if the responses are not as expected.
    pub fn drive_expecting(
        &self,
        path: &str,
        header: &str,
        load: Load,
        expected: Expected,
    ) -> Outcome<Figures> {
        let Load { seconds, connections } = load;
        let before = self.cpu()?;
        let mut script = tempfile::NamedTempFile::new()?;
        script.write_all(TAIL.as_bytes())?;
        let output = Command::new("wrk")
            .arg("-s")
            .arg(script.path())
            .args(["-t2", &format!("-c{connections}"), &format!("-d{seconds}s"), "--latency"])
            .args(header.lines().flat_map(|line| ["-H", line]))
            .arg(format!("http://{}{path}", self.address_of(path)))
            .output()
            .map_err(|error| format!("wrk: {error} (apt-get install wrk)"))?;
        let cpu = self.cpu()? - before;
        let text = String::from_utf8(output.stdout)?;
        let has_denials = text.contains("Non-2xx");
        if has_denials != (expected == Expected::Denial) || text.contains("Socket errors") {
            return Err(text.into());
        }
        let field = |name: &str| {
            let line = text.lines().map(str::trim).find(|line| line.starts_with(name));
            line.and_then(|line| line[name.len()..].split_whitespace().next().map(str::to_owned))
        };
        let rate = field("Requests/sec:").ok_or("wrk printed no rate")?.parse()?;
        let requests = text
            .lines()
            .find(|line| line.contains(" requests in "))
            .ok_or("wrk printed no count")?;
        let requests: f64 =
            requests.split_whitespace().next().ok_or("wrk printed no count")?.parse()?;
        Ok(Figures {
            rate,
            p50_ms: millis(&field("50%").ok_or("no p50")?)?,
            p99_ms: millis(&field("99%").ok_or("no p99")?)?,
            p999_ms: millis(&field("99.9%:").ok_or("no p99.9")?)?,
            cpu_us: cpu * 1e6 / requests,
            resident_mib: self.resident()?,
        })
    }

    /// CPU time in seconds that the server's processes have used, including those of its backend.
    fn cpu(&self) -> Outcome<f64> {
        let all = processes()?;
        let roots: Vec<u32> = self.backend.into_iter().chain([self.child.id()]).collect();
        let tree = process_tree(&all, &roots);
        // Linux counts CPU time in ticks. On servers there are always 100 ticks a second (USER_HZ).
        Ok(tree.iter().map(|process| process.ticks).sum::<f64>() / 100.0)
    }

    /// Resident memory of the server's processes without the backend, in MiB.
    pub fn resident(&self) -> Outcome<f64> {
        let all = processes()?;
        let tree = process_tree(&all, &[self.child.id()]);
        Ok(tree.iter().map(|process| process.resident_kib).sum::<f64>() / 1024.0)
    }
}

/// One process, read from `/proc/ID/stat`.
struct Process {
    id: u32,
    parent: u32,
    ticks: f64,
    resident_kib: f64,
}

fn processes() -> Outcome<Vec<Process>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // A process that ends between the listing and the read of its `stat` file is skipped.
    Ok(ids.filter_map(process).collect())
}

fn process(id: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    const PAGE_KIB: f64 = 4.0;
    Some(Process {
        id,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        resident_kib: number(21)? * PAGE_KIB,
    })
}

/// The processes `roots` and all their descendants.
fn process_tree<'p>(all: &'p [Process], roots: &[u32]) -> Vec<&'p Process> {
    let mut ids = roots.to_vec();
    let mut index = 0;
    while let Some(&parent) = ids.get(index) {
        ids.extend(all.iter().filter(|child| child.parent == parent).map(|child| child.id));
        index += 1;
    }
    all.iter().filter(|process| ids.contains(&process.id)).collect()
}

/// The load of one wrk run.
#[derive(Clone, Copy)]
pub struct Load {
    pub seconds: u64,
    pub connections: u64,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Parses a latency as wrk prints it (`512.00us`, `3.21ms`, `1.02s`) into milliseconds.
fn millis(text: &str) -> Outcome<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    Err(format!("{text} is not a duration").into())
}
