//! `keyward init`: creates the store, the first user and the first user's key, without a server.

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        CliError, Exit, Output,
        instance::accounts::{self, NewStore, OpenError},
        terminal::{screen, welcome},
    },
    config::{Engine, Settings},
};

#[derive(Debug, Args)]
pub struct Init {
    /// Begin anew where the pepper file exists and the store does not: with the same pepper, and
    /// without the records of the missing store
    #[arg(long)]
    new: bool,
}

/// Creates the store. An existing store is left unchanged.
pub async fn run(init: Init, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = &settings.store;
    if store.engine == Engine::Memory {
        let text = "with store.engine = \"memory\", keyward init would create a store that ends with this command. Run keyward serve instead";
        return Err(CliError::new(Exit::Refused, text).into());
    }
    let already_exists = || {
        let path = store.path.display();
        let text =
            format!("the store {path} has its users and keys already. No record was changed");
        CliError::new(Exit::Refused, text)
    };
    let new = if init.new { NewStore::WithExistingPepper } else { NewStore::OnlyWithNewPepper };
    let accounts = match accounts::open(settings, new) {
        Err(OpenError::Locked(_)) => return Err(already_exists().into()),
        opened => opened.map_err(CliError::from)?,
    };
    let first = accounts.first_start().await?.ok_or_else(already_exists)?;
    let base_url = welcome::base_url(settings, settings.server.listen);
    if output == Output::Table {
        return welcome::print(&first, base_url.as_deref());
    }
    let mut output_json = json!({
        "username": first.username,
        "key": first.key.expose(),
        "application": first.application,
        "store": store.path,
        "pepper_file": store.pepper_file,
    });
    if let Some(base_url) = base_url {
        output_json["curl"] = welcome::curl_command(&base_url, &first.username, &first.key).into();
    }
    Ok(screen::print(&format!("{output_json:#}\n"))?)
}
