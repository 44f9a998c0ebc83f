//! The command line: arguments, commands, and their output.
//!
//! Commands that read or change records send requests to the admin API: to the running server or,
//! if no server runs, to the same API in this process. So all rules are in the API, and no client
//! can bypass them.

mod client;
mod commands;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod instance;
mod terminal;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use client::session::Session;
use terminal::display::DisplayOptions;
pub use terminal::exit::{CliError, Exit};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Loaded, environment, load};

/// The help heading of the options that every command has.
const GLOBAL_OPTIONS: &str = "Options of every command";

/// A small gate for REST APIs: users, API keys and permissions in one binary.
///
/// Without a command, keyward runs the server. While a server runs, the other commands send their
/// requests to the server. If no server runs, the commands open the store.
#[derive(Debug, Parser)]
#[command(name = "keyward", version, after_help = terminal::exit::HELP, infer_long_args = false)]
pub struct Cli {
    /// The configuration file [default: $KEYWARD_CONFIG, ./config.toml, /etc/keyward/config.toml]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL_OPTIONS)]
    config: Option<PathBuf>,
    /// The output format: table for people, json for programs, sarif for code hosts (key scan)
    #[arg(
        long, global = true, value_name = "FORMAT", help_heading = GLOBAL_OPTIONS,
        value_enum, default_value_t = Format::Table, hide_possible_values = true
    )]
    output: Format,
    #[command(flatten)]
    display: DisplayOptions,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The output format of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: the admin API's JSON
    Json,
    /// For code hosts: SARIF 2.1.0, only for `key scan`
    Sarif,
}

/// The output format of commands other than `key scan`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people
    Table,
    /// For programs: the admin API's JSON
    Json,
}

impl From<Format> for Output {
    fn from(format: Format) -> Self {
        match format {
            Format::Table => Self::Table,
            Format::Json | Format::Sarif => Self::Json,
        }
    }
}

