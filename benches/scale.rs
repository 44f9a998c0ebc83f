//! The cost of many users, resources and idle connections:
//! `cargo bench --bench scale -- [USERS…] [--engine sled|redb|both] [--resources N] [--idle N]
//! [--keep FOLDER]` (`USERS` defaults to 1000 100000 1000000, the engine to sled).
//!
//! For each number of users the bench creates a store with one key per user, starts Keyward with
//! this store, and prints one row:
//! - the time until `/health/ready` responds, and resident memory at that moment;
//! - bytes per user, in memory and on disk;
//! - the time of a decision on one connection, and the server's CPU time per decision. Both are
//!   medians of five rounds of 4,000 requests, and each request has another user's key.
//!
//! The ratios are relative to a server with 1,000 users that is measured in the same rounds.
//! `--resources N` adds a row for a server with N resources, and `--idle N` a row for a server with
//! N idle connections. Both servers have 1,000 users.
//!
//! The bench creates the stores in a temporary folder (`TMPDIR`) and deletes each store after its
//! measurement. A store with four million users takes 3 GB of disk and one minute to create. With
//! `--keep FOLDER` the bench creates the stores in FOLDER and keeps them, and the next run uses
//! them again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the bench prints its results")]

mod scale_support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use keyward::store::EngineKind;
use scale_support::{
    Outcome,
    measure::{self, Connection, Figures, ROUNDS},
    server::Server,
    store::{BenchStore, Size},
};

/// The size that the other sizes are compared with.
const BASE: Size = Size { engine: EngineKind::Sled, users: 1_000, resources: 1 };

fn main() -> Outcome<()> {
    let args = Args::parse()?;
    raise_open_file_limit(args.idle)?;
    println!("binary: {:.1} MiB", mib(std::fs::metadata(env!("CARGO_BIN_EXE_keyward"))?.len()));
    for &engine in &args.engines {
        measure_engine(&args, engine)?;
    }
    Ok(())
}

/// Prints the table of one engine.
fn measure_engine(args: &Args, engine: EngineKind) -> Outcome<()> {
    let empty = EmptyStore::measure(engine)?;
    let keep = args.keep.as_deref();
    let base_size = Size { engine, ..BASE };
    let base = Instance::start(keep, base_size)?;
    println!(
        "| users | resources | idle connections | ready in | resident | bytes per user | on disk | time per decision | relative to 1,000 users | CPU per decision | relative to 1,000 users |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for &users in &args.users {
        if users == base_size.users {
            base.print_row(&base, 0, empty)?;
        } else {
            Instance::start(keep, Size { users, ..base_size })?.print_row(&base, 0, empty)?;
        }
    }
    if let Some(resources) = args.resources {
        Instance::start(keep, Size { resources, ..base_size })?.print_row(&base, 0, empty)?;
    }
    if args.idle > 0 {
        // This server gets a temporary store, because two servers cannot open the store of `base`.
        Instance::start(None, base_size)?.print_row(&base, args.idle, empty)?;
    }
    Ok(())
}

/// Memory and disk space without users, in bytes. The bytes per user are computed from the
/// difference to these values.
#[derive(Clone, Copy)]
struct EmptyStore {
    resident: u64,
    disk: u64,
}

impl EmptyStore {
    fn measure(engine: EngineKind) -> Outcome<Self> {
        let instance = Instance::start(None, Size { engine, users: 0, resources: 0 })?;
        let empty = Self { resident: instance.resident, disk: instance.store.disk()? };
        println!(
            "\n{}: an empty store: ready in {:.0} ms, resident {:.1} MiB",
            engine.name(),
            millis(instance.server.ready),
            mib(empty.resident)
        );
        Ok(empty)
    }
}

/// The command line.
struct Args {
    users: Vec<usize>,
    engines: Vec<EngineKind>,
    resources: Option<usize>,
    idle: usize,
    keep: Option<PathBuf>,
}

/// A running server and its store.
struct Instance {
    // The server is declared before the store, so that the server ends before its store is deleted.
    server: Server,
    store: BenchStore,
    size: Size,
    resident: u64,
}

