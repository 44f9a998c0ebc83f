//! Keyward's one binary: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser as _;

/// Half the memory and two thirds of the time of the C library's, with a million users (`cargo bench --bench scale`). Without huge pages: they
/// quadruple what an idle server holds.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyward::cli::run(keyward::cli::Cli::parse())
}
