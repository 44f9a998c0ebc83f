//! The world as it would be: accounts in memory in which a plan is carried out, so that the rules can be asked of them.

use std::{collections::HashSet, sync::Arc};

use super::{
    plan::{Change, Plan},
    record::Kind,
};
use crate::{
    accounts::{AccountError, Accounts, AccountsInner},
    directory::Directory,
    model::{Actor, Key, User},
    store::{Batch, CommitError, MemoryStore, StoreError, Table, encode, table},
};

impl Plan {
    /// All roles, applications and resources; of users and keys those that change, and those that the rules look at.
    pub fn world(&self, accounts: &Accounts, actor: &Actor) -> Result<Accounts, AccountError> {
        let mut batch = Batch::new();
        put(&mut batch, self.roles.iter());
        put(&mut batch, self.applications.iter());
        put(&mut batch, self.resources.iter());
        put(&mut batch, self.users.iter());
        let mut known: HashSet<u64> = self.users.iter().filter_map(number).collect();
        let mut lookers = accounts.directory().administrators();
        let owner = |one: &Change<Key>| one.after.as_ref().filter(|_| one.is_one()).map(|k| k.user);
        lookers.extend(self.keys.iter().filter_map(owner));
        if let Actor::User { uid, key, .. } = actor {
            lookers.push(*uid);
            let planned = key.and_then(|id| self.keys.iter().find(|one| names(one, id)));
            let key = match (planned, key) {
                (Some(planned), _) => planned.after.clone(),
                (None, Some(id)) => accounts.key(*id)?.map(|key| key.record),
                (None, None) => None,
            };
            if let Some(key) = key {
                batch.put(Table::Keys, key.key(), encode(&key));
            }
        }
        for uid in lookers.into_iter().filter(|uid| known.insert(*uid)) {
            if let Some(user) = accounts.user(uid)? {
                batch.put(Table::Users, table::user(uid), encode(&user.record));
            }
        }
        let failed = |problem| match problem {
            CommitError::Store(problem) => problem,
            CommitError::Conflict(_) => StoreError::Failed("a plan is carried out once".into()),
        };
        let store = Arc::new(MemoryStore::with_records(batch).map_err(failed)?);
        let directory = Directory::open(&*store)?;
        Ok(Accounts(Arc::new(AccountsInner { store, directory, ..(*accounts.0).clone() })))
    }
}

fn put<'a, T: Kind + 'a>(batch: &mut Batch, all: impl Iterator<Item = &'a Change<T>>) {
    for after in all.filter_map(|one| one.after.as_ref()) {
        batch.put(T::TABLE, after.key(), encode(after));
    }
}

fn number(one: &Change<User>) -> Option<u64> {
    let before = one.before.as_ref().map(|before| &before.record);
    one.after.as_ref().or(before).map(|user| user.uid)
}

pub(super) fn names(one: &Change<Key>, id: crate::model::KeyId) -> bool {
    let before = one.before.as_ref().map(|before| &before.record);
    one.after.as_ref().or(before).is_some_and(|key| key.id == id)
}
