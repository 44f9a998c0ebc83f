//! Opens the store that the configuration names, and the accounts in it.

use std::sync::Arc;

use super::refusals;
use crate::{
    accounts::{Accounts, Passwords, PepperError, SetupError, read_pepper},
    cli::{CliError, Exit},
    config::{Engine, Settings},
    model::{Clock, Entropy, Pepper},
    store::{self, EngineKind, MemoryStore, Store, StoreError, store_exists},
};

/// Whether a new store may be created beside a pepper file that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewStore {
    /// No: where the pepper is there and the store is not, a disk is probably not mounted.
    OnlyWithNewPepper,
    /// Yes: the operator has asked for it.
    WithExistingPepper,
}

/// Why the accounts could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the store open.
    #[error(transparent)]
    Locked(StoreError),
    /// Any other reason.
    #[error(transparent)]
    Refused(#[from] CliError),
}

impl From<OpenError> for CliError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Locked(problem) => Self::new(Exit::Unreachable, problem.to_string()),
            OpenError::Refused(error) => error,
        }
    }
}

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
pub fn open(settings: &Settings, new: NewStore) -> Result<Accounts, OpenError> {
    if new == NewStore::OnlyWithNewPepper {
        refusals::check_store_is_there(settings)?;
    }
    open_unchecked(settings).map_err(|problem| match problem {
        SetupError::Store(locked @ StoreError::Locked { .. }) => OpenError::Locked(locked),
        other => refusals::explained(other, settings).into(),
    })
}

fn open_unchecked(settings: &Settings) -> Result<Accounts, SetupError> {
    let store: Arc<dyn Store> = match engine_on_disk(settings) {
        None => Arc::new(MemoryStore::new()),
        Some(engine) => store::open(engine, &settings.store.path, settings.store.cache_mib)?,
    };
    let passwords = Passwords::new(settings.limits.password_checks);
    // `open` has looked at the folder itself, so an empty store here is one of an interrupted first
    // start.
    let accounts = Accounts::open_new(store, &settings.store.pepper_file, passwords)?;
    let webhooks = settings.events.webhooks.keys().cloned();
    let accounts = accounts.with_webhooks(webhooks, settings.events.webhooks_waiting)?;
    Ok(accounts
        .with_hmac_key(settings.store.hmac_key_file.as_deref())?
        .with_keys_per_user(settings.limits.keys_per_user)
        .with_audit_entries(settings.audit.entries)
        .with_failures(settings.limits.failures.clone())
        .with_buffers(settings.limits.buffers)
        .with_denials(settings.audit.denials))
}

/// Creates an [`Accounts`] without users in memory, for a dry run. Its state is the state of a new
/// store. The pepper comes from the pepper file. If that file does not exist, the pepper is random
/// and is not stored.
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

/// Opens an existing store. `None` means that another process has the store open. This function
/// never creates a store: otherwise a mistyped path would create an empty store without users.
///
/// # Errors
/// The store does not exist or cannot be opened.
pub fn open_existing(settings: &Settings) -> Result<Option<Accounts>, CliError> {
    let unreachable = |text: String| CliError::new(Exit::Unreachable, text);
    if settings.store.engine == Engine::Memory {
        let text = "no server runs. With store.engine = \"memory\" the records exist only while a server runs: run keyward serve";
        return Err(unreachable(text.into()));
    }
    refusals::check_store_is_there(settings)?;
    let path = &settings.store.path;
    if !store_exists(path) {
        if let Some(denied) = refusals::denied(path) {
            return Err(unreachable(denied));
        }
        return Err(unreachable(refusals::no_store(settings)));
    }
    match open(settings, NewStore::OnlyWithNewPepper) {
        Ok(accounts) => Ok(Some(accounts)),
        Err(OpenError::Locked(_)) => Ok(None),
        Err(OpenError::Refused(error)) => Err(error),
    }
}
