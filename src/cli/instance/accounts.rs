//! Opens the accounts that the configuration names.

use std::sync::Arc;

use crate::{
    accounts::{Accounts, Passwords, PepperError, SetupError, read_pepper},
    cli::{CliError, Exit},
    config::{Engine, Settings},
    model::{Clock, Entropy, Pepper},
    store::{self, EngineKind, MemoryStore, Store, StoreError, store_exists},
};

/// The engine that stores on disk. `None` means that the store is in memory.
pub fn engine_on_disk(settings: &Settings) -> Option<EngineKind> {
    match settings.store.engine {
        Engine::Sled => Some(EngineKind::Sled),
        Engine::Redb => Some(EngineKind::Redb),
        Engine::Memory => None,
    }
}

/// Opens the store and its accounts, or creates a new store. A new store stays empty until
/// [`Accounts::first_start`].
pub fn open(settings: &Settings) -> Result<Accounts, SetupError> {
    let store: Arc<dyn Store> = match engine_on_disk(settings) {
        None => Arc::new(MemoryStore::new()),
        Some(engine) => store::open(engine, &settings.store.path, settings.store.cache_mib)?,
    };
    let passwords = Passwords::new(settings.limits.password_checks);
    let accounts = Accounts::open(store, &settings.store.pepper_file, passwords)?;
    let webhooks = settings.events.webhooks.keys().cloned();
    let accounts = accounts.with_webhooks(webhooks, settings.events.webhooks_waiting)?;
    Ok(accounts
        .with_hmac_key(settings.store.hmac_key_file.as_deref())?
        .with_keys_per_user(settings.limits.keys_per_user)
        .with_audit_entries(settings.audit.entries)
        .with_failures(settings.limits.failures.clone())
        .with_denials(settings.audit.denials))
}

/// Creates empty accounts in memory, like those of a new store, for a dry run. The pepper is the
/// one of the pepper file. If the file does not exist, the pepper is random and is not stored.
pub fn in_memory(settings: &Settings) -> Result<Accounts, SetupError> {
    let entropy = Entropy::system();
    let pepper = match read_pepper(&settings.store.pepper_file) {
        Err(PepperError::Missing(_)) => Pepper::from_bytes(entropy.bytes()),
        read => read?,
    };
    let store = Arc::new(MemoryStore::new());
    let accounts = Accounts::with(store, pepper, Passwords::new(1), Clock::system(), entropy)?;
    Ok(accounts.with_keys_per_user(settings.limits.keys_per_user))
}

/// Opens an existing store. `None` means that another process has it open. This function never
/// creates a store: a mistyped path would give a new and empty store without any user.
///
/// # Errors
/// There is no store, or it cannot be opened.
pub fn open_existing(settings: &Settings) -> Result<Option<Accounts>, CliError> {
    let unreachable = |text: String| CliError::new(Exit::Unreachable, text);
    if settings.store.engine == Engine::Memory {
        let text = "no server runs. With store.engine = \"memory\" the records exist only while a server runs: run keyward serve";
        return Err(unreachable(text.into()));
    }
    let path = &settings.store.path;
    if !store_exists(path) {
        let path = path.display();
        let text = format!("there is no store at {path}: run keyward init or keyward serve first");
        return Err(unreachable(text));
    }
    match open(settings) {
        Ok(accounts) => Ok(Some(accounts)),
        Err(SetupError::Store(StoreError::Locked { .. })) => Ok(None),
        Err(problem) => Err(unreachable(problem.to_string())),
    }
}
