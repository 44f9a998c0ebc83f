//! The command line: one file a noun.
//!
//! Whatever concerns records is a request to the admin API, sent to the server that runs or, where none does, to the same API in this
//! process. So no rule stands here that a client of the API could get round.

mod client;
mod commands;
mod instance;
mod terminal;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use client::session::Session;
pub use terminal::exit::{Exit, CliError};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Loaded, environment, load};

/// The heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// A small gate for REST APIs: users, API keys and permissions in one binary.
///
/// Without a command it serves. While a server runs, the other commands talk to it; else they open the store themselves.
#[derive(Debug, Parser)]
#[command(name = "keyward", version, after_help = terminal::exit::HELP, infer_long_args = false)]
pub struct Cli {
    /// The configuration file [default: $KEYWARD_CONFIG, ./config.toml, /etc/keyward/config.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = EVERYWHERE)]
    config: Option<PathBuf>,
    /// How answers are printed: table for people, json for programs
    #[arg(
        long, global = true, value_name = "FORM", help_heading = EVERYWHERE,
        value_enum, default_value_t = Output::Table, hide_possible_values = true
    )]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: the admin API's JSON
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (what keyward does without a command)
    Serve,
    /// Make the store, its first user and that user's key
    Init,
    #[command(flatten)]
    Records(RecordCommand),
    /// Make the store what a backup says, while no server runs; the one that is there is kept
    Restore(commands::backup::Restore),
    /// Make the records what a file says: all of it, or nothing
    Apply(commands::apply::Apply),
    /// Scripts: authentication types, hooks and handlers
    #[command(subcommand)]
    Script(ScriptVerb),
    /// Run a request through every phase, and show the result of each
    Explain(commands::explain::Request),
    /// The configuration
    #[command(subcommand)]
    Config(commands::config::Verb),
    /// Ask the running server whether it is ready
    Healthcheck,
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What is done with scripts.
#[derive(Debug, Subcommand)]
enum ScriptVerb {
    #[command(flatten)]
    Here(commands::script::Bench),
    #[command(flatten)]
    There(commands::script::Verb),
}

/// What concerns records.
#[derive(Debug, Subcommand)]
enum RecordCommand {
    /// Users
    #[command(subcommand)]
    User(commands::user::Verb),
    /// API keys
    #[command(subcommand)]
    Key(commands::key::Verb),
    /// Roles and their permissions
    #[command(subcommand)]
    Role(commands::role::Verb),
    /// Applications: the ways to authenticate
    #[command(subcommand)]
    App(commands::app::Verb),
    /// Resources: what can be asked for, and by whom
    #[command(subcommand)]
    Resource(commands::resource::Verb),
    /// The audit trail: who changed what
    #[command(subcommand)]
    Audit(commands::audit::Verb),
    /// Write all records into one file, while a server runs or not
    Backup(commands::backup::Backup),
    /// Write all records as a TOML file that people can read, keep and apply
    Export(commands::apply::Export),
}

/// Does what was asked and says how it went. Errors are on standard error by then.
pub fn run(cli: Cli) -> ExitCode {
    let output = cli.output;
    match dispatch(cli, output) {
        Ok(()) => Exit::Done.into(),
        Err(problem) => terminal::exit::report(&problem, output).into(),
    }
}

fn dispatch(cli: Cli, output: Output) -> anyhow::Result<()> {
    let command = match cli.command.unwrap_or(Command::Serve) {
        // These need no configuration: it may be the very thing that is not in order.
        Command::Completions { shell } => return commands::completions::print(shell),
        Command::Config(commands::config::Verb::Schema) => return commands::config::schema(),
        Command::Records(RecordCommand::Key(commands::key::Verb::Scan(scan))) => return scan.run(output),
        command => command,
    };
    let loaded = load(cli.config.as_deref(), environment())?;
    runtime(&command, &loaded)?.block_on(act(command, output, loaded))
}

/// The server gets its workers; for everything else one thread will do.
fn runtime(command: &Command, loaded: &Loaded) -> std::io::Result<Runtime> {
    let mut builder = match command {
        Command::Serve => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    if matches!(command, Command::Serve) {
        builder.worker_threads(loaded.settings.server.workers);
    }
    builder.enable_all().build()
}

async fn act(command: Command, output: Output, loaded: Loaded) -> anyhow::Result<()> {
    match command {
        Command::Serve => commands::serve::run(loaded).await,
        Command::Init => commands::init::run(&loaded.settings, output).await,
        Command::Config(verb) => commands::config::run(verb, &loaded, output),
        Command::Script(ScriptVerb::Here(bench)) => {
            // Scripts' tests block, which the thread of a runtime must not.
            let settings = loaded.settings;
            tokio::task::spawn_blocking(move || commands::script::run(bench, &settings, output))
                .await?
        }
        Command::Explain(request) => {
            let client = client::connect::client_with_scripts(&loaded.settings).await?;
            commands::explain::run(request, &Session::new(client, output)).await
        }
        Command::Script(ScriptVerb::There(verb)) => {
            let client = client::connect::client(&loaded.settings).await?;
            commands::script::ask(verb, &Session::new(client, output)).await
        }
        Command::Healthcheck => commands::healthcheck::run(&loaded.settings, output).await,
        Command::Completions { shell } => commands::completions::print(shell),
        Command::Apply(apply) => apply.run(&loaded.settings, output).await,
        Command::Restore(restore) => restore.run(&loaded.settings, output).await,
        Command::Records(noun) => {
            let client = client::connect::client(&loaded.settings).await?;
            on_records(noun, &Session::new(client, output)).await
        }
    }
}

async fn on_records(noun: RecordCommand, session: &Session) -> anyhow::Result<()> {
    match noun {
        RecordCommand::User(verb) => commands::user::run(verb, session).await,
        RecordCommand::Key(verb) => commands::key::run(verb, session).await,
        RecordCommand::Role(verb) => commands::role::run(verb, session).await,
        RecordCommand::App(verb) => commands::app::run(verb, session).await,
        RecordCommand::Resource(verb) => commands::resource::run(verb, session).await,
        RecordCommand::Audit(verb) => commands::audit::run(verb, session).await,
        RecordCommand::Backup(backup) => backup.run(session).await,
        RecordCommand::Export(export) => export.run(session).await,
    }
}
