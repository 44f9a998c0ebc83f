//! Keyward's binary: parses the arguments, runs the command and returns its exit code.

use std::process::ExitCode;

use clap::Parser as _;

/// Without huge pages: they quadruple what an idle server holds (`cargo bench --bench scale`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyward::cli::run(keyward::cli::Cli::parse())
}
