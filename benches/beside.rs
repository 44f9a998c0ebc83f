//! What a decision costs over bare HTTP: `cargo bench --bench beside [-- --rounds 5 --seconds 5 --connections 64]`.
//!
//! Starts the program and the bare server of `examples/bare.rs`, which answers the same bytes without a check, and drives one after the other
//! with wrk (Debian: `apt-get install wrk`), round after round. Prints the medians: requests a second, latency, CPU time of the server's process for
//! a request, resident memory; and the ratio of the two.

#![allow(clippy::print_stdout, reason = "it prints what it measured")]

mod rig;

use rig::{Home, Load, Outcome, Server, median, option};

const PATH: &str = "/user/1";

fn main() -> Outcome<()> {
    let rounds = option("--rounds", 5);
    let load = Load { seconds: option("--seconds", 5), connections: option("--connections", 64) };
    let folder = tempfile::tempdir()?;
    let keyward = Home::new(folder.path())?.serve("keyward")?;
    let header = keyward.header.clone();
    let (head, body) = keyward.get(PATH, &header)?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("{head}\n{body}").into());
    }
    let bare = Server::bare(folder.path(), &body)?;
    let (bare_head, bare_body) = bare.get(PATH, &header)?;
    if bare_body != body || bare_head.len() != head.len() {
        return Err(format!("the answers differ:\n{head}\n{bare_head}").into());
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for (server, results) in [(&bare, &mut theirs), (&keyward, &mut ours)] {
            let result = server.drive(PATH, &header, load)?;
            println!("round {round} {:>8}: {result}", server.name);
            results.push(result);
        }
    }
    let (ours, theirs) = (median(&ours), median(&theirs));
    println!("median  {:>8}: {theirs}", bare.name);
    println!("median  {:>8}: {ours}", keyward.name);
    println!(
        "ratio: {:.3} of the bare server's requests a second, {:.3} of its CPU time a request",
        ours.rate / theirs.rate,
        ours.cpu_us / theirs.cpu_us
    );
    Ok(())
}
