//! The dry run of a plan. It builds accounts in memory that have the planned records, so that the
//! usual rules can check these records.

use std::{collections::HashSet, sync::Arc};

use super::{change::PlannedChange, plan::Plan, record::StateRecord};
use crate::{
    accounts::{AccountError, Accounts, AccountsInner},
    directory::Directory,
    model::Actor,
    store::{Batch, CommitError, MemoryStore, StoreError, Table, encode, table},
};

impl Plan {
    /// Accounts in memory as they would be after the plan. They have all roles, applications and
    /// resources, but only those users and keys that the plan changes or that the rules read.
    pub fn planned_accounts(
        &self,
        accounts: &Accounts,
        actor: &Actor,
    ) -> Result<Accounts, AccountError> {
        let mut batch = Batch::new();
        put(&mut batch, &self.roles);
        put(&mut batch, &self.applications);
        put(&mut batch, &self.resources);
        put(&mut batch, &self.users);
        let planned_users = self.users.iter().filter_map(|change| change.any());
        let mut present: HashSet<u64> = planned_users.map(|user| user.uid).collect();
        let mut needed = accounts.directory().administrators();
        let changed_keys = self.keys.iter().filter(|change| change.has_effect());
        needed.extend(changed_keys.filter_map(|change| change.after.as_ref()).map(|key| key.user));
        if let Actor::User { uid, key, .. } = actor {
            needed.push(*uid);
            let has_id =
                |id| self.keys.iter().find(|change| change.any().is_some_and(|key| key.id == id));
            let key = match (key.and_then(has_id), key) {
                (Some(planned), _) => planned.after.clone(),
                (None, Some(id)) => accounts.key(*id)?.map(|key| key.record),
                (None, None) => None,
            };
            if let Some(key) = key {
                batch.put(Table::Keys, key.key(), encode(&key));
            }
        }
        for uid in needed.into_iter().filter(|uid| present.insert(*uid)) {
            if let Some(user) = accounts.user(uid)? {
                batch.put(Table::Users, table::user(uid), encode(&user.record));
            }
        }
        let failed = |problem| match problem {
            CommitError::Store(problem) => problem,
            CommitError::Conflict(_) => {
                StoreError::Failed("the dry run has unexpected records".into())
            }
        };
        let store = Arc::new(MemoryStore::with_records(batch).map_err(failed)?);
        let directory = Directory::open(&*store)?;
        Ok(Accounts(Arc::new(AccountsInner { store, directory, ..(*accounts.0).clone() })))
    }
}

fn put<T: StateRecord>(batch: &mut Batch, changes: &[PlannedChange<T>]) {
    for after in changes.iter().filter_map(|change| change.after.as_ref()) {
        batch.put(T::TABLE, after.key(), encode(after));
    }
}
