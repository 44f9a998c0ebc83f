//! The rules about records, on a store in memory with a clock that stands still and randomness that repeats.

mod audit;
mod events;
mod import;
mod keys;
mod races;
mod start;
mod state;
mod users;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use super::*;
use crate::{
    model::{ADMINISTRATOR, Actor, Role, Timestamp},
    store::{
        Batch, CommitFuture, Lagged, MemoryStore, Snapshot, StoreError, Stored, Subscriber, Table,
        encode,
    },
};

const NOW: Timestamp = Timestamp(1_700_000_000);

/// Accounts after their first start.
async fn accounts() -> Writer {
    let accounts = on(Arc::new(MemoryStore::new()));
    accounts.first_start().await.unwrap().unwrap();
    accounts
}

fn on(store: Arc<dyn Store>) -> Writer {
    let accounts = Accounts::with(
        store,
        Pepper::from_bytes([7; 32]),
        Passwords::new(1),
        Clock::fixed(NOW),
        Entropy::seeded(1),
    );
    accounts.unwrap().acting(Actor::Program)
}

/// The same accounts, in which a user has so many keys at most.
fn with_keys(accounts: &Writer, most: usize) -> Writer {
    (**accounts).clone().with_keys_per_user(most).acting(Actor::Program)
}

fn named(name: &str) -> NewUser {
    NewUser { name: name.into(), status: true, ..NewUser::default() }
}

fn administrator(name: &str) -> NewUser {
    NewUser { roles: vec![ADMINISTRATOR.into()], ..named(name) }
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

/// Gives a user these roles and no other.
async fn give(accounts: &Writer, uid: u64, roles: &[&str]) -> Result<(), AccountError> {
    let edit = |user: &mut crate::model::User| {
        user.roles = roles.iter().map(|id| (*id).to_owned()).collect();
        Ok::<_, AccountError>(())
    };
    accounts.change_user(uid, None, edit).await.map(drop)
}

/// Makes a role an administrator's or not.
async fn set_admin(accounts: &Writer, id: &str, is_admin: bool) -> Result<(), AccountError> {
    let edit = |role: &mut Role| {
        role.is_admin = is_admin;
        Ok::<_, AccountError>(())
    };
    accounts.change(id, None, edit).await.map(drop)
}

/// What is said of a change that is refused.
fn refusal<T: std::fmt::Debug>(result: Result<T, AccountError>) -> String {
    match result {
        Err(AccountError::Refused { message, .. }) => message,
        other => panic!("not refused: {other:?}"),
    }
}

/// The fields that are said to be wrong.
fn invalid<T: std::fmt::Debug>(result: Result<T, AccountError>) -> Vec<String> {
    match result {
        Err(AccountError::Invalid(found)) => found.into_iter().map(|one| one.location).collect(),
        other => panic!("not invalid: {other:?}"),
    }
}

/// Something else that happens just before a commit.
type Meanwhile = Box<dyn FnOnce() -> CommitFuture<'static> + Send>;

/// A store in which something else can happen between what a change has looked at and its commit.
struct Contended {
    store: Arc<MemoryStore>,
    meanwhile: Mutex<Option<Meanwhile>>,
}

impl Contended {
    fn new() -> Arc<Self> {
        Arc::new(Self { store: Arc::new(MemoryStore::new()), meanwhile: Mutex::default() })
    }

    /// Does `work`, with accounts of its own on the same records, before the next commit.
    fn before_commit<W>(&self, work: impl FnOnce(Writer) -> W + Send + 'static)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let others = on(self.store.clone());
        *self.meanwhile.lock().unwrap() = Some(Box::new(move || {
            let work = work(others);
            Box::pin(async move {
                work.await;
                Ok(0)
            })
        }));
    }
}

impl Store for Contended {
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
        let meanwhile = self.meanwhile.lock().unwrap().take();
        Box::pin(async move {
            if let Some(meanwhile) = meanwhile {
                meanwhile().await?;
            }
            self.store.commit(batch).await
        })
    }

    fn changes(&self, after: Sequence, sink: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.store.changes(after, sink)
    }

    fn fault(&self) -> Option<String> {
        self.store.fault()
    }
}
