//! What many users cost: `cargo bench --bench scale -- [USERS…]` (default 1000 100000 1000000).
//!
//! For each number it makes a store with so many users with a key each, starts the program on it, and prints the time until
//! `/health/ready` answers, resident memory then, bytes a key in memory and on disk, and the time of a first decision. The stores lie in a
//! temporary folder that is removed at the end.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    accounts::{Accounts, Passwords},
    model::{Entropy, Key, KeyText, Timestamp, User},
    store::{Batch, SledStore, Store, Table, encode},
};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if asked.is_empty() { vec![1_000, 100_000, 1_000_000] } else { asked };
    println!("binary: {:.1} MiB", mib(std::fs::metadata(env!("CARGO_BIN_EXE_keyward"))?.len()));
    let empty = measure(0)?;
    println!(
        "{:>9} users: ready in {:>7.1} ms, resident {:>6.1} MiB",
        0,
        millis(empty.ready),
        mib(empty.resident)
    );
    for users in sizes {
        let run = measure(users)?;
        println!(
            "{users:>9} users: ready in {:>7.1} ms, resident {:>6.1} MiB, {:>5.0} bytes a user with a key, {:>5.0} bytes on disk, first decision {:.2} ms (made in {:.1} s)",
            millis(run.ready),
            mib(run.resident),
            run.resident.saturating_sub(empty.resident) as f64 / users as f64,
            run.disk.saturating_sub(empty.disk) as f64 / users as f64,
            millis(run.decision),
            run.made.as_secs_f64(),
        );
    }
    Ok(())
}

struct Run {
    made: Duration,
    ready: Duration,
    decision: Duration,
    resident: u64,
    disk: u64,
}

fn measure(users: usize) -> Outcome<Run> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    let begun = Instant::now();
    let (name, key) = fill(&store, users)?;
    let made = begun.elapsed();
    // The first start after a large import sees what the import left; later ones are what people wait for. Measured: the second.
    drop(Server::start(&store)?);
    let server = Server::start(&store)?;
    let resident = server.resident()?;
    let begun = Instant::now();
    server.decide(&name, &key)?;
    let decision = begun.elapsed();
    let ready = server.ready;
    drop(server);
    Ok(Run { made, ready, decision, resident, disk: size_of(&store)? })
}

/// Makes a store with `users` users and a key each, and returns one of them.
fn fill(path: &Path, users: usize) -> Outcome<(String, String)> {
    let store = std::sync::Arc::new(SledStore::open(path, 64)?);
    let runtime = tokio::runtime::Runtime::new()?;
    let entropy = Entropy::system();
    let pepper = path.with_extension("pepper");
    let accounts = Accounts::open(store.clone(), &pepper, Passwords::new(1))?;
    let first = runtime.block_on(accounts.first_start())?.ok_or("the store is not new")?;
    let mut last = (first.username, first.key.expose().to_owned());
    let pepper = accounts.pepper().clone();
    drop(accounts);
    for chunk in (2..users as u64 + 2).collect::<Vec<_>>().chunks(5_000) {
        let mut batch = Batch::new();
        for uid in chunk {
            let name = format!("machine-{uid}");
            let text = KeyText::generate("kw", &entropy);
            put(&mut batch, *uid, &name, &text, &pepper);
            last = (name, text.text.expose().to_owned());
        }
        runtime.block_on(store.commit(batch))?;
    }
    Ok(last)
}

fn put(batch: &mut Batch, uid: u64, name: &str, text: &KeyText, pepper: &keyward::model::Pepper) {
    let now = Timestamp(1_790_000_000);
    let user = User {
        uid,
        uuid: uuid::Builder::from_random_bytes([uid as u8; 16]).into_uuid(),
        name: name.to_owned(),
        mail: None,
        init: None,
        status: true,
        roles: Vec::new(),
        password: None,
        created: now,
        changed: now,
        access: Timestamp(0),
        login: Timestamp(0),
        langcode: "en".into(),
        preferred_langcode: None,
        preferred_admin_langcode: None,
        timezone: None,
        attributes: std::collections::BTreeMap::new(),
        rate_limit: None,
        credits: None,
    };
    let key = Key {
        id: text.id,
        user: uid,
        application: None,
        label: String::new(),
        prefix: "kw".into(),
        last_four: text.last_four().to_owned(),
        digest: pepper.digest(text.text.expose()),
        scheme: keyward::model::Scheme::Own,
        slow: None,
        former_digest: None,
        universal: false,
        scopes: None,
        created: now,
        expires: None,
        revoked: None,
        rotated: None,
        networks: Vec::new(),
        rate_limit: None,
        credits: None,
    };
    let (at_user, at_key) = (uid.to_be_bytes(), text.id.number().to_be_bytes());
    batch.put(Table::Users, at_user, encode(&user));
    batch.put(Table::Names, name, encode(&uid));
    batch.put(Table::Keys, at_key, encode(&key));
    batch.put(Table::Owners, [at_user, at_key].concat(), encode(&()));
}

/// The real program, until it is dropped.
struct Server {
    child: Child,
    public: String,
    ready: Duration,
}

impl Server {
    fn start(store: &Path) -> Outcome<Self> {
        let mut name = store.as_os_str().to_owned();
        name.push(".control");
        let _ = std::fs::remove_file(&name);
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_keyward"))
            .env_clear()
            .env("KEYWARD_STORE__PATH", store)
            .env("KEYWARD_STORE__PEPPER_FILE", store.with_extension("pepper"))
            .env("KEYWARD_SERVER__LISTEN", "127.0.0.1:0")
            .env("KEYWARD_ADMIN__LISTEN", "127.0.0.1:0")
            .current_dir(store.parent().ok_or("no folder")?)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut server = Self { child, public: String::new(), ready: Duration::ZERO };
        let control = loop {
            let text = std::fs::read(&name).unwrap_or_default();
            if let Ok(control) = serde_json::from_slice::<serde_json::Value>(&text) {
                break control;
            }
            if begun.elapsed() > Duration::from_secs(120) {
                return Err("the program does not get ready".into());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        let address = |field: &str| control[field].as_str().unwrap_or_default().to_owned();
        server.public = address("public");
        ask(&address("address"), "/health/ready", "")?;
        server.ready = begun.elapsed();
        Ok(server)
    }

    fn decide(&self, name: &str, key: &str) -> Outcome<()> {
        let credential = STANDARD.encode(format!("{name}:{key}"));
        // Nobody's own page is closed to them.
        let uid = name.rsplit('-').next().filter(|_| name != "admin").unwrap_or("1");
        ask(&self.public, &format!("/user/{uid}"), &format!("API-KEY: {credential}\r\n"))
    }

    fn resident(&self) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

fn ask(address: &str, path: &str, headers: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200") {
        true => Ok(()),
        false => Err(answer.into()),
    }
}

fn size_of(folder: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        total += if about.is_dir() { size_of(&entry.path())? } else { about.len() };
    }
    Ok(total)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
