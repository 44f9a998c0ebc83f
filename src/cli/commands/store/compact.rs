//! `keyward store compact`: makes the store's files as small as its records allow.

use serde_json::json;

use crate::{
    cli::{
        CliError, Exit, Output,
        instance::refusals,
        terminal::{record, screen::Screen},
    },
    config::Settings,
    store::{EngineKind, RedbStore, SledStore, StoreError, store_exists},
};

pub fn run(engine: EngineKind, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let path = &settings.store.path;
    if !store_exists(path) {
        let text = refusals::no_store(settings);
        return Err(CliError::new(Exit::Unreachable, text).into());
    }
    let (before, after) = compact(engine, settings).map_err(super::unreachable)?;
    let record = json!({ "bytes_before": before, "bytes_after": after });
    let screen = Screen::process();
    match output {
        Output::Json => screen.print(&format!("{record:#}\n"))?,
        Output::Table => screen.print_styled(&record::record(&record, &screen.display()))?,
    }
    Ok(())
}

fn compact(engine: EngineKind, settings: &Settings) -> Result<(u64, u64), StoreError> {
    let store = &settings.store;
    match engine {
        EngineKind::Sled => SledStore::compact(&store.path, store.cache_mib),
        EngineKind::Redb => RedbStore::compact(&store.path, store.cache_mib),
    }
}
