//! What writing costs those who are decided about: `cargo bench --bench commits [-- --rounds 5 --seconds 3 --rate 1000]`.
//!
//! Decisions are driven with wrk (Debian: `apt-get install wrk`) while nobody writes, and while keys are made at a fixed rate through the admin API, each answer
//! on the disk before it is given, by 32 clients at once. Then keys are made as fast as they go, and nothing else.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod rig;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rig::{Figures, Home, Load, Outcome, Server, median, option, ratio};

const PATH: &str = "/user/1";
const USERS: u64 = 2000;
const WRITERS: u64 = 32;

fn main() -> Outcome<()> {
    let (rounds, rate) = (option("--rounds", 5), option("--rate", 1000));
    let load = Load { seconds: option("--seconds", 3), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let home = Home::new(folder.path())?;
    let rows: String = (0..USERS).map(|at| format!("writer-{at},a-key-of-writer-{at}\n")).collect();
    home.write("users.csv", &rows)?;
    home.run(&["key", "import", "users.csv", "--create-users"])?;
    let server = home.serve("keyward")?;
    let next = AtomicU64::new(0);
    server.drive(PATH, &server.header, Load { seconds: 1, ..load })?;
    let (mut alone, mut beside, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        alone.push(server.drive(PATH, &server.header, load)?);
        let (figures, commits) =
            while_writing(&server, &next, Some(rate), || server.drive(PATH, &server.header, load))?;
        println!("round {round}: {} | {} | {commits:.0} keys/s", alone[alone.len() - 1], figures);
        beside.push(figures);
        made.push(commits);
    }
    let ((), fastest) = while_writing(&server, &next, None, || {
        thread::sleep(Duration::from_secs(load.seconds));
        Ok(())
    })?;
    made.sort_by(f64::total_cmp);
    let line = |name: &str, all: &[Figures]| {
        let Figures { rate, p50_ms, p99_ms, p999_ms, cpu_us, .. } = median(all);
        println!(
            "| {name} | {rate:.0} | {p50_ms:.2} ms | {p99_ms:.2} ms | {p999_ms:.2} ms | {cpu_us:.1} µs |"
        );
    };
    println!("\n| decisions, while | requests/s | p50 | p99 | p99.9 | CPU a request |");
    println!("|---|---:|---:|---:|---:|---:|");
    line("nobody writes", &alone);
    line(&format!("{:.0} keys a second are made", made[made.len() / 2]), &beside);
    println!("p99.9 beside writers: {:.2} times", ratio(&beside, &alone, |one| one.p999_ms));
    println!("keys made one by one by {WRITERS} clients, and nothing else: {fastest:.0} a second");
    Ok(())
}

/// Does something while keys are made, so many a second or as fast as they go; and how many a second were made.
fn while_writing<T>(
    server: &Server,
    next: &AtomicU64,
    rate: Option<u64>,
    work: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, f64)> {
    let (is_over, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                scope.spawn(|| {
                    write(server, next, rate, &is_over, &made).map_err(|it| it.to_string())
                })
            })
            .collect();
        let begun = Instant::now();
        let done = work();
        let commits = made.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.join().map_err(|_| "a writer gave up")??;
        }
        Ok((done?, commits))
    })
}

/// One client that makes keys.
fn write(
    server: &Server,
    next: &AtomicU64,
    rate: Option<u64>,
    is_over: &AtomicBool,
    made: &AtomicU64,
) -> Outcome<()> {
    let mut stream = TcpStream::connect(&server.admin)?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16_384];
    let begun = Instant::now();
    let mut count = 0;
    while !is_over.load(Ordering::Relaxed) {
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(count as f64 * WRITERS as f64 / rate as f64);
            thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        count += 1;
        let uid = 2 + next.fetch_add(1, Ordering::Relaxed) % USERS;
        let header = &server.header;
        let body = r#"{"label":"bench"}"#;
        write!(
            stream,
            "POST /api/v1/users/{uid}/keys HTTP/1.1\r\nHost: bench\r\n{header}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        // The answer is one small write.
        let read = stream.read(&mut buffer)?;
        if !buffer[..read].starts_with(b"HTTP/1.1 201") {
            return Err(String::from_utf8_lossy(&buffer[..read]).into_owned().into());
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
