//! `keyward completions`: what a shell needs to complete our commands.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::{Cli, out};

/// Prints the completions of `shell`.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    // Into memory first: the generator panics where the reader has gone away.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "keyward", &mut script);
    Ok(out::print(&String::from_utf8(script)?)?)
}
