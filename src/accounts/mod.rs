//! What people do with records: create users; issue and revoke keys; keep roles, applications and resources.
//!
//! One code path for the admin API, the command line and the user entity: each rule about records stands here once.

mod apply;
mod audit;
mod backup;
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
    Applied, Apply, Difference, Done, MOST_CHANGES, Others, State, StatedKey, StatedPassword,
    StatedUser, VERSION as STATE_VERSION,
};
pub use audit::{Audited, Excerpt, Order};
pub use backup::{RestoreError, Restored, check_backup, restore};
pub use error::AccountError;
pub use events::LoadScripts;
pub use events::outbox::PendingWebhook;
pub use import::keys::{Import, ImportDigest, ImportRow, Imported, Strangers};
pub use import::users::{ImportUsers, ImportedUsers, UserRow};
pub use keys::bulk::{Bulk, BulkPart, RunId, Skipped, Whom};
pub use keys::rotate::{Lifetime, Rotate, Rotated};
pub use keys::{Issued, NewKey};
pub use operator::Operator;
pub use passwords::digest_formats::Format;
pub use passwords::pepper::{PepperError, create_pepper, read_pepper};
pub use passwords::{Busy, Passwords};
pub use records::Record;
pub use setup::{FirstStart, SetupError};
pub use users::cache::ReadUser;
pub use users::{NewUser, password_problem};
pub use writer::Writer;

use crate::{
    directory::Directory,
    limits::{Counters, DenialLimits, FailureLimits},
    model::{Clock, Entropy, Pepper},
    scripting::Scripts,
    store::{CommitError, Sequence, Store},
};

/// The records and the means to change them. A cheap handle.
#[derive(Clone)]
pub struct Accounts(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    store: Arc<dyn Store>,
    directory: Arc<Directory>,
    pepper: Pepper,
    passwords: Passwords,
    clock: Clock,
    entropy: Entropy,
    recent: Arc<users::cache::Recent>,
    scripts: Arc<OnceLock<Scripts>>,
    no_scripts: Scripts,
    /// What loads the scripts when they are needed first, where they are not loaded at the start.
    late: Option<LoadScripts>,
    outbox: Arc<events::outbox::Outbox>,
    event_failures: Arc<std::sync::atomic::AtomicU64>,
    keys_per_user: usize,
    turns: keys::quota::Turns,
    audit_entries: u64,
    ledger: Counters,
    writing_usage: Arc<tokio::sync::Mutex<()>>,
    writing_denials: Arc<tokio::sync::Mutex<()>>,
}

/// A record with its revision: the sequence of the commit that last wrote it.
#[derive(Debug, Clone)]
pub struct Versioned<T> {
    /// Changes with every write.
    pub revision: Sequence,
    /// The record.
    pub record: T,
}

/// A part of a list.
#[derive(Debug, Clone)]
pub struct Page<T> {
    /// The records, in the order of their ids.
    pub items: Vec<Versioned<T>>,
    /// Whether there are more.
    pub has_more: bool,
}

/// How often a change is tried again when somebody else changed the same record in between.
const TRIES: usize = 16;

/// The keys that a user may have when nobody says otherwise.
const KEYS_PER_USER: usize = 100;
/// The entries of the audit trail when nobody says otherwise.
const AUDIT_ENTRIES: u64 = 100_000;

impl Accounts {
    /// The same accounts, in which a user has so many keys in force at most.
    pub fn with_keys_per_user(self, most: usize) -> Self {
        Self(Arc::new(Inner { keys_per_user: most, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same accounts, with an audit trail of so many entries at most.
    pub fn with_audit_entries(self, most: u64) -> Self {
        Self(Arc::new(Inner { audit_entries: most, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same accounts, with flood control.
    pub fn with_failures(self, limits: FailureLimits) -> Self {
        let (_, denials) = self.0.ledger.limits();
        self.with_ledger(limits, denials)
    }

    /// The same accounts, whose audit trail is told of denials. They are written by [`Accounts::keep_denials`].
    pub fn with_denials(self, limits: DenialLimits) -> Self {
        let (failures, _) = self.0.ledger.limits();
        self.with_ledger(failures, limits)
    }

    fn with_ledger(self, failures: FailureLimits, denials: DenialLimits) -> Self {
        let ledger = Counters::new(self.0.clock.clone(), failures, denials);
        Self(Arc::new(Inner { ledger, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// What is counted of requests.
    pub fn ledger(&self) -> &Counters {
        &self.0.ledger
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

    /// Where random bytes come from.
    pub fn entropy(&self) -> &Entropy {
        &self.0.entropy
    }

    /// The scripts; none until they are [loaded](Self::load_scripts).
    pub fn scripts(&self) -> &Scripts {
        self.0.scripts.get().unwrap_or(&self.0.no_scripts)
    }

    /// Why the store has stopped writing, if it has.
    pub fn fault(&self) -> Option<String> {
        self.0.store.fault()
    }

    fn store(&self) -> &dyn Store {
        &*self.0.store
    }
}

/// Tells a lost race, which is tried again, from everything else.
fn is_race(problem: &CommitError) -> bool {
    matches!(problem, CommitError::Conflict(_))
}
