//! What a decision costs over bare HTTP: `cargo bench --bench beside [-- --rounds 5 --seconds 5 --connections 64]`.
//!
//! Starts the program and the bare server of `examples/bare.rs`, which answers the same bytes without a check, and drives one after the other
//! with wrk (Debian: `apt-get install wrk`), round after round. Prints the medians: requests a second, latency, CPU time of the server's process for
//! a request, resident memory; and the ratio of the two.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (rounds, seconds) = (number("--rounds", 5), number("--seconds", 5));
    let connections = number("--connections", 64);
    let folder = tempfile::tempdir()?;
    let keyward = Server::keyward(folder.path())?;
    let header = keyward.header.clone();
    let (head, body) = keyward.get(&header)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{head}\n{body}").into());
    }
    let bare = Server::bare(folder.path(), &body)?;
    let (bare_head, bare_body) = bare.get(&header)?;
    if bare_body != body || bare_head.len() != head.len() {
        return Err(format!("the answers differ:\n{head}\n{bare_head}").into());
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (server, results) in [(&bare, &mut theirs), (&keyward, &mut ours)] {
            let result = server.drive(&header, seconds, connections)?;
            println!("round {round} {:>8}: {result}", server.name);
            results.push(result);
        }
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("median  {:>8}: {theirs}", bare.name);
    println!("median  {:>8}: {ours}", keyward.name);
    println!(
        "ratio: {:.3} of the bare server's requests a second, {:.3} of its CPU time a request",
        ours.rate / theirs.rate,
        ours.cpu_us / theirs.cpu_us
    );
    Ok(())
}

#[derive(Clone, Default)]
struct Figures {
    rate: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    resident_mib: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>7.0} requests/s, p50 {:.2} ms, p99 {:.2} ms, {:.2} CPU µs a request, {:.1} MiB",
            self.rate, self.p50_ms, self.p99_ms, self.cpu_us, self.resident_mib
        )
    }
}

fn median(figures: Vec<Figures>) -> Figures {
    let middle = |of: fn(&Figures) -> f64| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Figures {
        rate: middle(|one| one.rate),
        p50_ms: middle(|one| one.p50_ms),
        p99_ms: middle(|one| one.p99_ms),
        cpu_us: middle(|one| one.cpu_us),
        resident_mib: middle(|one| one.resident_mib),
    }
}

/// A server, until it is dropped.
struct Server {
    name: &'static str,
    child: Child,
    address: String,
    header: String,
}

impl Server {
    fn keyward(folder: &Path) -> Outcome<Self> {
        let program = env!("CARGO_BIN_EXE_keyward");
        let command = |verb: &[&str]| {
            let mut command = Command::new(program);
            command.args(verb).current_dir(folder).env_clear();
            command.env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0");
            command.env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0");
            command.env("KEYWARD_LOG__LEVEL", "warn");
            command
        };
        let first = command(&["init", "--output", "json"]).output()?;
        let first: serde_json::Value = serde_json::from_slice(&first.stdout)?;
        let credential = format!("admin:{}", first["key"].as_str().ok_or("no key")?);
        let child = command(&["serve"]).stdout(Stdio::null()).spawn()?;
        let control = folder.join("data/keyward.control");
        let until = Instant::now() + Duration::from_secs(30);
        let address = loop {
            let text = std::fs::read(&control).unwrap_or_default();
            if let Ok(control) = serde_json::from_slice::<serde_json::Value>(&text) {
                break control["public"].as_str().unwrap_or_default().to_owned();
            }
            if Instant::now() > until {
                return Err("the program does not get ready".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let header = format!("API-KEY: {}", STANDARD.encode(credential));
        Ok(Self { name: "keyward", child, address, header })
    }

    fn bare(folder: &Path, body: &str) -> Outcome<Self> {
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
        let mut child = Command::new(executable)
            .args(["--header", "cache-control: no-cache, private", "--body"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut address)?;
        Ok(Self { name: "bare", child, address: address.trim().into(), header: String::new() })
    }

    /// Head and body of one answer.
    fn get(&self, header: &str) -> Outcome<(String, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = &self.address;
        write!(
            stream,
            "GET /user/1 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
        Ok((head.to_owned(), body.to_owned()))
    }

    fn drive(&self, header: &str, seconds: u64, connections: u64) -> Outcome<Figures> {
        let before = self.cpu()?;
        let output = Command::new("wrk")
            .args([
                "-t2",
                &format!("-c{connections}"),
                &format!("-d{seconds}s"),
                "--latency",
                "-H",
                header,
            ])
            .arg(format!("http://{}/user/1", self.address))
            .output()
            .map_err(|problem| format!("wrk: {problem} (apt-get install wrk)"))?;
        let cpu = self.cpu()? - before;
        let text = String::from_utf8(output.stdout)?;
        if text.contains("Non-2xx") || text.contains("Socket errors") {
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
            cpu_us: cpu * 1e6 / requests,
            resident_mib: self.resident()?,
        })
    }

    /// The seconds of CPU time that the process has used.
    fn cpu(&self) -> Outcome<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = stat.rsplit(')').next().ok_or("no stat")?;
        let ticks: Vec<f64> =
            after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
        // USER_HZ is 100 on every architecture that Linux has for servers.
        Ok(ticks.iter().sum::<f64>() / 100.0)
    }

    fn resident(&self) -> Outcome<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }
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
