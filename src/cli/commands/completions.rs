//! `keyward completions`: what a shell needs to complete our commands.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, terminal::screen};

/// Prints the completions of `shell`.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    // Into memory first: the generator panics where the reader has gone away.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "keyward", &mut script);
    Ok(screen::print(&String::from_utf8(script)?)?)
}
