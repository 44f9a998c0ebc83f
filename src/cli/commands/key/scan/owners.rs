//! Asks the running server, or the store, whose the found keys are. Only the ids of the keys are
//! sent.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use tokio::runtime::Builder;

use crate::{
    cli::{
        Exit,
        client::{AdminClient, connect, paths::path},
    },
    config::{Settings, environment, load},
    model::KeyId,
    store::store_exists,
};

/// The records of found keys.
#[derive(Debug, Default)]
pub struct Owners {
    /// The path of the store that was asked. `None` means that no store was asked.
    pub store: Option<String>,
    /// The records of the keys that this store knows.
    records: BTreeMap<String, Value>,
}

impl Owners {
    /// The record of a key, or one with the state `unknown`.
    pub fn record(&self, id: KeyId) -> Value {
        let id = id.to_string();
        let record = self.records.get(&id).cloned();
        record.unwrap_or_else(|| json!({ "id": id, "state": "unknown" }))
    }

    /// The state of a key. `None` means that no store was asked.
    pub fn state(&self, id: KeyId) -> Option<String> {
        self.store.as_ref()?;
        self.record(id)["state"].as_str().map(str::to_owned)
    }
}

/// Asks for the owners. Where a scan runs, there is often neither a server nor a store: then
/// nothing is known, which is no error unless `config` names a configuration.
///
/// # Errors
/// The configuration that `config` names is invalid, or the server or the store does not respond.
pub fn ask(ids: &[KeyId], config: Option<&Path>) -> anyhow::Result<Owners> {
    let settings = match load(config, environment()) {
        Ok(loaded) => loaded.settings,
        Err(problem) if config.is_some() => return Err(problem.into()),
        // The file may be another program's config.toml.
        Err(_) => return Ok(Owners::default()),
    };
    let is_there = store_exists(&settings.store.path) || settings.store.control_file.exists();
    if !is_there && config.is_none() {
        return Ok(Owners::default());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(records(ids, &settings))
}

async fn records(ids: &[KeyId], settings: &Settings) -> anyhow::Result<Owners> {
    let client: AdminClient = connect::client(settings).await?;
    let mut records = BTreeMap::new();
    for id in ids {
        let id = id.to_string();
        match client.get(&path(&["keys", &id])).await {
            Ok(response) => drop(records.insert(id, response.body)),
            Err(problem) if problem.exit == Exit::NotFound => {}
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(Owners { store: Some(settings.store.path.display().to_string()), records })
}
