//! What scripts cost: `cargo bench --bench scripts [-- --rounds 7 --seconds 4 --connections 64]`.
//!
//! First, the same request (`GET /user/1`) to servers that differ in their scripts alone, driven with wrk (Debian: `apt-get install wrk`) one after
//! another, round after round: none, an empty hook, a policy as people write them, and an authentication type with signed requests. Second, one
//! resource whose script spins for ever beside another that is driven; `--strikes 1000` keeps it from being switched off for long. Prints medians, and
//! medians of the ratios within a round.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod rig;

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
use rig::{Figures, Home, Load, Outcome, Server, median, option, ratio};

const PATH: &str = "/user/1";
const EMPTY: &str = "fn on_request(req) {}";
/// Networks, a pattern, a limit for each user, working hours, who may write, and a field of the answer: four hooks.
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
/// Signed requests: `X-Signature: user seconds hmac`, over method, path and time.
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
    costs(rounds, load)?;
    beside_a_spinner(rounds, load)
}

/// The same request behind different scripts.
fn costs(rounds: u64, load: Load) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| -> Outcome<std::path::PathBuf> {
        let path = folder.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let (none, empty, policy, hmac) = (at("none")?, at("empty")?, at("policy")?, at("hmac")?);
    let servers = [
        Home::new(&none)?.serve("no scripts")?,
        hooked(&empty, EMPTY)?.serve("empty on_request")?,
        hooked(&policy, POLICY)?.serve("policy")?,
        signed(&hmac)?,
    ];
    let mut results = vec![Vec::new(); servers.len()];
    for server in &servers {
        let (head, body) = server.get(PATH, &server.header)?;
        if !head.starts_with("HTTP/1.1 200") {
            return Err(format!("{}: {head}\n{body}", server.name).into());
        }
        // Nobody is measured cold.
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
        "\n| scripts | requests/s | of no scripts | p50 | p99 | CPU a request | of no scripts |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (at, (server, found)) in servers.iter().zip(&medians).enumerate() {
        println!(
            "| {} | {:.0} | {:.3} | {:.2} ms | {:.2} ms | {:.1} µs | {:.3} |",
            server.name,
            found.rate,
            ratio(&results[at], &results[0], |one| one.rate),
            found.p50_ms,
            found.p99_ms,
            found.cpu_us,
            ratio(&results[at], &results[0], |one| one.cpu_us)
        );
    }
    Ok(())
}

fn hooked<'a>(folder: &'a Path, script: &str) -> Outcome<Home<'a>> {
    let home = Home::new(folder)?;
    home.write("scripts/hooks.rhai", script)?;
    Ok(home)
}

fn signed(folder: &Path) -> Outcome<Server> {
    let mut home = Home::new(folder)?;
    home.write("scripts/auth/hmac.rhai", HMAC)?;
    home.write("secrets/bench", KEY)?;
    home.run(&["app", "add", "signed", "--type", "hmac", "--header", "X-Signature", "--default"])?;
    let sent = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(KEY.as_bytes())?;
    mac.update(format!("GET\n{PATH}\n{sent}").as_bytes());
    let mac = hex::encode(mac.finalize().into_bytes());
    home.header = format!("X-Signature: admin {sent} {mac}");
    home.serve("hmac type")
}

/// How a resource fares while nobody, a script that does nothing, or one that spins is asked beside it.
fn beside_a_spinner(rounds: u64, load: Load) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let home = Home::new(folder.path())?;
    for id in ["calm", "idle", "spin"] {
        let path = format!("/{id}");
        home.run(&[
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
    home.write("scripts/resources/idle.rhai", EMPTY)?;
    home.write("scripts/resources/spin.rhai", "fn on_request(req) { loop {} }")?;
    home.write("config.toml", &format!("[scripts]\nstrikes = {}\n", option("--strikes", 5)))?;
    let server = home.serve("spin")?;
    let asked = option("--asked", 400);
    let cases = [
        ("nobody", None),
        ("a script that does nothing", Some("/idle")),
        ("a script that spins", Some("/spin")),
    ];
    let mut results = vec![Vec::new(); cases.len()];
    for round in 0..rounds {
        for ((name, path), results) in cases.iter().zip(&mut results) {
            // A script that was switched off is on again.
            server.reload()?;
            let others = path.map(|path| Others::start(&server, path, asked));
            let result = server.drive("/calm", &server.header, load)?;
            let answered = others.map_or(0, Others::stop);
            println!("round {round} beside {name:>26}: {result} ({answered} answers there)");
            if path.is_some() && answered == 0 {
                return Err(format!("nobody was answered by {name}").into());
            }
            results.push(result);
        }
    }
    let medians: Vec<Figures> = results.iter().map(|results| median(results)).collect();
    println!(
        "\n| driven beside | requests/s | p50 | p99 | p99, of nobody's | of an idle script's |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (at, ((name, _), found)) in cases.iter().zip(&medians).enumerate() {
        println!(
            "| {name} | {:.0} | {:.2} ms | {:.2} ms | {:.2} | {:.2} |",
            found.rate,
            found.p50_ms,
            found.p99_ms,
            ratio(&results[at], &results[0], |one| one.p99_ms),
            ratio(&results[at], &results[1], |one| one.p99_ms)
        );
    }
    Ok(())
}

/// Clients that ask for one path, so many times a second, until they are stopped.
struct Others {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Others {
    const CLIENTS: u64 = 8;

    fn start(server: &Server, path: &str, a_second: u64) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", server.header);
        let pause = Duration::from_secs_f64(Self::CLIENTS as f64 / a_second.max(1) as f64);
        let threads = (0..Self::CLIENTS).map(|_| {
            let (stop, answered) = (stop.clone(), answered.clone());
            let (address, request) = (server.address.clone(), request.clone());
            thread::spawn(move || {
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    if exchange(&mut stream, &request).is_err() {
                        return;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(pause.saturating_sub(begun.elapsed()));
                }
            })
        });
        Self { threads: threads.collect(), stop, answered }
    }

    /// Ends them, and returns how many answers they had.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// Sends a request and reads its answer, whose length is in its head.
fn exchange(stream: &mut TcpStream, request: &str) -> Outcome<()> {
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Err("the connection ended".into());
        }
        answer.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        if body.len() >= length.ok_or("no length")?.trim().parse()? {
            return Ok(());
        }
    }
}
