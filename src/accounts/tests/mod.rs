//! Tests of the rules about records, on a store in memory with a fixed clock and seeded randomness.

mod audit;
mod authority;
mod bulk;
mod clock;
mod edits;
mod events;
mod import;
mod keys;
mod names;
mod races;
#[cfg(feature = "server")]
mod search;
mod start;
mod state;
mod users;

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

use super::*;
use crate::{
    model::{ADMINISTRATOR, Actor, Role, Timestamp},
    store::{
        Batch, CommitFuture, Lagged, MemoryStore, Snapshot, StoreError, Stored, Subscriber, Table,
        encode,
    },
};

const NOW: Timestamp = Timestamp(1_700_000_000);

/// Accounts on a new store, after the first start.
async fn accounts() -> Writer {
    let accounts = accounts_on(Arc::new(MemoryStore::new()));
    accounts.first_start().await.unwrap().unwrap();
    accounts
}

/// Accounts of this store. The actor of the writer is the program.
fn accounts_on(store: Arc<dyn Store>) -> Writer {
    let accounts = Accounts::with(
        store,
        Pepper::from_bytes([7; 32]),
        Passwords::new(1),
        Clock::fixed(NOW),
        Entropy::seeded(1),
    );
    accounts.unwrap().as_actor(Actor::Program)
}

/// Accounts with a second administrator (uid 2), and their store, which can run other work before
/// a commit.
async fn two_administrators() -> (Arc<InterruptedStore>, Writer) {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_admin("second")).await.unwrap();
    (store, accounts)
}

/// Accounts on the same store with another maximum number of keys for each user.
fn with_key_limit(accounts: &Writer, limit: usize) -> Writer {
    (**accounts).clone().with_keys_per_user(limit).as_actor(Actor::Program)
}

fn new_user(name: &str) -> NewUser {
    NewUser { name: name.into(), status: true, ..NewUser::default() }
}

fn new_admin(name: &str) -> NewUser {
    NewUser { roles: vec![ADMINISTRATOR.into()], ..new_user(name) }
}

fn role(id: &str, is_admin: bool) -> Role {
    let permissions = BTreeSet::new();
    Role { id: id.into(), label: id.into(), weight: 0, is_admin, permissions }
}

/// Blocks a user.
async fn block(accounts: &Writer, uid: u64) -> Result<(), AccountError> {
    let edit = |user: &mut crate::model::User| {
        user.status = false;
        Ok::<_, AccountError>(())
    };
    accounts.change_user(uid, None, edit).await.map(drop)
}

/// Replaces a user's roles.
async fn set_roles(accounts: &Writer, uid: u64, roles: &[&str]) -> Result<(), AccountError> {
    let edit = |user: &mut crate::model::User| {
        user.roles = roles.iter().map(|id| (*id).to_owned()).collect();
        Ok::<_, AccountError>(())
    };
    accounts.change_user(uid, None, edit).await.map(drop)
}

/// Sets whether users with a role are administrators.
async fn set_admin(accounts: &Writer, id: &str, is_admin: bool) -> Result<(), AccountError> {
    let edit = |role: &mut Role| {
        role.is_admin = is_admin;
        Ok::<_, AccountError>(())
    };
    accounts.change(id, None, edit).await.map(drop)
}

/// The message of a refused change. Panics if the change was not refused.
fn refusal<T: std::fmt::Debug>(result: Result<T, AccountError>) -> String {
    match result {
        Err(AccountError::Refused { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

/// The locations of the violations of a change. Panics if the change had no violations.
fn invalid<T: std::fmt::Debug>(result: Result<T, AccountError>) -> Vec<String> {
    match result {
        Err(AccountError::Invalid(found)) => {
            found.into_iter().map(|violation| violation.location).collect()
        }
        other => panic!("not invalid: {other:?}"),
    }
}

/// The work that an [`InterruptedStore`] runs just before a commit.
type Interruption = Box<dyn FnOnce() -> CommitFuture<'static> + Send>;

/// A store that runs other work between the reads of a change and its commit.
struct InterruptedStore {
    store: Arc<MemoryStore>,
    interruption: Mutex<Option<Interruption>>,
    /// The batches since [`InterruptedStore::record_commits`]. `None` means that it was not called.
    recorded: Mutex<Option<Vec<Batch>>>,
}

impl InterruptedStore {
    fn new() -> Arc<Self> {
        let (interruption, recorded) = (Mutex::default(), Mutex::default());
        Arc::new(Self { store: Arc::new(MemoryStore::new()), interruption, recorded })
    }

    /// Records the batches of all further commits.
    fn record_commits(&self) {
        *self.recorded.lock() = Some(Vec::new());
    }

    fn recorded_commits(&self) -> Vec<Batch> {
        self.recorded.lock().take().unwrap_or_default()
    }

    /// Runs `work` before the next commit. `work` gets another writer for the same records, whose
    /// commits are not interrupted.
    fn before_commit<W>(&self, work: impl FnOnce(Writer) -> W + Send + 'static)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let others = accounts_on(self.store.clone());
        *self.interruption.lock() = Some(Box::new(move || {
            let work = work(others);
            Box::pin(async move {
                work.await;
                Ok(0)
            })
        }));
    }
}

impl Store for InterruptedStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        self.store.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        self.store.scan(table, prefix, after, limit)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.store.snapshot()
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        let interruption = self.interruption.lock().take();
        self.recorded.lock().iter_mut().for_each(|recorded| recorded.push(batch.clone()));
        Box::pin(async move {
            if let Some(interruption) = interruption {
                interruption().await?;
            }
            self.store.commit(batch).await
        })
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.store.subscribe(after, subscriber)
    }

    fn fault(&self) -> Option<String> {
        self.store.fault()
    }
}
