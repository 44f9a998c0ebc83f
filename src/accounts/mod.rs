//! Creating and changing users, keys, roles, applications and resources.
//!
//! The admin API, the command line and the user entity share this code, so that each rule about
//! records is written once.

mod apply;
mod audit;
mod backup;
mod clock;
mod denials;
mod error;
mod events;
mod import;
mod keys;
mod operator;
mod passwords;
mod records;
mod rules;
mod script_host;
mod setup;
#[cfg(test)]
mod tests;
mod usage;
mod users;
mod writer;

use std::sync::{Arc, OnceLock};

pub use apply::{
    Applied, ApplyOptions, Difference, DocumentKey, DocumentPassword, DocumentUser, MOST_CHANGES,
    Operation, StateDocument, Unlisted, VERSION as STATE_VERSION,
};
pub use audit::{AuditOrder, AuditPage, NumberedEntry};
pub use backup::{RestoreError, Restored, check_backup, restore};
pub use error::AccountError;
pub use events::LoadScripts;
pub use events::outbox::PendingWebhook;
pub use import::keys::{ImportDigest, ImportedKeys, KeyImport, KeyRow, UnknownUsers};
pub use import::users::{ImportedUsers, UserImport, UserRow};
pub use keys::bulk::{BulkIssue, BulkPart, BulkRecipients, RunId, Skipped};
pub use keys::rotate::{Lifetime, RotateOptions, Rotated};
pub use keys::{Issued, NewKey};
pub use operator::Operator;
pub use passwords::digest_formats::DigestFormat;
pub use passwords::pepper::{PepperError, create_pepper, read_pepper};
pub use passwords::{Busy, Passwords};
pub use records::PolicyRecord;
pub use setup::{FirstStart, SetupError};
pub use users::cache::ReadUser;
pub use users::{NewUser, password_problem};
pub use writer::{AdminWriter, OperatorWriter, Writer};

use crate::{
    directory::Directory,
    limits::{Counters, DenialLimits, FailureLimits},
    model::{Clock, Entropy, Pepper},
    scripting::Scripts,
    store::{Sequence, Store},
};

/// The records, and the means to read them. [`Writer`] changes them. A cheap handle.
#[derive(Clone)]
pub struct Accounts(Arc<AccountsInner>);

#[derive(Clone)]
struct AccountsInner {
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    pepper: Pepper,
    passwords: Passwords,
    clock: Clock,
    /// The times of audit entries up to this number are ignored ([`clock::NewestTime`]).
    ignored_entries: Arc<std::sync::atomic::AtomicU64>,
    entropy: Entropy,
    user_cache: Arc<users::cache::UserCache>,
    scripts: Arc<OnceLock<Scripts>>,
    no_scripts: Scripts,
    /// Loads the scripts before their first use. `None` means that they are loaded at the start.
    lazy_scripts: Option<LoadScripts>,
    webhooks: Arc<events::outbox::WebhookQueue>,
    event_failures: Arc<std::sync::atomic::AtomicU64>,
    keys_per_user: usize,
    user_locks: keys::quota::PerUserLock,
    /// Commits share it. A change that met conflicts takes it alone, from reading to commit.
    commit_turn: Arc<tokio::sync::RwLock<()>>,
    audit_entries: u64,
    counters: Counters,
    usage_lock: Arc<tokio::sync::Mutex<()>>,
    denials_lock: Arc<tokio::sync::Mutex<()>>,
}

/// A record with its revision: the sequence of the commit that last wrote it.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// The revision, which changes with every write.
    pub revision: Sequence,
    /// The record.
    pub record: T,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The records, sorted by id.
    pub items: Vec<Versioned<T>>,
    /// Whether more records follow.
    pub has_more: bool,
}

/// The default limit of keys in force for each user.
const KEYS_PER_USER: usize = 100;
/// The default limit of entries in the audit trail.
const AUDIT_ENTRIES: u64 = 100_000;

impl Accounts {
    /// Sets the most keys in force that a user may have.
    pub fn with_keys_per_user(self, most: usize) -> Self {
        Self(Arc::new(AccountsInner { keys_per_user: most, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Sets the most entries that the audit trail keeps.
    pub fn with_audit_entries(self, most: u64) -> Self {
        Self(Arc::new(AccountsInner { audit_entries: most, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Sets the failure limits.
    pub fn with_failures(self, limits: FailureLimits) -> Self {
        let (_, denials) = self.0.counters.limits();
        self.with_counters(limits, denials)
    }

    /// Sets which denials the audit trail records.
    /// [`Accounts::write_denials_periodically`] writes them.
    pub fn with_denials(self, limits: DenialLimits) -> Self {
        let (failures, _) = self.0.counters.limits();
        self.with_counters(failures, limits)
    }

    fn with_counters(self, failures: FailureLimits, denials: DenialLimits) -> Self {
        let counters = Counters::new(self.0.clock.clone(), failures, denials);
        Self(Arc::new(AccountsInner { counters, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Counts of key use, failures and denials.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The store's directory.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.0.directory
    }

    /// The password checker, which is shared with the pipeline.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// The server's pepper.
    pub fn pepper(&self) -> &Pepper {
        &self.0.pepper
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The source of random bytes.
    pub fn entropy(&self) -> &Entropy {
        &self.0.entropy
    }

    /// The scripts. The set is empty until they are [loaded](Self::load_scripts).
    pub fn scripts(&self) -> &Scripts {
        self.0.scripts.get().unwrap_or(&self.0.no_scripts)
    }

    /// The reason why the store has stopped writing. `None` means that it can write.
    pub fn fault(&self) -> Option<String> {
        self.0.store.fault()
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }
}
