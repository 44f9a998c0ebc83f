//! Keyward's binary: parses the arguments, runs the command and returns its exit code.

use std::process::ExitCode;

use clap::Parser as _;

/// mimalloc, built without transparent huge pages, which would make an idle server use four times
/// as much memory (measured with `cargo bench --bench scale`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyward::cli::run(keyward::cli::Cli::parse())
}
