//! What the benches that drive a server with wrk share: the server, what is measured of it, and medians.

#![allow(dead_code, reason = "each bench uses a part of it")]

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

/// The number after an option of the command line.
pub fn option(name: &str, default: u64) -> u64 {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|arg| arg == name);
    at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
}

/// What one round came to.
#[derive(Clone, Default)]
pub struct Figures {
    pub rate: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub cpu_us: f64,
    pub resident_mib: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>7.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {:.2} CPU µs a request, {:.1} MiB",
            self.rate, self.p50_ms, self.p99_ms, self.p999_ms, self.cpu_us, self.resident_mib
        )
    }
}

/// The median over the rounds of a figure's ratio to the same figure of the same round elsewhere: what disturbs a round disturbs both.
pub fn ratio(these: &[Figures], those: &[Figures], of: fn(&Figures) -> f64) -> f64 {
    let mut all: Vec<f64> = these.iter().zip(those).map(|(a, b)| of(a) / of(b)).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The median of each figure.
pub fn median(figures: &[Figures]) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Figures {
        rate: middle(|one| one.rate),
        p50_ms: middle(|one| one.p50_ms),
        p99_ms: middle(|one| one.p99_ms),
        p999_ms: middle(|one| one.p999_ms),
        cpu_us: middle(|one| one.cpu_us),
        resident_mib: middle(|one| one.resident_mib),
    }
}

/// What requests are answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    Success,
    Refusal,
}

/// A server, until it is dropped.
pub struct Server {
    pub name: &'static str,
    pub address: String,
    /// Where its admin API is, if it has one.
    pub admin: String,
    /// The header field with a credential that is let in; more fields after a line end.
    pub header: String,
    child: Child,
    /// How long it took from its start until it let somebody in, to within a few milliseconds.
    pub ready: Duration,
    /// What it asks, and whose CPU time counts as its own.
    asks: Option<u32>,
}

/// What wrk is to print besides: its own table of latencies ends at 99 %.
const TAIL: &str = "done = function(summary, latency) io.write(string.format(\"99.9%%: %dus\\n\", latency:percentile(99.9))) end\n";

/// A folder for Keyward to run in, and the records in it.
pub struct Home<'a> {
    folder: &'a Path,
    /// What the server logs.
    pub log: &'static str,
    /// How its workers share the work: `server.runtime`.
    pub runtime: &'static str,
    /// The header field with the administrator's key.
    pub header: String,
}

impl<'a> Home<'a> {
    /// Makes a new store.
    pub fn new(folder: &'a Path) -> Outcome<Self> {
        let mut home = Self { folder, log: "warn", runtime: "shared", header: String::new() };
        let first = home.command(&["init", "--output", "json"]).output()?;
        let first: serde_json::Value = serde_json::from_slice(&first.stdout)?;
        let credential = format!("admin:{}", first["key"].as_str().ok_or("no key")?);
        home.header = format!("API-KEY: {}", STANDARD.encode(credential));
        Ok(home)
    }

