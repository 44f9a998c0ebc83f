//! Whether time tells why somebody was refused: `cargo bench --bench uniform [-- --requests 20000 --passwords 0]`.
//!
//! An application with `detail = "uniform"` refuses an unknown user, a wrong key, a blocked user, an expired and a revoked key in the same words. Here each
//! of the five is asked so many times, one request at a time on one connection, in an order drawn anew for every five, and the time until the answer
//! is taken. Then each kind is compared with each other by two tests: Mann and Whitney's (is one later than the other?) and Kolmogorov and Smirnov's (are
//! they spread alike?). Told apart means that one of the twenty comparisons has a probability below 0.001 after Bonferroni's correction.
//!
//! With `--passwords N` the same is done N times with an application of the type `basic`: an unknown user, a wrong password, a blocked user and a user
//! without a password.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod rig;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::model::{Entropy, KeyText};
use rig::{Home, Outcome, option};

/// What is more likely than this is chance.
const CHANCE: f64 = 0.001;

/// A way to be refused: its name, the request, and how long its answers took, in nanoseconds.
struct Kind {
    name: &'static str,
    request: Vec<u8>,
    times: Vec<f64>,
}

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut home = Home::new(folder.path())?;
    // As it is shipped: each refusal is a line of the log, and says why.
    home.log = "info";
    let keys = keys(&home)?;
    let passwords = passwords(&home)?;
    let server = home.serve("keyward")?;
    for (what, kinds, count) in [
        ("keys", keys, option("--requests", 20_000)),
        ("passwords", passwords, option("--passwords", 0)),
    ] {
        if count > 0 {
            measure(what, kinds, count, &server.address)?;
        }
    }
    Ok(())
}

fn request(application: &str, header: &str, user: &str, secret: &str) -> Vec<u8> {
    let scheme = if header == "Authorization" { "Basic " } else { "" };
    let credential = STANDARD.encode(format!("{user}:{secret}"));
    format!("GET /user/1 HTTP/1.1\r\nHost: bench\r\nAUTH-METHOD: {application}\r\n{header}: {scheme}{credential}\r\n\r\n").into_bytes()
}

/// The five kinds of a key that is refused. All texts are as long.
fn keys(home: &Home<'_>) -> Outcome<Vec<Kind>> {
    home.run(&["app", "add", "silent", "--detail", "uniform"])?;
    let nobody = KeyText::generate("kw", &Entropy::system()).text.expose().to_owned();
    let mut kinds = Vec::new();
    for name in ["unknown", "wrong..", "blocked", "expired", "revoked"] {
        let mut text = nobody.clone();
        if name != "unknown" {
            home.run(&["user", "add", name])?;
            let expires = if name == "expired" { "1s" } else { "never" };
            let made = home.json(&["key", "generate", name, "--expires", expires])?;
            match name {
                "blocked" => home.run(&["user", "block", name])?,
                "revoked" => home.run(&["key", "revoke", made["id"].as_str().ok_or("no id")?])?,
                _ => {}
            }
            if name != "wrong.." {
                text = made["key"].as_str().ok_or("no key")?.to_owned();
            }
        }
        let request = request("silent", "API-KEY", name, &text);
        kinds.push(Kind { name, request, times: Vec::new() });
    }
    // One of them has a second to live.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    Ok(kinds)
}

fn passwords(home: &Home<'_>) -> Outcome<Vec<Kind>> {
    home.run(&["app", "add", "people", "--type", "basic", "--detail", "uniform"])?;
    for name in ["has-one", "stopped"] {
        home.pipe(&["user", "add", name, "--password-stdin"], "correct horse\n")?;
    }
    home.run(&["user", "block", "stopped"])?;
    home.run(&["user", "add", "has-non"])?;
    let kind = |(name, secret)| {
        let request = request("people", "Authorization", name, secret);
        Kind { name, request, times: Vec::new() }
    };
    let all = [
        ("nobody.", "correct horse"),
        ("has-one", "another horse"),
        ("stopped", "correct horse"),
        ("has-non", "correct horse"),
    ];
    Ok(all.into_iter().map(kind).collect())
}

