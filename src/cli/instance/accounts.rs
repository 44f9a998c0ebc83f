//! Opening the accounts that the configuration names.

use std::sync::Arc;

use crate::{
    accounts::{Accounts, Passwords, PepperError, SetupError, read_pepper},
    cli::{Exit, CliError},
    config::{AuditSettings, Denials, Engine, Settings},
    limits::{DenialLimits, FailureLimits, DenialLogging},
    model::{Clock, Entropy, Pepper},
    store::{MemoryStore, SledStore, Store, StoreError},
};

/// Opens the store and what stands on it, or makes a new one. An empty store stays empty until [`Accounts::first_start`].
pub fn accounts(settings: &Settings) -> Result<Accounts, SetupError> {
    let store: Arc<dyn Store> = match settings.store.engine {
        Engine::Memory => Arc::new(MemoryStore::new()),
        Engine::Sled => Arc::new(SledStore::open(&settings.store.path, settings.store.cache_mib)?),
    };
    let passwords = Passwords::new(settings.limits.password_checks);
    let accounts = Accounts::open(store, &settings.store.pepper_file, passwords)?;
    let webhooks = settings.events.webhooks.keys().cloned();
    let accounts = accounts.with_webhooks(webhooks, settings.events.webhooks_waiting)?;
    Ok(accounts
        .with_hmac_key(settings.store.hmac_key_file.as_deref())?
        .with_keys_per_user(settings.limits.keys_per_user)
        .with_audit_entries(settings.audit.entries)
        .with_failures(failures(settings))
        .with_denials(denials(&settings.audit)))
}

fn denials(settings: &AuditSettings) -> DenialLimits {
    let logging = match settings.denials {
        Denials::None => DenialLogging::None,
        Denials::Sampled(each) => DenialLogging::Sampled(each),
        Denials::All => DenialLogging::All,
    };
    DenialLimits { logging, per_day: settings.denial_entries }
}

/// Accounts in memory, as a new store would have them: with the pepper that is there, or with one that nobody keeps.
pub fn rehearsal(settings: &Settings) -> Result<Accounts, SetupError> {
    let entropy = Entropy::system();
    let pepper = match read_pepper(&settings.store.pepper_file) {
        Err(PepperError::Missing(_)) => Pepper::from_bytes(entropy.bytes()),
        read => read?,
    };
    let store = Arc::new(MemoryStore::new());
    let accounts = Accounts::with(store, pepper, Passwords::new(1), Clock::system(), entropy)?;
    Ok(accounts.with_keys_per_user(settings.limits.keys_per_user))
}

fn failures(settings: &Settings) -> FailureLimits {
    let given = settings.limits.failures.clone();
    FailureLimits {
        seconds: given.seconds,
        passwords: given.passwords,
        passwords_per_address: given.passwords_per_address,
        per_address: given.per_address,
        exempt: given.exempt,
        entries: given.entries,
    }
}

/// Opens a store that is there; none where another process has it open. Makes nothing: a path with a slip of the pen in it
/// would be a new and empty store, in which every user is missing.
pub fn existing(settings: &Settings) -> Result<Option<Accounts>, CliError> {
    let unreachable = |text: String| CliError::new(Exit::Unreachable, text);
    if settings.store.engine == Engine::Memory {
        let text = "no server runs, and with store.engine = \"memory\" there are records only while one does: run keyward serve";
        return Err(unreachable(text.into()));
    }
    let path = &settings.store.path;
    if !SledStore::exists(path) {
        let path = path.display();
        let text = format!("there is no store at {path}: run keyward init or keyward serve first");
        return Err(unreachable(text));
    }
    match accounts(settings) {
        Ok(accounts) => Ok(Some(accounts)),
        Err(SetupError::Store(StoreError::Locked { .. })) => Ok(None),
        Err(problem) => Err(unreachable(problem.to_string())),
    }
}
