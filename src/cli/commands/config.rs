//! `keyward config`: checks and prints the configuration.

use clap::Subcommand;
use serde_json::json;

use crate::{
    cli::{
        Output,
        instance::{scripts, tls, webhooks},
        terminal::screen,
    },
    config::{self, Loaded},
};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check the configuration; all problems are listed
    Check,
    /// Print the JSON Schema of config.toml, for editors
    Schema,
    /// Print the effective configuration, with the overrides of the environment
    Print,
}

/// Runs the command. Problems of the configuration were already reported when it was loaded; this
/// function also checks the certificates and the secrets of webhooks that the configuration names.
pub fn run(verb: Verb, loaded: &Loaded, output: Output) -> anyhow::Result<()> {
    if matches!(verb, Verb::Check) {
        tls::check(&loaded.settings)?;
        scripts::read_secrets(&loaded.settings.scripts.secrets_dir)?;
        webhooks::check(&loaded.settings)?;
        if let Some(warning) = config::unknown_variables(loaded) {
            screen::note(&format!("warning: {warning}\n"));
        }
    }
    let text = match (verb, output) {
        (Verb::Check, Output::Table) => match &loaded.source {
            Some(path) => {
                format!("{} is valid.\n", screen::printable(&path.display().to_string()))
            }
            None => "There is no configuration file; the built-in configuration is valid.\n".into(),
        },
        (Verb::Check, Output::Json) => {
            format!("{:#}\n", json!({ "source": loaded.source, "overrides": loaded.overrides }))
        }
        (Verb::Schema, _) => return schema(),
        (Verb::Print, Output::Table) => config::print(loaded),
        (Verb::Print, Output::Json) => format!("{:#}\n", json!(loaded.file)),
    };
    Ok(screen::print(&text)?)
}

/// Prints the schema, which needs no configuration.
pub fn schema() -> anyhow::Result<()> {
    Ok(screen::print(&config::schema())?)
}
