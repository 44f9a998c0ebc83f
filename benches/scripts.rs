//! The cost of scripts: `cargo bench --bench scripts [-- --rounds 7 --seconds 4 --connections 64]`.
//!
//! In each round, wrk (Debian: `apt-get install wrk`) measures one row of a table after another.
//! The bench prints two tables of medians. A ratio compares two rows within a round, and the table
//! shows the median of these ratios.
//!
//! 1. The request `GET /user/1` is sent to servers that differ only in their scripts: no script, an
//!    empty hook, a realistic policy, and an authentication type for signed requests.
//! 2. Requests are sent to one resource, while 400 requests a second (`--background-rate`) go to
//!    another resource. The other resource's script does nothing or never ends. With
//!    `--strikes 1000` Keyward disables that script later.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hmac::{KeyInit as _, Mac as _};
use support::{Figures, Load, Outcome, Server, Setup, median, option, ratio};

const PATH: &str = "/user/1";
const EMPTY_HOOK: &str = "fn on_request(req) {}";
/// A realistic policy with four hooks: networks, a path pattern, a rate limit per user, working
/// hours, write permissions, and a response header field.
const POLICY: &str = r#"
const OFFICES = ["127.0.0.0/8", "10.0.0.0/8", "fd00::/8"];
fn on_request(req) {
    if !in_network(req.client, OFFICES) { deny(403, "WRONG_NETWORK", "Come from an office."); }
    if !matches(req.path, "^/(user|orders)/[0-9]+$") { deny(404, "NO_SUCH_PATH", "There is nothing here."); }
}
fn on_authenticated(req, identity) {
    if !rate_limit("user:" + identity.name, 1000000, 1) { deny(429, "TOO_MANY", "Wait a second."); }
}
fn on_permit(req, identity, resource) {
    let here = local_time("Europe/Berlin");
    if req.method != "GET" && (here.weekday > 5 || here.hour < 8 || here.hour >= 18) { return false; }
    let tenant = identity.attributes.tenant;
    if tenant != () && !req.path.starts_with("/tenants/" + tenant + "/") { return false; }
    identity.has_role("administrator") || identity.has_permission("access user profiles")
}
fn on_response(req, identity, response) {
    response.set_header("X-Served-For", identity.name);
}
"#;
/// An authentication type for signed requests with the header field
/// `X-Signature: user seconds hmac`. The HMAC covers method, path and time.
const HMAC: &str = r#"
fn decode(req, presented) {
    let parts = presented.split(" ");
    if parts.len() != 3 { deny(401, "MALFORMED_SIGNATURE", "Send the user, the time and the signature."); }
    #{ user: parts[0], sent: parts[1], mac: parts[2] }
}
fn verify(req, user, credential) {
    if (now() - parse_int(credential.sent)).abs() > duration("1h") { return false; }
    let signed = req.method + "\n" + req.path + "\n" + credential.sent;
    constant_time_eq(hex(hmac_sha256(secret("bench"), signed)), credential.mac)
}
"#;
const KEY: &str = "a secret of the bench, of 32 bytes and more";

fn main() -> Outcome<()> {
    let rounds = option("--rounds", 7);
    let load = Load { seconds: option("--seconds", 4), connections: option("--connections", 64) };
    compare_scripts(rounds, load)?;
    compare_background_load(rounds, load)
}

/// Sends the same request to servers with different scripts.
fn compare_scripts(rounds: u64, load: Load) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let subfolder = |name: &str| -> Outcome<std::path::PathBuf> {
        let path = folder.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let (none, empty) = (subfolder("none")?, subfolder("empty")?);
    let (policy, hmac) = (subfolder("policy")?, subfolder("hmac")?);
    let servers = [
        Setup::new(&none)?.serve("no scripts")?,
        with_hooks(&empty, EMPTY_HOOK)?.serve("empty on_request")?,
        with_hooks(&policy, POLICY)?.serve("policy")?,
        serve_signed_requests(&hmac)?,
    ];
    let mut results = vec![Vec::new(); servers.len()];
    for server in &servers {
        let (head, body) = server.get(PATH, &server.header)?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{}: {head}\n{body}", server.name).into());
        }
        // Warm-up, because the first requests to a server are slower than later requests.
        server.drive(PATH, &server.header, Load { seconds: 1, ..load })?;
    }
    for round in 0..rounds {
        for (server, results) in servers.iter().zip(&mut results) {
            let result = server.drive(PATH, &server.header, load)?;
            println!("round {round} {:>16}: {result}", server.name);
            results.push(result);
        }
    }
    let medians: Vec<Figures> = results.iter().map(|results| median(results)).collect();
    println!(
        "\n| scripts | requests/s | relative to no scripts | p50 | p99 | CPU per request | relative to no scripts |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (index, (server, figures)) in servers.iter().zip(&medians).enumerate() {
        println!(
            "| {} | {:.0} | {:.3} | {:.2} ms | {:.2} ms | {:.1} µs | {:.3} |",
            server.name,
            figures.rate,
            ratio(&results[index], &results[0], |round| round.rate),
            figures.p50_ms,
            figures.p99_ms,
            figures.cpu_us,
            ratio(&results[index], &results[0], |round| round.cpu_us)
        );
    }
    Ok(())
}

