//! Opening the accounts that the configuration names.

use std::sync::Arc;

use crate::{
    accounts::{Accounts, Passwords, SetupError},
    config::{Engine, Settings},
    store::{MemoryStore, SledStore, Store},
};

/// Opens the store and what stands on it. An empty store stays empty until [`Accounts::first_start`].
pub fn accounts(settings: &Settings) -> Result<Accounts, SetupError> {
    let store: Arc<dyn Store> = match settings.store.engine {
        Engine::Memory => Arc::new(MemoryStore::new()),
        Engine::Sled => Arc::new(SledStore::open(&settings.store.path, settings.store.cache_mib)?),
    };
    let passwords = Passwords::new(settings.limits.password_checks);
    Accounts::open(store, &settings.store.pepper_file, passwords)
}