fn measure(what: &str, mut kinds: Vec<Kind>, count: u64, address: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 16_384];
    for kind in &kinds {
        let answer = ask(&mut stream, &kind.request, &mut buffer)?.1;
        answers.push(without_date(&answer));
    }
    if !answers[0].starts_with("HTTP/1.1 401") || answers.iter().any(|answer| *answer != answers[0])
    {
        return Err(format!("the answers differ: {answers:#?}").into());
    }
    // What is new to the machine is not counted.
    let warm = (count / 20).max(10);
    for round in 0..warm + count {
        for at in order(kinds.len()) {
            let kind = &mut kinds[at];
            let (nanos, _) = ask(&mut stream, &kind.request, &mut buffer)?;
            if round >= warm {
                kind.times.push(nanos);
            }
        }
    }
    println!("{what}: {count} requests of each kind");
    for kind in &mut kinds {
        kind.times.sort_by(f64::total_cmp);
        let at = |share: f64| kind.times[(share * (kind.times.len() - 1) as f64) as usize] / 1000.0;
        println!(
            "  {:>8}: p10 {:.2}, p50 {:.2}, p90 {:.2}, p99 {:.2} µs",
            kind.name,
            at(0.1),
            at(0.5),
            at(0.9),
            at(0.99)
        );
    }
    compare(&kinds);
    Ok(())
}

fn compare(kinds: &[Kind]) {
    let pairs: Vec<(&Kind, &Kind)> = (0..kinds.len())
        .flat_map(|b| (0..b).map(move |a| (a, b)))
        .map(|(a, b)| (&kinds[a], &kinds[b]))
        .collect();
    let tests = 2.0 * pairs.len() as f64;
    let mut least: f64 = 1.0;
    for (a, b) in &pairs {
        let (z, later) = mann_whitney(&a.times, &b.times);
        let (d, spread) = kolmogorov_smirnov(&a.times, &b.times);
        let corrected = (later.min(spread) * tests).min(1.0);
        least = least.min(corrected);
        println!(
            "  {:>8} and {:>8}: z {z:+.2} (p {later:.4}), D {d:.4} (p {spread:.4})",
            a.name, b.name
        );
    }
    let verdict = if least < CHANCE { "told apart" } else { "not told apart" };
    println!("  smallest probability of {tests} comparisons, corrected: {least:.4}: {verdict}");
}

/// One request: how long its answer took, and the answer.
fn ask(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Outcome<(f64, String)> {
    let begun = Instant::now();
    stream.write_all(request)?;
    let mut length = stream.read(buffer)?;
    let nanos = begun.elapsed().as_nanos() as f64;
    loop {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= field.ok_or("no length")?.parse()? {
                return Ok((nanos, text));
            }
        }
        match stream.read(&mut buffer[length..])? {
            0 => return Err("the connection ended".into()),
            more => length += more,
        }
    }
}

fn without_date(answer: &str) -> String {
    answer.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

/// The places from 0, in an order that nobody chose.
fn order(count: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    let random: [u8; 8] = Entropy::system().bytes();
    for at in (1..count).rev() {
        places.swap(at, usize::from(random[at % 8]) % (at + 1));
    }
    places
}

/// Whether `b` is later than `a`, as a standard normal value, and how likely it is as far from 0 by chance. Both are sorted; ties get their middle rank.
fn mann_whitney(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut below, mut upto) = (0, 0);
    let mut u = 0.0;
    for value in b {
        below += a[below..].iter().take_while(|one| *one < value).count();
        upto = upto.max(below);
        upto += a[upto..].iter().take_while(|one| *one <= value).count();
        u += below as f64 + (upto - below) as f64 / 2.0;
    }
    let z = (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt();
    (z, two_sided(z))
}

/// The probability of a standard normal value at least as far from 0 (Abramowitz and Stegun, 26.2.17).
fn two_sided(z: f64) -> f64 {
    let x = z.abs();
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (2.0 * series * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()).clamp(0.0, 1.0)
}

/// The largest distance of the two distributions, and how likely one as large is by chance. Both are sorted.
fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut d): (usize, usize, f64) = (0, 0, 0.0);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].iter().take_while(|one| **one <= value).count();
        j += b[j..].iter().take_while(|one| **one <= value).count();
        d = d.max((i as f64 / n - j as f64 / m).abs());
    }
    let size = (n * m / (n + m)).sqrt();
    let lambda = (size + 0.12 + 0.11 / size) * d;
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
        sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
    };
    let p = if lambda < 0.2 { 1.0 } else { 2.0 * (1..=100).map(term).sum::<f64>() };
    (d, p.clamp(0.0, 1.0))
}
