//! Measures whether response times reveal the reason of a denial:
//! `cargo bench --bench uniform [-- --requests 20000 --passwords 0]`.
//!
//! An application with `detail = "uniform"` sends the same response to an unknown user, a wrong
//! key, a blocked user, an expired key and a revoked key. The bench sends `--requests` requests of
//! each of these five kinds, one at a time on one connection. Each round has one request of each
//! kind, in a random order. The bench measures the time until the response begins.
//!
//! Two statistical tests compare each pair of kinds: Mann-Whitney (do responses of one kind tend to
//! be later?) and Kolmogorov-Smirnov (do the distributions of the times differ?). Five kinds give
//! ten pairs, and thus twenty p-values. If one of these p-values is below 0.001 after Bonferroni
//! correction, the bench reports the kinds as distinguishable.
//!
//! With `--passwords N` the bench also sends N requests of each kind to an application of the type
//! `basic`. The kinds are an unknown user, a wrong password, a blocked user, and a user without a
//! password.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

mod support;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Instant,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::model::{Entropy, KeyText};
use support::{Outcome, Setup, option};

/// Significance level. A probability below this level means that the kinds can be distinguished.
const SIGNIFICANCE: f64 = 0.001;

/// A kind of denied request.
struct Kind {
    name: &'static str,
    request: Vec<u8>,
    /// Response times in nanoseconds.
    times: Vec<f64>,
}

fn main() -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let mut setup = Setup::new(folder.path())?;
    // At Keyward's default log level, each denial writes a log line with the reason.
    setup.log = "info";
    let keys = key_kinds(&setup)?;
    let passwords = password_kinds(&setup)?;
    let server = setup.serve("keyward")?;
    for (title, kinds, count) in [
        ("keys", keys, option("--requests", 20_000)),
        ("passwords", passwords, option("--passwords", 0)),
    ] {
        if count > 0 {
            measure(title, kinds, count, &server.address)?;
        }
    }
    Ok(())
}

fn request(application: &str, header: &str, user: &str, secret: &str) -> Vec<u8> {
    let scheme = if header == "Authorization" { "Basic " } else { "" };
    let credential = STANDARD.encode(format!("{user}:{secret}"));
    format!("GET /user/1 HTTP/1.1\r\nHost: bench\r\nAUTH-METHOD: {application}\r\n{header}: {scheme}{credential}\r\n\r\n").into_bytes()
}

/// The five kinds of requests with a denied key. All names and keys have the same length.
fn key_kinds(setup: &Setup<'_>) -> Outcome<Vec<Kind>> {
    setup.run(&["app", "add", "silent", "--detail", "uniform"])?;
    let unknown_key = KeyText::generate("kw", &Entropy::system()).text.expose().to_owned();
    let mut kinds = Vec::new();
    for name in ["unknown", "wrong..", "blocked", "expired", "revoked"] {
        let mut text = unknown_key.clone();
        if name != "unknown" {
            setup.run(&["user", "add", name])?;
            let expires = if name == "expired" { "1s" } else { "never" };
            let generated = setup.json(&["key", "generate", name, "--expires", expires])?;
            match name {
                "blocked" => setup.run(&["user", "block", name])?,
                "revoked" => {
                    setup.run(&["key", "revoke", generated["id"].as_str().ok_or("no id")?])?
                }
                _ => {}
            }
            if name != "wrong.." {
                text = generated["key"].as_str().ok_or("no key")?.to_owned();
            }
        }
        let request = request("silent", "API-KEY", name, &text);
        kinds.push(Kind { name, request, times: Vec::new() });
    }
    // Wait until the key with a lifetime of one second has expired.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    Ok(kinds)
}

fn password_kinds(setup: &Setup<'_>) -> Outcome<Vec<Kind>> {
    setup.run(&["app", "add", "people", "--type", "basic", "--detail", "uniform"])?;
    for name in ["wrongpw", "stopped"] {
        setup.pipe(&["user", "add", name, "--password-stdin"], "correct horse\n")?;
    }
    setup.run(&["user", "block", "stopped"])?;
    setup.run(&["user", "add", "no-pass"])?;
    let kind = |(name, secret)| {
        let request = request("people", "Authorization", name, secret);
        Kind { name, request, times: Vec::new() }
    };
    let all = [
        ("nobody.", "correct horse"),
        ("wrongpw", "another horse"),
        ("stopped", "correct horse"),
        ("no-pass", "correct horse"),
    ];
    Ok(all.into_iter().map(kind).collect())
}

