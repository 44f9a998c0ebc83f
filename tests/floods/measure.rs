//! Measures a good client, a revocation, and the memory of the process during the floods.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::harness::{Key, Server, TIMEOUT};

/// The limits of a round.
pub struct Limits {
    /// How many times slower a good client's slowest responses may be during the floods. `None`
    /// means a fixed number.
    slower: Option<f64>,
    pub revoke_seconds: f64,
    pub log_mib: f64,
}

impl Limits {
    pub fn of_round(is_long: bool) -> Self {
        let exact = Self { slower: Some(2.0), revoke_seconds: 1.0, log_mib: 1.0 };
        let coarse = Self { slower: None, revoke_seconds: 10.0, ..exact };
        if is_long { exact } else { coarse }
    }

    pub fn p99_ms(&self, quiet: &Percentiles) -> f64 {
        /// A timer's tick: a faster response cannot be told from a slow one.
        const TICK_MS: f64 = 1.0;
        const COARSE_MS: f64 = 5000.0;
        self.slower.map_or(COARSE_MS, |times| times * quiet.p99_ms.max(TICK_MS))
    }
}

/// A measured figure with its limit.
pub struct Line {
    name: &'static str,
    measured: f64,
    limit: f64,
}

impl Line {
    pub fn new(name: &'static str, measured: f64, limit: f64) -> Self {
        Self { name, measured, limit }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn holds(&self) -> bool {
        self.measured <= self.limit
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.holds() { "" } else { " (missed)" };
        write!(f, "| {} | {:.2}{mark} | {:.2} |", self.name, self.measured, self.limit)
    }
}

/// The response times of a round.
#[derive(Debug, Default)]
pub struct Percentiles {
    pub requests: usize,
    pub failed: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// A client with a right key and a connection of its own.
pub struct GoodClient {
    server: SocketAddr,
    request: String,
}

impl GoodClient {
    pub fn new(server: &Server) -> Self {
        let credential = server.generate_key("ann", &[]).credential;
        let request = format!("GET /good HTTP/1.1\r\nHost: a\r\nAPI-KEY: {credential}\r\n\r\n");
        Self { server: server.public, request }
    }

    /// Sends requests one after another, with short pauses.
    pub async fn measure(&self, length: Duration) -> Percentiles {
        let began = Instant::now();
        let (mut times, mut failed) = (Vec::new(), 0);
        let mut connection = None;
        while began.elapsed() < length {
            let sent = Instant::now();
            match timeout(TIMEOUT, self.send(&mut connection)).await {
                Ok(Ok(())) => times.push(sent.elapsed().as_secs_f64() * 1000.0),
                _ => {
                    connection = None;
                    failed += 1;
                }
            }
            sleep(Duration::from_millis(2)).await;
        }
        times.sort_by(f64::total_cmp);
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        let (p50_ms, p99_ms) = (at(50), at(99));
        Percentiles { requests: times.len(), failed, p50_ms, p99_ms }
    }

    async fn send(&self, connection: &mut Option<TcpStream>) -> std::io::Result<()> {
        let mut stream = match connection.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.server).await?,
        };
        stream.write_all(self.request.as_bytes()).await?;
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\nxx") {
            if stream.read_buf(&mut response).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !response.starts_with(b"HTTP/1.1 200") {
            return Err(std::io::Error::other(String::from_utf8_lossy(&response).into_owned()));
        }
        *connection = Some(stream);
        Ok(())
    }
}

/// Revokes keys with the command line during a round. Returns the longest time in seconds.
pub async fn revoke_during(server: &Server, keys: &[Key], length: Duration) -> f64 {
    let mut longest: f64 = 0.0;
    let pause = length / u32::try_from(keys.len() + 1).unwrap();
    for key in keys {
        sleep(pause).await;
        let mut command = server.site.command(&["key", "revoke", &key.id]);
        let began = Instant::now();
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = run.await.unwrap();
        longest = longest.max(began.elapsed().as_secs_f64());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the key was not revoked: {errors}");
    }
    longest
}

/// The resident memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> f64 {
    status_mib(pid, "VmRSS:")
}

/// The most resident memory that a process had, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
