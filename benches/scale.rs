//! What many users cost: `cargo bench --bench scale -- [USERS…] [--resources N] [--idle N] [--keep FOLDER]` (default 1000 100000 1000000).
//!
//! For each number it makes a store with so many users with a key each, starts the program on it, and prints the time until `/health/ready` answers,
//! resident memory then, bytes a user in memory and on disk, and what a decision takes: the time on one connection, and the server's CPU time, medians of
//! five rounds of 4,000 requests, each with another user's key. The ratios are to a server with 1,000 users that is asked at the same time, round by
//! round. `--resources` adds a row with so many resources, `--idle` one with so many connections that say nothing; both with 1,000 users.
//!
//! The stores lie in a temporary folder (`TMPDIR`) and go when they were measured; four million users take 3 GB and a minute to make. With `--keep` they
//! lie in that folder, stay, and are found again.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints what it measured")]

mod crowd;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crowd::{
    Outcome,
    ask::{self, Connection, Figures, ROUNDS},
    server::Server,
    store::{Made, Size},
};

/// What the others are compared with.
const BASE: Size = Size { users: 1_000, resources: 1 };

fn main() -> Outcome<()> {
    let asked = Asked::read()?;
    allow_open_files(asked.idle)?;
    println!("binary: {:.1} MiB", mib(std::fs::metadata(env!("CARGO_BIN_EXE_keyward"))?.len()));
    let empty = Empty::measured()?;
    let keep = asked.keep.as_deref();
    let base = Subject::start(keep, BASE)?;
    println!(
        "| users | resources | idle connections | ready in | resident | bytes a user | bytes on disk | a decision | to 1,000 users | CPU | to 1,000 users |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for &users in &asked.users {
        match users == BASE.users {
            true => base.print(&base, 0, empty)?,
            false => Subject::start(keep, Size { users, ..BASE })?.print(&base, 0, empty)?,
        }
    }
    if let Some(resources) = asked.resources {
        Subject::start(keep, Size { resources, ..BASE })?.print(&base, 0, empty)?;
    }
    if asked.idle > 0 {
        // A store of its own: two servers cannot have one.
        Subject::start(None, BASE)?.print(&base, asked.idle, empty)?;
    }
    Ok(())
}

/// What there is without anybody.
#[derive(Clone, Copy)]
struct Empty {
    resident: u64,
    disk: u64,
}

impl Empty {
    fn measured() -> Outcome<Self> {
        let subject = Subject::start(None, Size { users: 0, resources: 0 })?;
        let empty = Self { resident: subject.resident, disk: subject.store.disk()? };
        println!(
            "an empty store: ready in {:.0} ms, resident {:.1} MiB",
            millis(subject.server.ready),
            mib(empty.resident)
        );
        Ok(empty)
    }
}

/// The command line.
struct Asked {
    users: Vec<usize>,
    resources: Option<usize>,
    idle: usize,
    keep: Option<PathBuf>,
}

/// A server on a store.
struct Subject {
    // Before the store: it ends first.
    server: Server,
    store: Made,
    size: Size,
    resident: u64,
}

impl Asked {
    fn read() -> Outcome<Self> {
        let mut asked = Self { users: Vec::new(), resources: None, idle: 0, keep: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                // Cargo's own.
                "--bench" => {}
                "--resources" => asked.resources = Some(value()?.parse()?),
                "--idle" => asked.idle = value()?.parse()?,
                "--keep" => asked.keep = Some(std::path::absolute(value()?)?),
                number => asked
                    .users
                    .push(number.parse().map_err(|_| format!("{number}: no number of users"))?),
            }
        }
        if asked.users.is_empty() {
            asked.users = vec![1_000, 100_000, 1_000_000];
        }
        Ok(asked)
    }
}

impl Subject {
    fn start(keep: Option<&Path>, size: Size) -> Outcome<Self> {
        let store = Made::find_or_make(keep, size)?;
        // The first start after a large import sees what the import left; later ones are what people wait for. Measured: the second.
        drop(Server::start(&store.path)?);
        let server = Server::start(&store.path)?;
        // What the threads that have loaded no longer need is given back within a moment.
        std::thread::sleep(Duration::from_millis(200));
        let resident = server.resident()?;
        Ok(Self { server, store, size, resident })
    }

    /// Compares it with the base, and prints what came out.
    fn print(&self, base: &Self, idle: usize, empty: Empty) -> Outcome<()> {
        let waiting = self.connect(idle)?;
        let (mut these, mut those) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // Nobody is measured cold, and nobody is always the second.
            let mut pair = [(self, &mut these), (base, &mut those)];
            if round % 2 == 1 {
                pair.reverse();
            }
            for (one, figures) in pair {
                let requests = ask::requests(&one.store, one.size.resources, round);
                figures.push(ask::round(&one.server, &requests)?);
            }
        }
        drop(waiting);
        let (time, cpu) =
            (|one: &Figures| one.time.as_secs_f64(), |one: &Figures| one.cpu.as_secs_f64());
        let Size { users, resources } = self.size;
        println!(
            "| {users} | {resources} | {idle} | {:.0} ms | {:.1} MiB | {:.0} | {:.0} | {:.1} µs | {:.2} | {:.1} µs | {:.2} |",
            millis(self.server.ready),
            mib(self.resident),
            self.resident.saturating_sub(empty.resident) as f64 / users as f64,
            self.store.disk()?.saturating_sub(empty.disk) as f64 / users as f64,
            median(these.iter().map(time)) * 1e6,
            median(these.iter().zip(&those).map(|(this, that)| time(this) / time(that))),
            median(these.iter().map(cpu)) * 1e6,
            median(these.iter().zip(&those).map(|(this, that)| cpu(this) / cpu(that))),
        );
        if let Some(took) = self.store.took {
            eprintln!("{users} users were made in {:.1} s", took.as_secs_f64());
        }
        Ok(())
    }

    /// So many connections, on each of which one request was answered.
    fn connect(&self, count: usize) -> Outcome<Vec<Connection>> {
        let requests = ask::requests(&self.store, self.size.resources, 0);
        let open = |request: &Vec<u8>| {
            let mut connection = Connection::open(&self.server)?;
            connection.ask(request)?;
            Ok(connection)
        };
        requests.iter().cycle().take(count).map(open).collect()
    }
}

/// Lets this process, and the server that it starts, have so many connections and some files.
fn allow_open_files(connections: usize) -> Outcome<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted = connections as u64 + 500;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).map_err(|problem| {
        format!("{connections} connections need {wanted} open files, and at most {:?} are allowed (ulimit -Hn): {problem}", limit.maximum)
    })?;
    Ok(())
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = figures.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