    /// Writes a file.
    pub fn write(&self, file: &str, text: &str) -> Outcome<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.join(file);
        std::fs::create_dir_all(path.parent().ok_or("no folder")?)?;
        std::fs::write(&path, text)?;
        // Secrets must not be open to others.
        Ok(std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, verb: &[&str]) -> Outcome<()> {
        let output = self.command(verb).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{verb:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Runs a command of the program to its end, and reads the JSON that it prints.
    pub fn json(&self, verb: &[&str]) -> Outcome<serde_json::Value> {
        let output = self.command(&[verb, &["--output", "json"]].concat()).output()?;
        match output.status.success() {
            true => Ok(serde_json::from_slice(&output.stdout)?),
            false => Err(format!("{verb:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// Runs a command of the program with this on its standard input.
    pub fn pipe(&self, verb: &[&str], text: &str) -> Outcome<()> {
        let mut child = self.command(verb).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().ok_or("no input")?.write_all(text.as_bytes())?;
        match child.wait()?.success() {
            true => Ok(()),
            false => Err(format!("{verb:?} failed").into()),
        }
    }

    /// Starts the server.
    pub fn serve(self, name: &'static str) -> Outcome<Server> {
        let log = std::fs::File::create(self.folder.join("server.log"))?;
        let begun = Instant::now();
        let mut child = self.command(&["serve"]).stdout(Stdio::null()).stderr(log).spawn()?;
        let control = self.folder.join("data/keyward.control");
        let until = Instant::now() + Duration::from_secs(30);
        let (address, admin) = loop {
            let text = std::fs::read(&control).unwrap_or_default();
            if let Ok(control) = serde_json::from_slice::<serde_json::Value>(&text) {
                let text = |field: &str| control[field].as_str().unwrap_or_default().to_owned();
                break (text("public"), text("address"));
            }
            if child.try_wait()?.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.folder.join("server.log"))?;
                return Err(format!("the program does not get ready: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let ready = begun.elapsed();
        let mut server = Server::of(name, address.parse()?, self.header, child);
        server.ready = ready;
        server.admin = admin;
        Ok(server)
    }

    fn command(&self, verb: &[&str]) -> Command {
        // Another build of it, such as that of benches/pgo.
        let other = std::env::var_os("KEYWARD_BENCH_PROGRAM");
        let mut command = Command::new(other.unwrap_or(env!("CARGO_BIN_EXE_keyward").into()));
        command.args(verb).current_dir(self.folder).env_clear();
        command.env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0");
        command.env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0");
        command.env("KEYWARD_LOG__LEVEL", self.log);
        command.env("KEYWARD_SERVER__RUNTIME", self.runtime);
        // A bench may be wrong on purpose, and often.
        command.env("KEYWARD_LIMITS__FAILURE_EXEMPT", "127.0.0.0/8, 192.0.2.7");
        command
    }
}

impl Server {
    fn of(name: &'static str, address: SocketAddr, header: String, child: Child) -> Self {
        let address = address.to_string();
        let (ready, admin) = (Duration::ZERO, String::new());
        Self { name, address, admin, header, child, ready, asks: None }
    }

    /// The same, which asks that one.
    #[must_use]
    pub fn with(mut self, asked: &Self) -> Self {
        self.asks = Some(asked.child.id());
        self
    }

    /// The bare server of `examples/bare.rs`, with this body.
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
        let file = folder.join("answer.json");
        std::fs::write(&file, body)?;
        let begun = Instant::now();
        let mut child = Command::new(executable)
            .args(["--header", "cache-control: no-cache, private", "--body"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        let ready = begun.elapsed();
        let mut server = Self::of("bare", address.trim().parse()?, String::new(), child);
        server.ready = ready;
        Ok(server)
    }

    /// Has the server load its scripts again.
    pub fn reload(&self) -> Outcome<()> {
        Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status()?;
        // Nothing says when it is done; a set of this size takes a few milliseconds.
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// Head and body of one answer.
    pub fn get(&self, path: &str, header: &str) -> Outcome<(String, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    /// Drives one path with wrk.
    pub fn drive(&self, path: &str, header: &str, load: Load) -> Outcome<Figures> {
        self.drive_for(path, header, load, Answers::Success)
    }

    /// The same with requests whose answers are these.
    pub fn drive_for(
        &self,
        path: &str,
        header: &str,
        load: Load,
        answers: Answers,
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
            .arg(format!("http://{}{path}", self.address))
            .output()
            .map_err(|problem| format!("wrk: {problem} (apt-get install wrk)"))?;
        let cpu = self.cpu()? - before;
        let text = String::from_utf8(output.stdout)?;
        let is_refused = text.contains("Non-2xx");
        if is_refused != (answers == Answers::Refusal) || text.contains("Socket errors") {
            return Err(text.into());
        }
        let field = |name: &str| {
            let line = text.lines().map(str::trim).find(|line| line.starts_with(name));
            line.and_then(|line| line[name.len()..].split_whitespace().next().map(str::to_owned))
        };
        let rate = field("Requests/sec:").ok_or("no rate")?.parse()?;
        let requests =
            text.lines().find(|line| line.contains(" requests in ")).ok_or("no count")?;
        let requests: f64 = requests.split_whitespace().next().ok_or("no count")?.parse()?;
        Ok(Figures {
            rate,
            p50_ms: millis(&field("50%").ok_or("no p50")?)?,
            p99_ms: millis(&field("99%").ok_or("no p99")?)?,
            p999_ms: millis(&field("99.9%:").ok_or("no p99.9")?)?,
            cpu_us: cpu * 1e6 / requests,
            resident_mib: self.resident()?,
        })
    }

    /// The seconds of CPU time that its processes have used, and those of what it asks.
    fn cpu(&self) -> Outcome<f64> {
        let all = processes()?;
        let heads: Vec<u32> = self.asks.into_iter().chain([self.child.id()]).collect();
        let family = family(&all, &heads);
        // USER_HZ is 100 on every architecture that Linux has for servers.
        Ok(family.iter().map(|one| one.ticks).sum::<f64>() / 100.0)
    }

    /// What its own processes hold in memory.
    pub fn resident(&self) -> Outcome<f64> {
        let all = processes()?;
        let family = family(&all, &[self.child.id()]);
        Ok(family.iter().map(|one| one.resident_kib).sum::<f64>() / 1024.0)
    }
}

/// A process, as the kernel tells of it.
struct Process {
    id: u32,
    parent: u32,
    ticks: f64,
    resident_kib: f64,
}

fn processes() -> Outcome<Vec<Process>> {
    let entries = std::fs::read_dir("/proc")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that has just ended is none.
    Ok(ids.filter_map(process).collect())
}

fn process(id: u32) -> Option<Process> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    const PAGE_KIB: f64 = 4.0;
    Some(Process {
        id,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        resident_kib: number(21)? * PAGE_KIB,
    })
}

/// The processes with these ids, and those that they have started.
fn family<'p>(all: &'p [Process], heads: &[u32]) -> Vec<&'p Process> {
    let mut ids = heads.to_vec();
    let mut at = 0;
    while let Some(&head) = ids.get(at) {
        ids.extend(all.iter().filter(|one| one.parent == head).map(|one| one.id));
        at += 1;
    }
    all.iter().filter(|one| ids.contains(&one.id)).collect()
}

/// How much a server is driven.
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

/// What wrk writes: `512.00us`, `3.21ms`, `1.02s`.
fn millis(text: &str) -> Outcome<f64> {
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return Ok(number.parse::<f64>()? * factor);
        }
    }
    Err(format!("{text} is no time").into())
}
