//! How writes slow down decisions:
//! `cargo bench --bench commits [-- --rounds 5 --seconds 3 --rate 1000]`.
//!
//! wrk (Debian: `apt-get install wrk`) measures decisions twice in each round: without writes, and
//! while 32 clients create keys at a fixed rate through the admin API. The server responds to a
//! client only after the key is on disk. Finally the clients create keys as fast as they can,
//! without wrk.
//!
//! `cargo bench --bench commits -- --stores [--seconds 3]` compares the storage engines instead,
//! without a server and without wrk: commits a second by 1, 32 and 200 writers, and the size of the
//! store afterwards.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

#[path = "support/stores.rs"]
mod stores;
mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use support::{Figures, Load, Outcome, Server, Setup, median, option, ratio};

const PATH: &str = "/user/1";
const USERS: u64 = 2000;
const WRITERS: u64 = 32;

fn main() -> Outcome<()> {
    if std::env::args().any(|arg| arg == "--stores") {
        return stores::compare(Duration::from_secs(option("--seconds", 3)));
    }
    let (rounds, rate) = (option("--rounds", 5), option("--rate", 1000));
    let load = Load { seconds: option("--seconds", 3), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path())?;
    let rows: String =
        (0..USERS).map(|number| format!("writer-{number},a-key-of-writer-{number}\n")).collect();
    setup.write("users.csv", &rows)?;
    setup.run(&["key", "import", "users.csv", "--create-users"])?;
    let server = setup.serve("keyward")?;
    let next_user = AtomicU64::new(0);
    // The first second of load is a warm-up, and its figures are not used.
    server.drive(PATH, &server.header, Load { seconds: 1, ..load })?;
    let (mut without_writes, mut with_writes, mut key_rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        without_writes.push(server.drive(PATH, &server.header, load)?);
        let (figures, key_rate) = while_writing(&server, &next_user, Some(rate), || {
            server.drive(PATH, &server.header, load)
        })?;
        println!(
            "round {round}: {} | {figures} | {key_rate:.0} keys/s",
            without_writes[without_writes.len() - 1]
        );
        with_writes.push(figures);
        key_rates.push(key_rate);
    }
    let ((), max_key_rate) = while_writing(&server, &next_user, None, || {
        thread::sleep(Duration::from_secs(load.seconds));
        Ok(())
    })?;
    key_rates.sort_by(f64::total_cmp);
    let print_row = |name: &str, rounds: &[Figures]| {
        let Figures { rate, p50_ms, p99_ms, p999_ms, cpu_us, .. } = median(rounds);
        println!(
            "| {name} | {rate:.0} | {p50_ms:.2} ms | {p99_ms:.2} ms | {p999_ms:.2} ms | {cpu_us:.1} µs |"
        );
    };
    println!(
        "\n| load during the measurement | requests/s | p50 | p99 | p99.9 | CPU per request |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    print_row("no writes", &without_writes);
    let key_rate = key_rates[key_rates.len() / 2];
    print_row(&format!("{key_rate:.0} keys created per second"), &with_writes);
    let slowdown = ratio(&with_writes, &without_writes, |round| round.p999_ms);
    println!("p99.9 with writes, relative to without: {slowdown:.2}");
    println!("keys created by {WRITERS} clients without other load: {max_key_rate:.0} a second");
    Ok(())
}

/// Runs `work` while clients create keys. Returns the result of `work` and the number of keys that
/// were created per second.
///
/// `rate` is the number of keys to create per second. `None` means as many as possible.
fn while_writing<T>(
    server: &Server,
    next_user: &AtomicU64,
    rate: Option<u64>,
    work: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, f64)> {
    let (stop, created) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    create_keys(server, next_user, rate, &stop, &created)
                        .map_err(|error| error.to_string())
                })
            })
            .collect();
        let begun = Instant::now();
        let result = work();
        let key_rate = created.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| "a writer panicked")??;
        }
        Ok((result?, key_rate))
    })
}

/// One client that creates keys until `stop` is set.
fn create_keys(
    server: &Server,
    next_user: &AtomicU64,
    rate: Option<u64>,
    stop: &AtomicBool,
    created: &AtomicU64,
) -> Outcome<()> {
    let mut stream = TcpStream::connect(&server.admin)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16_384];
    let begun = Instant::now();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(count as f64 * WRITERS as f64 / rate as f64);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        count += 1;
        let uid = 2 + next_user.fetch_add(1, Ordering::Relaxed) % USERS;
        let header = &server.header;
        let body = r#"{"label":"bench"}"#;
        write!(
            stream,
            "POST /api/v1/users/{uid}/keys HTTP/1.1\r\nHost: bench\r\n{header}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        // The response is small enough to arrive in one read.
        let read = stream.read(&mut buffer)?;
        if !buffer[..read].starts_with(b"HTTP/1.1 201") {
            return Err(String::from_utf8_lossy(&buffer[..read]).into_owned().into());
        }
        created.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
