//! Opening the accounts of a store, and filling an empty store at the first start.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::json;

use super::{
    AUDIT_ENTRIES, AccountError, Accounts, AccountsInner, KEYS_PER_USER, NewKey, Passwords,
    clock::NewestTime,
    create_pepper,
    events::outbox::WebhookQueue,
    keys::{put_new_key, quota::PerUserLock},
    passwords::pepper::PepperError,
    read_pepper,
    users::{
        cache::UserCache,
        names::{CURRENT_FORM, NAME_FORM},
        new_uuid,
    },
};
use crate::{
    directory::Directory,
    limits::{Buffers, Counters, DenialLimits, FailureLimits},
    model::{
        ADMINISTRATOR, ANONYMOUS, AUTHENTICATED, Act, Actor, Application, Clock, Digest, Entropy,
        Pepper, Resource, Role, Secret, Timestamp, User, fold,
    },
    scripting::Scripts,
    store::{Batch, CommitError, Expected, Store, StoreError, Table, encode, table},
};

/// The record in `meta` with the fingerprint of the pepper.
pub(super) const PEPPER: &[u8] = table::PEPPER;

/// The records that the first start created. The key's text is not stored anywhere.
#[derive(Debug)]
pub struct FirstStart {
    /// The administrator's name.
    pub username: String,
    /// The administrator's key.
    pub key: Secret,
    /// The default application's id.
    pub application: String,
}

/// The reason why the accounts could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pepper file is missing or invalid.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The first records could not be written.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The pepper file exists, but nothing was ever written to the store.
    #[error(
        "the store is new and empty, but its pepper file {} exists already. This looks like a disk that is not mounted or a mistyped path: mount the disk, correct the path, or restore the newest backup. To begin anew with this pepper, open the store with Accounts::open_new", .pepper_file.display()
    )]
    StoreLost {
        /// The pepper file.
        pepper_file: PathBuf,
    },
}

impl Accounts {
    /// Opens the accounts of a store whose pepper is in a file. For an empty store, a missing
    /// pepper file is created.
    ///
    /// # Errors
    /// [`SetupError::StoreLost`] if the pepper file exists but nothing was ever written to the
    /// store: a folder in which a disk is not mounted looks like that. [`PepperError::Missing`] in
    /// the opposite case.
    pub fn open(
        store: Arc<dyn Store>,
        pepper_file: &Path,
        passwords: Passwords,
    ) -> Result<Self, SetupError> {
        let is_lost =
            store.keeps_records() && store.snapshot()?.sequence() == 0 && pepper_file.exists();
        if is_lost {
            return Err(SetupError::StoreLost { pepper_file: pepper_file.to_owned() });
        }
        Self::open_new(store, pepper_file, passwords)
    }

    /// Opens the accounts of a store like [`Accounts::open`], but also begins anew with an empty
    /// store and the pepper of an existing file.
    ///
    /// # Errors
    /// Those of [`Accounts::open`], except [`SetupError::StoreLost`].
    pub fn open_new(
        store: Arc<dyn Store>,
        pepper_file: &Path,
        passwords: Passwords,
    ) -> Result<Self, SetupError> {
        let entropy = Entropy::system();
        let expected: Option<Digest> = match store.get(Table::Meta, PEPPER)? {
            Some(stored) => Some(stored.read(Table::Meta, PEPPER)?),
            None => None,
        };
        let pepper = match (read_pepper(pepper_file), expected) {
            (Ok(pepper), Some(expected)) if pepper.fingerprint() != expected => {
                return Err(PepperError::Wrong(pepper_file.to_owned()).into());
            }
            (Err(PepperError::Missing(_)), None) => create_pepper(pepper_file, &entropy)?,
            (read, _) => read?,
        };
        Ok(Self::with(store, pepper, passwords, Clock::system(), entropy)?)
    }

