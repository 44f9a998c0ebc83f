//! `keyward init`: creates the store, its first user and that user's key, without a server.

use serde_json::json;

use crate::{
    accounts::SetupError,
    cli::{
        CliError, Exit, Output,
        instance::accounts,
        terminal::{screen, welcome},
    },
    config::{Engine, Settings},
    store::StoreError,
};

/// Creates the store. An existing store is left unchanged.
pub async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let store = &settings.store;
    if store.engine == Engine::Memory {
        let text = "store.engine is \"memory\": there is nothing that would outlive this command. keyward serve makes what it needs";
        return Err(CliError::new(Exit::Refused, text).into());
    }
    let used = || {
        let path = store.path.display();
        let text = format!(
            "the store {path} is in use: it has its users and keys already. Nothing was changed"
        );
        CliError::new(Exit::Refused, text)
    };
    let accounts = match accounts::open(settings) {
        Err(SetupError::Store(StoreError::Locked { .. })) => return Err(used().into()),
        opened => opened?,
    };
    let first = accounts.first_start().await?.ok_or_else(used)?;
    let base_url = welcome::base_url(settings, settings.server.listen);
    if output == Output::Table {
        return welcome::print(&first, base_url.as_deref());
    }
    let mut answer = json!({
        "username": first.username,
        "key": first.key.expose(),
        "application": first.application,
        "store": store.path,
        "pepper_file": store.pepper_file,
    });
    if let Some(base_url) = base_url {
        answer["curl"] = welcome::curl_command(&base_url, &first.username, &first.key).into();
    }
    Ok(screen::print(&format!("{answer:#}\n"))?)
}