fn with_hooks<'a>(folder: &'a Path, script: &str) -> Outcome<Setup<'a>> {
    let setup = Setup::new(folder)?;
    setup.write("scripts/hooks.rhai", script)?;
    Ok(setup)
}

fn serve_signed_requests(folder: &Path) -> Outcome<Server> {
    let mut setup = Setup::new(folder)?;
    setup.write("scripts/auth/hmac.rhai", HMAC)?;
    setup.write("secrets/bench", KEY)?;
    setup.run(&[
        "app",
        "add",
        "signed",
        "--type",
        "hmac",
        "--header",
        "X-Signature",
        "--default",
    ])?;
    let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes())?;
    mac.update(format!("GET\n{PATH}\n{sent}").as_bytes());
    let mac = hex::encode(mac.finalize().into_bytes());
    setup.header = format!("X-Signature: admin {sent} {mac}");
    setup.serve("hmac type")
}

/// Measures one resource in three cases: without other requests, while other clients send requests
/// to a resource whose script does nothing, and to a resource whose script never ends.
fn compare_background_load(rounds: u64, load: Load) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path())?;
    for id in ["calm", "idle", "spin"] {
        let path = format!("/{id}");
        setup.run(&[
            "resource",
            "add",
            id,
            "--handler",
            "respond",
            "--path",
            &path,
            "--method",
            "GET",
            "--format",
            "any",
            "--authentication",
            "*",
        ])?;
    }
    setup.write("scripts/resources/idle.rhai", EMPTY_HOOK)?;
    setup.write("scripts/resources/spin.rhai", "fn on_request(req) { loop {} }")?;
    setup.write("config.toml", &format!("[scripts]\nstrikes = {}\n", option("--strikes", 5)))?;
    let server = setup.serve("spin")?;
    let background_rate = option("--background-rate", 400);
    let cases = [
        ("no other requests", None),
        ("a script that does nothing", Some("/idle")),
        ("a script that spins", Some("/spin")),
    ];
    let mut results = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for ((name, path), results) in cases.iter().zip(&mut results) {
            // If Keyward disabled a script in the previous round, the reload enables it again.
            server.reload()?;
            let background =
                path.map(|path| BackgroundClients::start(&server, path, background_rate));
            let result = server.drive("/calm", &server.header, load)?;
            let responses = background.map_or(0, BackgroundClients::stop);
            println!("round {round}, {name:>26}: {result} ({responses} background responses)");
            if path.is_some() && responses == 0 {
                return Err(format!("no response from {name}").into());
            }
            results.push(result);
        }
    }
    let medians: Vec<Figures> = results.iter().map(|results| median(results)).collect();
    println!(
        "\n| other requests to | requests/s | p50 | p99 | p99, relative to no other requests | relative to an idle script |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (index, ((name, _), figures)) in cases.iter().zip(&medians).enumerate() {
        println!(
            "| {name} | {:.0} | {:.2} ms | {:.2} ms | {:.2} | {:.2} |",
            figures.rate,
            figures.p50_ms,
            figures.p99_ms,
            ratio(&results[index], &results[0], |round| round.p99_ms),
            ratio(&results[index], &results[1], |round| round.p99_ms)
        );
    }
    Ok(())
}

/// Clients that send requests to one path at a fixed rate until they are stopped.
struct BackgroundClients {
    stop: Arc<AtomicBool>,
    responses: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl BackgroundClients {
    const CLIENTS: u64 = 8;

    fn start(server: &Server, path: &str, requests_per_second: u64) -> Self {
        let (stop, responses) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", server.header);
        let pause =
            Duration::from_secs_f64(Self::CLIENTS as f64 / requests_per_second.max(1) as f64);
        let threads = (0..Self::CLIENTS).map(|_| {
            let (stop, responses) = (stop.clone(), responses.clone());
            let (address, request) = (server.address.clone(), request.clone());
            thread::spawn(move || {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    if exchange(&mut stream, &request).is_err() {
                        return;
                    }
                    responses.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(pause.saturating_sub(begun.elapsed()));
                }
            })
        });
        Self { threads: threads.collect(), stop, responses }
    }

    /// Stops the clients. Returns the number of responses that they received.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.responses.load(Ordering::Relaxed)
    }
}

/// Sends a request and reads the response up to its `Content-Length`.
fn exchange(stream: &mut TcpStream, request: &str) -> Outcome<()> {
    stream.write_all(request.as_bytes())?;
    let (mut response, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        response.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&response).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        if body.len() >= length.ok_or("no Content-Length")?.trim().parse()? {
            return Ok(());
        }
    }
}