impl Args {
    fn parse() -> Outcome<Self> {
        let mut parsed = Self {
            users: Vec::new(),
            engines: vec![EngineKind::Sled],
            resources: None,
            idle: 0,
            keep: None,
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // cargo adds this option.
                "--bench" => {}
                "--engine" => {
                    let name = value()?;
                    let chosen = |engine: &EngineKind| name == "both" || engine.name() == name;
                    parsed.engines = EngineKind::ALL.into_iter().filter(chosen).collect();
                    if parsed.engines.is_empty() {
                        return Err(format!("{name} is not an engine: sled, redb or both").into());
                    }
                }
                "--resources" => parsed.resources = Some(value()?.parse()?),
                "--idle" => parsed.idle = value()?.parse()?,
                "--keep" => parsed.keep = Some(std::path::absolute(value()?)?),
                number => parsed.users.push(
                    number.parse().map_err(|_| format!("{number} is not a number of users"))?,
                ),
            }
        }
        if parsed.users.is_empty() {
            parsed.users = vec![1_000, 100_000, 1_000_000];
        }
        Ok(parsed)
    }
}

impl Instance {
    fn start(keep: Option<&Path>, size: Size) -> Outcome<Self> {
        let store = BenchStore::find_or_create(keep, size)?;
        // The bench measures the second start. The first start after a large import is not typical,
        // because the store contains leftovers of the import.
        drop(Server::start(&store.path, size.engine)?);
        let server = Server::start(&store.path, size.engine)?;
        // The threads that load the records return their memory a moment after the start.
        std::thread::sleep(Duration::from_millis(200));
        let resident = server.resident()?;
        Ok(Self { server, store, size, resident })
    }

    /// Measures this instance and `base` in turn, and prints one row of the table.
    fn print_row(&self, base: &Self, idle: usize, empty: EmptyStore) -> Outcome<()> {
        let idle_connections = self.connect(idle)?;
        let (mut instance_rounds, mut base_rounds) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Alternate the order, so that each of the two instances is measured first in some
            // rounds.
            let mut pair = [(self, &mut instance_rounds), (base, &mut base_rounds)];
            if round % 2 == 1 {
                pair.reverse();
            }
            for (instance, figures) in pair {
                let requests = measure::requests(&instance.store, instance.size.resources, round);
                figures.push(measure::run_round(&instance.server, &requests)?);
            }
        }
        drop(idle_connections);
        let time = |round: &Figures| round.time.as_secs_f64();
        let cpu = |round: &Figures| round.cpu.as_secs_f64();
        let Size { users, resources, .. } = self.size;
        println!(
            "| {users} | {resources} | {idle} | {:.0} ms | {:.1} MiB | {:.0} | {:.0} | {:.1} µs | {:.2} | {:.1} µs | {:.2} |",
            millis(self.server.ready),
            mib(self.resident),
            self.resident.saturating_sub(empty.resident) as f64 / users as f64,
            self.store.disk()?.saturating_sub(empty.disk) as f64 / users as f64,
            median(instance_rounds.iter().map(time)) * 1e6,
            median(
                instance_rounds
                    .iter()
                    .zip(&base_rounds)
                    .map(|(this, base)| time(this) / time(base))
            ),
            median(instance_rounds.iter().map(cpu)) * 1e6,
            median(
                instance_rounds.iter().zip(&base_rounds).map(|(this, base)| cpu(this) / cpu(base))
            ),
        );
        if let Some(took) = self.store.creation_time {
            eprintln!("created {users} users in {:.1} s", took.as_secs_f64());
        }
        Ok(())
    }

    /// Opens `count` connections, and sends one request on each.
    fn connect(&self, count: usize) -> Outcome<Vec<Connection>> {
        let requests = measure::requests(&self.store, self.size.resources, 0);
        let open = |request: &Vec<u8>| {
            let mut connection = Connection::open(&self.server)?;
            connection.send(request)?;
            Ok(connection)
        };
        requests.iter().cycle().take(count).map(open).collect()
    }
}

/// Raises the limit of open files for this process and for the servers that this process starts.
///
/// The limit becomes at least `connections` plus 500.
fn raise_open_file_limit(connections: usize) -> Outcome<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).map_err(|error| {
        format!("{connections} connections need {wanted} open files, but at most {:?} are allowed (ulimit -Hn): {error}", limit.maximum)
    })?;
    Ok(())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
