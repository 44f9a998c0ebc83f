//! Keyward's one binary: parse, dispatch, exit code.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    keyward::cli::run(keyward::cli::Cli::parse())
}
