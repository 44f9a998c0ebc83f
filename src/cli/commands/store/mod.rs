//! `keyward store`: checks the store on the disk, compacts it, and converts it to another engine.

mod check;
mod compact;
mod convert;

use clap::Subcommand;

use crate::{
    accounts::SetupError,
    cli::{CliError, Exit, Output, instance::accounts::engine_on_disk},
    config::Settings,
    store::{EngineKind, StoreError},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Read every record and report what is damaged, while no server runs
    Check,
    /// Make the files as small as the records allow, while no server runs
    Compact,
    /// Convert the store to another engine, while no server runs; the old store is kept
    Convert(convert::Convert),
}

/// Runs a command. Each command needs the store for itself.
pub async fn run(verb: Verb, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let Some(engine) = engine_on_disk(settings) else {
        let text = "with store.engine = \"memory\" there is no store on the disk";
        return Err(CliError::new(Exit::Usage, text).into());
    };
    match verb {
        Verb::Check => check::run(engine, settings, output),
        Verb::Compact => compact::run(engine, settings, output),
        Verb::Convert(convert) => convert.run(settings, output).await,
    }
}

/// The error of a store that cannot be opened.
fn unreachable(problem: StoreError) -> CliError {
    match problem {
        StoreError::Locked { path } => {
            let text = format!("the store {path} is in use: stop the server first");
            CliError::new(Exit::Unreachable, text)
        }
        problem => CliError::new(Exit::Unreachable, SetupError::from(problem).to_string()),
    }
}

fn parse_engine(name: &str) -> Result<EngineKind, String> {
    let engine = EngineKind::ALL.into_iter().find(|engine| engine.name() == name);
    engine.ok_or_else(|| "use sled or redb".to_owned())
}
