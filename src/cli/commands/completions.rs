//! `keyward completions`: prints the completion script for a shell.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, terminal::screen};

/// Prints the completion script for `shell`.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    // The script is generated in memory, because the generator panics if standard output is a
    // closed pipe.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "keyward", &mut script);
    Ok(screen::print(&String::from_utf8(script)?)?)
}
