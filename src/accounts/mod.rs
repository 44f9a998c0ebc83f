//! Creating and changing users, keys, roles, applications and resources.
//!
//! The admin API, the command line and the user entity share this code, so that each rule about
//! records is written once.

mod advice;
mod apply;
mod audit;
mod authority;
mod backup;
mod bulk;
mod clock;
mod denials;
mod error;
mod events;
mod guards;
mod import;
mod keys;
mod operator;
mod passwords;
mod records;
mod rules;
mod script_host;
#[cfg(feature = "server")]
mod search;
mod setup;
#[cfg(test)]
mod tests;
mod usage;
mod users;
mod verify;
mod writer;

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

pub use apply::{
    Applied, ApplyOptions, Difference, DocumentFields, DocumentKey, DocumentPassword, DocumentUser,
    LeftOut, MOST_CHANGES, Operation, PatchBases, StateDocument, Unlisted,
    VERSION as STATE_VERSION, is_cut_off,
};
use audit::record_list;
pub use audit::{AuditOrder, AuditPage, NumberedEntry, TrailStatus};
pub use backup::{
    BackupSchedule, LaterChanges, RestoreError, Restored, Revival, WrittenBackup, check_backup,
    check_backup_completeness, restore,
};
pub use bulk::{
    ChangeMany, KeySelection, ManyUsers, PartOfMany, RevokeMany, SkippedRecords, UserEdit,
    UserSelection,
};
pub use error::AccountError;
pub use events::LoadScripts;
pub use events::outbox::PendingWebhook;
pub use guards::Guards;
#[cfg(feature = "server")]
pub(crate) use import::clear_text::{LikelyDigest, likely_digest};
pub use import::keys::{ImportDigest, ImportedKeys, KeyImport, KeyRow, UnknownUsers};
pub use import::profile::{ExistingUsers, MovedUser, UserProfile};
pub use import::users::{ImportedUsers, UserImport, UserRow};
pub use keys::adopt::AdoptedBounds;
pub use keys::bulk::{BulkIssue, BulkPart, BulkRecipients, RunId, Skipped};
pub use keys::find::{DeletedKey, FoundKey, FoundRecord};
pub use keys::remove::{KeyPurge, PurgedKey, PurgedKeys};
pub use keys::rotate::{Lifetime, RotateOptions, Rotated};
pub use keys::{Issued, NewKey};
pub use operator::Operator;
pub use passwords::digest_formats::DigestFormat;
pub use passwords::pepper::{PepperError, create_pepper, read_pepper};
pub use passwords::{Busy, CheckTurn, Passwords};
pub use records::PolicyRecord;
#[cfg(feature = "server")]
pub(crate) use search::{
    AuditFilter, Filter, Position, Rows, Search, Sort, SortKey, names::UserNames,
    trail::TextPattern,
};
pub use setup::{FirstStart, SetupError};
pub use users::cache::ReadUser;
pub use users::{NewUser, password_problem, short_password};
pub use writer::{AdminReader, AdminWriter, OperatorWriter, Writer};

use crate::{
    directory::Directory,
    limits::{BufferLimits, Buffers, Counters, DenialLimits, FailureLimits},
    model::{Clock, Entropy, Pepper},
    scripting::Scripts,
    store::{Sequence, Store},
};

/// A cheap handle that reads the records. A [`Writer`] changes the records.
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
    /// Loads the scripts when the first key or user is created. `None` means that the server loads
    /// the scripts at its start.
    lazy_scripts: Option<LoadScripts>,
    webhooks: Arc<events::outbox::WebhookQueue>,
    event_failures: Arc<std::sync::atomic::AtomicU64>,
    keys_per_user: usize,
    user_locks: keys::quota::PerUserLock,
    /// A commit holds the read lock. A change that is retried after conflicts holds the write lock
    /// from its read to its commit.
    commit_turn: Arc<tokio::sync::RwLock<()>>,
    audit_entries: u64,
    /// The result of the last verification of the audit trail.
    trail_status: Arc<Mutex<TrailStatus>>,
    counters: Counters,
    buffers: Buffers,
    usage_lock: Arc<tokio::sync::Mutex<()>>,
    denials_lock: Arc<tokio::sync::Mutex<()>>,
    #[cfg(feature = "server")]
    search_turns: search::SearchTurns,
    backup_status: Arc<backup::BackupStatus>,
    /// The addresses of the server's listeners. Unset means that there is no server.
    own_listeners: Arc<OnceLock<Vec<std::net::SocketAddr>>>,
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

/// The default maximum number of keys in force for each user.
const KEYS_PER_USER: usize = 100;
/// The default maximum number of entries in the audit trail.
const AUDIT_ENTRIES: u64 = 100_000;

impl Accounts {
    /// Sets the maximum number of keys in force for each user.
    pub fn with_keys_per_user(self, limit: usize) -> Self {
        Self(Arc::new(AccountsInner { keys_per_user: limit, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Sets the maximum number of entries that the audit trail keeps.
    pub fn with_audit_entries(self, limit: u64) -> Self {
        Self(Arc::new(AccountsInner { audit_entries: limit, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Sets the limits of failed authentications.
    pub fn with_failures(self, limits: FailureLimits) -> Self {
        let (_, denials) = self.0.counters.limits();
        self.with_counters(limits, denials)
    }

    /// Sets which denials the audit trail records.
    /// [`Accounts::write_denials_periodically`] writes these denials.
    pub fn with_denials(self, limits: DenialLimits) -> Self {
        let (failures, _) = self.0.counters.limits();
        self.with_counters(failures, limits)
    }

    fn with_counters(self, failures: FailureLimits, denials: DenialLimits) -> Self {
        let counters = Counters::new(self.0.clock.clone(), failures, denials);
        Self(Arc::new(AccountsInner { counters, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Sets how many bytes of request bodies are in memory at one time.
    pub fn with_buffers(self, limits: BufferLimits) -> Self {
        let buffers = Buffers::new(limits);
        Self(Arc::new(AccountsInner { buffers, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The budget of the request bodies that are in memory.
    pub fn buffers(&self) -> &Buffers {
        &self.0.buffers
    }

    /// Counts of key use, failures and denials.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// The Directory: the copy in memory of the records that decisions depend on.
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

    /// The scripts. The set is empty until [`Accounts::load_scripts`] has loaded them.
    pub fn scripts(&self) -> &Scripts {
        self.0.scripts.get().unwrap_or(&self.0.no_scripts)
    }

    /// The names of the attributes that an authentication script takes for a credential.
    pub(crate) fn credential_attributes(&self) -> std::collections::BTreeSet<String> {
        self.scripts().current().credential_attributes().clone()
    }

    /// The reason why the store has stopped writing. `None` means that the store can write.
    pub fn fault(&self) -> Option<String> {
        self.0.store.fault()
    }

    /// The number of commits since the store was made. `None` means that the store cannot be read.
    pub fn commits(&self) -> Option<u64> {
        self.0.store.snapshot().ok().map(|snapshot| snapshot.sequence())
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }
}
