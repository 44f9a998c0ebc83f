//! The cost of a decision, compared with bare HTTP:
//! `cargo bench --bench beside [-- --rounds 5 --seconds 5 --connections 64]`.
//!
//! The bench starts two servers: Keyward, and `examples/bare.rs`, which sends the same response
//! without checking a key. In each round, wrk (Debian: `apt-get install wrk`) puts load on the bare
//! server, then on Keyward. The bench prints the medians of each server (requests a second,
//! latency, CPU time per request, resident memory), then the ratios between the two servers.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

mod support;

use support::{Load, Outcome, Server, Setup, median, option};

const PATH: &str = "/user/1";

fn main() -> Outcome<()> {
    let rounds = option("--rounds", 5);
    let load = Load { seconds: option("--seconds", 5), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let keyward = Setup::new(folder.path())?.serve("keyward")?;
    let header = keyward.header.clone();
    let (head, body) = keyward.get(PATH, &header)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{head}\n{body}").into());
    }
    let bare = Server::bare(folder.path(), &body)?;
    let (bare_head, bare_body) = bare.get(PATH, &header)?;
    if bare_body != body || bare_head.len() != head.len() {
        return Err(format!("the responses differ:\n{head}\n{bare_head}").into());
    }
    let (mut keyward_rounds, mut bare_rounds) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (server, results) in [(&bare, &mut bare_rounds), (&keyward, &mut keyward_rounds)] {
            let result = server.drive(PATH, &header, load)?;
            println!("round {round} {:>8}: {result}", server.name);
            results.push(result);
        }
    }
    let (keyward_median, bare_median) = (median(&keyward_rounds), median(&bare_rounds));
    println!("median  {:>8}: {bare_median}", bare.name);
    println!("median  {:>8}: {keyward_median}", keyward.name);
    println!(
        "ratio: {:.3} of the bare server's requests a second, {:.3} of its CPU time per request",
        keyward_median.rate / bare_median.rate,
        keyward_median.cpu_us / bare_median.cpu_us
    );
    Ok(())
}
