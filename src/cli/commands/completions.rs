//! `keyward completions`: prints completions for a shell.

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::cli::{Cli, terminal::screen};

/// Prints the completions of `shell`.
pub fn print(shell: Shell) -> anyhow::Result<()> {
    // Written into memory first, because the generator panics on a closed pipe.
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "keyward", &mut script);
    Ok(screen::print(&String::from_utf8(script)?)?)
}
