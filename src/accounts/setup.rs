//! Opening the accounts of a store, and the first start on an empty one.

use std::{path::Path, sync::Arc};

use serde_json::json;

use super::{
    AUDIT_ENTRIES, AccountError, Accounts, Inner, KEYS_PER_USER, NewKey, Passwords, create_pepper,
    events::outbox::Outbox,
    keys::{put_new_key, quota::Turns},
    passwords::pepper::PepperError,
    read_pepper,
    users::{cache::Recent, new_uuid, uid_key},
};
use crate::{
    directory::Directory,
    limits::{Counters, DenialLimits, FailureLimits},
    model::{
        ADMINISTRATOR, ANONYMOUS, AUTHENTICATED, Act, Actor, Application, Clock, Digest, Entropy,
        Pepper, Resource, Role, Secret, Timestamp, User, fold,
    },
    scripting::Scripts,
    store::{Batch, CommitError, State, Store, StoreError, Table, encode},
};

/// The record in `meta` that tells one pepper from another.
pub(super) const PEPPER: &[u8] = b"pepper";

/// What the first start made. The key's text is nowhere else.
#[derive(Debug)]
pub struct FirstStart {
    /// The administrator's name.
    pub username: String,
    /// The administrator's key.
    pub key: Secret,
    /// The default application's id.
    pub application: String,
}

/// Why the accounts could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pepper.
    #[error(transparent)]
    Pepper(#[from] PepperError),
    /// The first records.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Accounts {
    /// Opens the accounts of a store whose pepper lies in a file. An empty store gets a new pepper, unless the file is there already.
    pub fn open(
        store: Arc<dyn Store>,
        pepper_file: &Path,
        passwords: Passwords,
    ) -> Result<Self, SetupError> {
        let entropy = Entropy::system();
        let known: Option<Digest> = match store.get(Table::Meta, PEPPER)? {
            Some(stored) => Some(stored.read(Table::Meta, PEPPER)?),
            None => None,
        };
        let pepper = match (read_pepper(pepper_file), known) {
            (Ok(pepper), Some(known)) if pepper.fingerprint() != known => {
                return Err(PepperError::Wrong(pepper_file.to_owned()).into());
            }
            (Err(PepperError::Missing(_)), None) => create_pepper(pepper_file, &entropy)?,
            (read, _) => read?,
        };
        Ok(Self::with(store, pepper, passwords, Clock::system(), entropy)?)
    }

    /// The accounts of a store, with everything handed in.
    pub fn with(
        store: Arc<dyn Store>,
        pepper: Pepper,
        passwords: Passwords,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, StoreError> {
        let directory = Directory::open(&*store)?;
        let ledger = Counters::new(clock.clone(), FailureLimits::none(), DenialLimits::none());
        Ok(Self(Arc::new(Inner {
            store,
            directory,
            pepper,
            passwords,
            clock,
            entropy,
            recent: Arc::new(Recent::default()),
            scripts: Arc::default(),
            no_scripts: Scripts::none(),
            late: None,
            outbox: Arc::new(Outbox::none()),
            event_failures: Arc::default(),
            keys_per_user: KEYS_PER_USER,
            turns: Turns::default(),
            audit_entries: AUDIT_ENTRIES,
            ledger,
            writing_usage: Arc::default(),
            writing_denials: Arc::default(),
        })))
    }

    /// Fills an empty store with what every installation has: the three roles, the default application, the user entity, and the user
    /// `admin` with a key. On a store that is in use: nothing.
    pub async fn first_start(&self) -> Result<Option<FirstStart>, AccountError> {
        if self.is_filled()? {
            return Ok(None);
        }
        let application =
            Application { is_default: true, ..Application::api_key("default", "Default") };
        let admin = self.first_user();
        let new_key = NewKey { label: "first key".into(), ..NewKey::default() };
        let (key, text) = self.draft_key(admin.uid, &new_key);
        let resource = Resource::entity_user();

        let mut batch = Batch::new();
        batch.expect(Table::Meta, PEPPER, State::Missing);
        batch.put(Table::Meta, PEPPER, encode(&self.0.pepper.fingerprint()));
        for role in shipped_roles() {
            batch.put(Table::Roles, role.id.clone(), encode(&role));
        }
        batch.put(Table::Applications, application.id.clone(), encode(&application));
        batch.put(Table::Resources, resource.id.clone(), encode(&resource));
        // A store that was filled in another way has its administrators already.
        batch.expect(Table::Users, uid_key(admin.uid), State::Missing);
        batch.put(Table::Users, uid_key(admin.uid), encode(&admin));
        batch.put(Table::Names, fold(&admin.name), encode(&admin.uid));
        put_new_key(&mut batch, &key);
        let known = json!({ "user": admin.name, "key": key.id });
        let act = Act::other("store.first-start", "store", known);
        match self.acting(Actor::Program).commit(batch, act).await {
            Ok(_) => Ok(Some(FirstStart {
                username: admin.name,
                key: text,
                application: application.id,
            })),
            // Another process was faster, or there are users.
            Err(CommitError::Conflict(_)) => Ok(None),
            Err(CommitError::Store(problem)) => Err(problem.into()),
        }
    }

    /// Whether the store was ever filled.
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