impl From<Output> for Format {
    fn from(output: Output) -> Self {
        match output {
            Output::Table => Self::Table,
            Output::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; this is the default command
    Serve(commands::serve::Serve),
    /// Create the store, its first user and a key for that user
    Init(commands::init::Init),
    #[command(flatten)]
    Records(RecordCommand),
    /// Replace the store with a backup and keep the old store; only possible while no server runs
    Restore(commands::backup::Restore),
    /// Check, compact or convert the store on the disk, while no server runs
    #[command(subcommand)]
    Store(commands::store::Verb),
    /// Create and change records as a file says; either all changes are made or none
    Apply(commands::apply::Apply),
    /// Scripts: authentication types, hooks and handlers
    #[command(subcommand)]
    Script(ScriptVerb),
    /// Run a request through all phases and show the result of each phase
    Explain(commands::explain::Request),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(commands::config::Verb),
    /// Ask the running server whether it is ready
    Healthcheck,
    /// Print the completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The commands for scripts.
#[derive(Debug, Subcommand)]
enum ScriptVerb {
    // These commands need neither a server nor the store.
    #[command(flatten)]
    Local(commands::script::Bench),
    // These commands send requests to the admin API.
    #[command(flatten)]
    Api(commands::script::Verb),
}

/// The commands that read or change records through the admin API.
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
    /// Resources: paths, who may use them, and their handlers
    #[command(subcommand)]
    Resource(commands::resource::Verb),
    /// The audit log: who changed what
    #[command(subcommand)]
    Audit(commands::audit::Verb),
    /// Import what another system knows: users, roles, keys and applications
    #[command(subcommand)]
    Import(commands::import::Verb),
    /// Write all records to one file, whether a server runs or not
    Backup(commands::backup::Backup),
    /// Write all records as a TOML file that people can read and edit, and keyward can apply
    Export(commands::apply::export::Export),
}

/// Runs a command and returns its exit code. Prints errors on standard error.
pub fn run(cli: Cli) -> ExitCode {
    let output = cli.output.into();
    match dispatch(cli, output) {
        Ok(()) => Exit::Done.into(),
        Err(problem) => terminal::exit::report(&problem, output).into(),
    }
}

fn dispatch(cli: Cli, output: Output) -> anyhow::Result<()> {
    let display = cli.display;
    let command = match cli.command.unwrap_or(Command::Serve(commands::serve::Serve::default())) {
        // These commands do not load the configuration, so they also work if the configuration is
        // invalid.
        Command::Completions { shell } => return commands::completions::print(shell),
        Command::Config(commands::config::Verb::Schema) => return commands::config::schema(),
        Command::Records(RecordCommand::Key(commands::key::Verb::Scan(scan))) => {
            return scan.run(cli.config.as_deref(), cli.output);
        }
        _ if cli.output == Format::Sarif => {
            let text = "only keyward key scan has --output sarif: use --output json";
            return Err(CliError::new(Exit::Usage, text).into());
        }
        command => command,
    };
    let loaded = load(cli.config.as_deref(), environment())?;
    runtime(&command, &loaded)?.block_on(execute(command, output, display, loaded))
}

/// Creates the runtime: with worker threads for the server, with one thread for other commands.
fn runtime(command: &Command, loaded: &Loaded) -> std::io::Result<Runtime> {
    let mut builder = if matches!(command, Command::Serve(_)) {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(loaded.settings.server.workers);
        builder
    } else {
        Builder::new_current_thread()
    };
    builder.enable_all().build()
}

async fn execute(
    command: Command,
    output: Output,
    display: DisplayOptions,
    loaded: Loaded,
) -> anyhow::Result<()> {
    let session = |client| Session::new(client, output).with_display(display);
    match command {
        Command::Serve(options) => commands::serve::run(options, loaded).await,
        Command::Init(init) => commands::init::run(init, &loaded.settings, output).await,
        Command::Config(verb) => commands::config::run(verb, &loaded, output),
        Command::Script(ScriptVerb::Local(bench)) => {
            // Script tests block their thread, so they must not run on the runtime's thread.
            let settings = loaded.settings;
            tokio::task::spawn_blocking(move || {
                commands::script::run(bench, &settings, output, display)
            })
            .await?
        }
        Command::Explain(request) => {
            let client = client::connect::client_with_scripts(&loaded.settings).await?;
            commands::explain::run(request, &session(client)).await
        }
        Command::Script(ScriptVerb::Api(verb)) => {
            let client = client::connect::client(&loaded.settings).await?;
            commands::script::ask(verb, &session(client)).await
        }
        Command::Healthcheck => commands::healthcheck::run(&loaded.settings, output).await,
        Command::Completions { shell } => commands::completions::print(shell),
        Command::Apply(apply) => apply.run(&loaded.settings, output).await,
        Command::Restore(restore) => restore.run(&loaded.settings, output).await,
        Command::Store(verb) => commands::store::run(verb, &loaded.settings, output).await,
        Command::Records(command) => {
            let client = client::connect::client(&loaded.settings).await?;
            run_record_command(command, &session(client), &loaded).await
        }
    }
}

async fn run_record_command(
    command: RecordCommand,
    session: &Session,
    loaded: &Loaded,
) -> anyhow::Result<()> {
    match command {
        RecordCommand::User(verb) => commands::user::run(verb, session).await,
        RecordCommand::Key(verb) => commands::key::run(verb, session, &loaded.settings).await,
        RecordCommand::Role(verb) => commands::role::run(verb, session).await,
        RecordCommand::App(verb) => commands::app::run(verb, session).await,
        RecordCommand::Resource(verb) => commands::resource::run(verb, session).await,
        RecordCommand::Audit(verb) => commands::audit::run(verb, session).await,
        RecordCommand::Import(verb) => commands::import::run(verb, session).await,
        RecordCommand::Backup(backup) => backup.run(session, loaded).await,
        RecordCommand::Export(export) => export.run(session).await,
    }
}