    /// The accounts of a store, with explicit dependencies.
    pub fn with(
        store: Arc<dyn Store>,
        pepper: Pepper,
        passwords: Passwords,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, StoreError> {
        let directory = Directory::open(&*store)?;
        for user in directory.colliding_users() {
            let (uid, name) = (user.uid, user.name.as_str());
            tracing::warn!(
                uid,
                name,
                "the name looks like another user's: this user is found by the exact spelling only; \
                 rename one of the two"
            );
        }
        let newest = NewestTime::read(&*store, &pepper.audit_key())?;
        clock.raise_to(newest.time);
        let counters = Counters::new(clock.clone(), FailureLimits::none(), DenialLimits::none());
        Ok(Self(Arc::new(AccountsInner {
            store,
            directory,
            pepper,
            passwords,
            clock,
            ignored_entries: Arc::new(AtomicU64::new(newest.ignored_entries)),
            entropy,
            user_cache: Arc::new(UserCache::default()),
            scripts: Arc::default(),
            no_scripts: Scripts::none(),
            lazy_scripts: None,
            webhooks: Arc::new(WebhookQueue::none()),
            event_failures: Arc::default(),
            keys_per_user: KEYS_PER_USER,
            user_locks: PerUserLock::default(),
            commit_turn: Arc::default(),
            audit_entries: AUDIT_ENTRIES,
            trail_status: Arc::default(),
            counters,
            buffers: Buffers::default(),
            usage_lock: Arc::default(),
            denials_lock: Arc::default(),
            #[cfg(feature = "server")]
            search_turns: super::search::SearchTurns::default(),
            backup_status: Arc::default(),
            own_listeners: Arc::default(),
        })))
    }

    /// Fills an empty store with the records that every installation starts with: three roles, the
    /// default application, the user entity, and the user `admin` with a key. `None` means that the
    /// store already has records.
    pub async fn first_start(&self) -> Result<Option<FirstStart>, AccountError> {
        if self.is_filled()? {
            self.refresh_name_index().await?;
            return Ok(None);
        }
        let application =
            Application { is_default: true, ..Application::api_key("default", "Default") };
        let admin = self.first_user();
        let new_key = NewKey { label: "first key".into(), ..NewKey::default() };
        let (key, text) = self.draft_key(admin.uid, &new_key);
        let resource = Resource::entity_user();

        let mut batch = Batch::new();
        batch.expect(Table::Meta, PEPPER, Expected::Missing);
        batch.put(Table::Meta, PEPPER, encode(&self.0.pepper.fingerprint()));
        batch.put(Table::Meta, NAME_FORM, encode(&CURRENT_FORM));
        for role in shipped_roles() {
            batch.put(Table::Roles, role.id.clone(), encode(&role));
        }
        batch.put(Table::Applications, application.id.clone(), encode(&application));
        batch.put(Table::Resources, resource.id.clone(), encode(&resource));
        // A store with users already has its administrators.
        batch.expect(Table::Users, Vec::new(), Expected::Newest(0));
        batch.put(Table::Users, table::user(admin.uid), encode(&admin));
        batch.put(Table::Names, fold(&admin.name), encode(&admin.uid));
        put_new_key(&mut batch, &key);
        let details = json!({ "user": admin.name, "key": key.id });
        let act = Act::other("store.first-start", "store", details);
        match self.as_actor(Actor::Program).commit(batch, act, Vec::new()).await {
            Ok(_) => Ok(Some(FirstStart {
                username: admin.name,
                key: text,
                application: application.id,
            })),
            // Another process has filled the store first, or the store has users.
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(CommitError::Store(problem)) => Err(problem.into()),
        }
    }

    /// Whether [`Accounts::first_start`] has not filled the store yet.
    pub fn is_new(&self) -> Result<bool, StoreError> {
        Ok(!self.is_filled()?)
    }

    /// Whether the store was filled by a first start or a state file.
    pub(super) fn is_filled(&self) -> Result<bool, StoreError> {
        Ok(self.store().get(Table::Meta, PEPPER)?.is_some())
    }

    fn first_user(&self) -> User {
        let now = self.0.clock.now();
        User {
            uid: 1,
            uuid: new_uuid(self),
            name: "admin".into(),
            mail: None,
            init: None,
            status: true,
            roles: vec![ADMINISTRATOR.into()],
            password: None,
            created: now,
            changed: now,
            access: Timestamp(0),
            login: Timestamp(0),
            langcode: "en".into(),
            preferred_langcode: None,
            preferred_admin_langcode: None,
            timezone: None,
            attributes: std::collections::BTreeMap::new(),
            rate_limit: None,
            credits: None,
        }
    }
}

pub(super) fn shipped_roles() -> [Role; 3] {
    let role = |id: &str, label: &str, weight, is_admin| Role {
        id: id.into(),
        label: label.into(),
        weight,
        is_admin,
        permissions: std::collections::BTreeSet::new(),
    };
    [
        role(ANONYMOUS, "Anonymous user", 0, false),
        role(AUTHENTICATED, "Authenticated user", 1, false),
        role(ADMINISTRATOR, "Administrator", 2, true),
    ]
}