fn measure(title: &str, mut kinds: Vec<Kind>, count: u64, address: &str) -> Outcome<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut responses = Vec::new();
    let mut buffer = vec![0; 16_384];
    for kind in &kinds {
        let (_, response) = exchange(&mut stream, &kind.request, &mut buffer)?;
        responses.push(without_date(&response));
    }
    let first = &responses[0];
    if !first.starts_with("HTTP/1.1 401") || responses.iter().any(|other| other != first) {
        return Err(format!(
            "the responses must be identical and have status 401, but are: {responses:#?}"
        )
        .into());
    }
    // The first rounds are a warm-up and are not counted.
    let warm_up = (count / 20).max(10);
    for round in 0..warm_up + count {
        for index in random_order(kinds.len()) {
            let kind = &mut kinds[index];
            let (nanos, _) = exchange(&mut stream, &kind.request, &mut buffer)?;
            if round >= warm_up {
                kind.times.push(nanos);
            }
        }
    }
    println!("{title}: {count} requests of each kind");
    for kind in &mut kinds {
        kind.times.sort_by(f64::total_cmp);
        let percentile =
            |share: f64| kind.times[(share * (kind.times.len() - 1) as f64) as usize] / 1000.0;
        println!(
            "  {:>8}: p10 {:.2}, p50 {:.2}, p90 {:.2}, p99 {:.2} µs",
            kind.name,
            percentile(0.1),
            percentile(0.5),
            percentile(0.9),
            percentile(0.99)
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
    let mut smallest: f64 = 1.0;
    for (a, b) in &pairs {
        let (z, p_later) = mann_whitney(&a.times, &b.times);
        let (d, p_shape) = kolmogorov_smirnov(&a.times, &b.times);
        let corrected = (p_later.min(p_shape) * tests).min(1.0);
        smallest = smallest.min(corrected);
        println!(
            "  {:>8} and {:>8}: z {z:+.2} (p {p_later:.4}), D {d:.4} (p {p_shape:.4})",
            a.name, b.name
        );
    }
    let verdict = if smallest < SIGNIFICANCE { "distinguishable" } else { "not distinguishable" };
    println!("  smallest corrected probability of {tests} comparisons: {smallest:.4}: {verdict}");
}

/// Sends one request. Returns the time until the response began, in nanoseconds, and the response.
fn exchange(stream: &mut TcpStream, request: &[u8], buffer: &mut [u8]) -> Outcome<(f64, String)> {
    let begun = Instant::now();
    stream.write_all(request)?;
    let mut length = stream.read(buffer)?;
    let nanos = begun.elapsed().as_nanos() as f64;
    loop {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let field = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= field.ok_or("no Content-Length")?.parse()? {
                return Ok((nanos, text));
            }
        }
        match stream.read(&mut buffer[length..])? {
            0 => return Err("the server closed the connection".into()),
            more => length += more,
        }
    }
}

fn without_date(response: &str) -> String {
    response.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
}

/// The indices `0..count` in random order.
fn random_order(count: usize) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..count).collect();
    let random: [u8; 8] = Entropy::system().bytes();
    for index in (1..count).rev() {
        indices.swap(index, usize::from(random[index % 8]) % (index + 1));
    }
    indices
}

/// Mann-Whitney U test: do values of `b` tend to be larger than values of `a`? Both slices must be
/// sorted.
///
/// Returns the test statistic as a standard normal value, and the probability that chance alone
/// gives a value at least as far from 0. Equal values get their mean rank.
fn mann_whitney(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut less, mut less_or_equal) = (0, 0);
    let mut u = 0.0;
    for value in b {
        less += a[less..].iter().take_while(|other| *other < value).count();
        less_or_equal = less_or_equal.max(less);
        less_or_equal += a[less_or_equal..].iter().take_while(|other| *other <= value).count();
        u += less as f64 + (less_or_equal - less) as f64 / 2.0;
    }
    let z = (u - n * m / 2.0) / (n * m * (n + m + 1.0) / 12.0).sqrt();
    (z, two_sided(z))
}

/// The probability that a standard normal value is at least as far from 0 as `z` (Abramowitz and
/// Stegun, 26.2.17).
fn two_sided(z: f64) -> f64 {
    let x = z.abs();
    let t = 1.0 / (1.0 + 0.231_641_9 * x);
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (2.0 * series * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()).clamp(0.0, 1.0)
}

/// Two-sample Kolmogorov-Smirnov test: do the distributions of `a` and `b` differ? Both slices must
/// be sorted.
///
/// Returns the largest distance of the two distribution functions, and the probability that chance
/// alone gives a distance at least as large.
fn kolmogorov_smirnov(a: &[f64], b: &[f64]) -> (f64, f64) {
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut d): (usize, usize, f64) = (0, 0, 0.0);
    while i < a.len() && j < b.len() {
        let value = a[i].min(b[j]);
        i += a[i..].iter().take_while(|other| **other <= value).count();
        j += b[j..].iter().take_while(|other| **other <= value).count();
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
