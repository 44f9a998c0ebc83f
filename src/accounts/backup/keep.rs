//! Applies the later changes of the present store to a store that was just restored.

use super::compare::{Comparison, LaterChange, Revival};
use crate::{
    accounts::{
        AccountError, Accounts, Writer,
        usage::{delete_key_usage, delete_user_usage},
    },
    model::{Act, AuditEntry, Key, User},
    store::{Batch, Table, encode, table},
};

/// The changes of one commit.
const PART: usize = 200;

impl Writer {
    /// Makes the records of a restored store no wider than the present ones, each with an entry in
    /// the audit trail.
    pub(super) async fn keep_later_changes(
        &self,
        revivals: &[Revival],
    ) -> Result<(), AccountError> {
        for part in revivals.chunks(PART) {
            let mut batch = Batch::new();
            let mut entries = Vec::with_capacity(part.len());
            for revival in part {
                let act = self.add_later_change(&revival.later, &mut batch)?;
                let actor = self.actor().clone();
                entries.push(encode(&AuditEntry {
                    time: self.clock().now(),
                    actor,
                    act,
                    operator: None,
                }));
            }
            batch.audit = Some(self.audit_append(entries)?);
            self.store().commit(batch).await?;
        }
        Ok(())
    }

    fn add_later_change(
        &self,
        change: &LaterChange,
        batch: &mut Batch,
    ) -> Result<Act, AccountError> {
        match change {
            LaterChange::Put { table, key, json, act } => {
                batch.put(*table, key.clone(), json.clone());
                Ok(act.clone())
            }
            LaterChange::Delete { table, key, act } => {
                batch.delete(*table, key.clone());
                Ok(act.clone())
            }
            LaterChange::DeleteKey(key) => {
                delete_key(key, batch);
                Ok(Act::delete("key", key.id, key))
            }
            LaterChange::DeleteUser(user) => {
                self.delete_user_and_keys(user, batch)?;
                Ok(Act::delete("user", user.uid, user))
            }
        }
    }

    fn delete_user_and_keys(&self, user: &User, batch: &mut Batch) -> Result<(), AccountError> {
        batch.delete(Table::Users, table::user(user.uid));
        self.release_name_and_mail(batch, user)?;
        delete_user_usage(batch, user.uid);
        for (owner, _) in
            self.store().scan(Table::Owners, &table::user(user.uid), None, usize::MAX)?
        {
            let Some((_, id)) = table::parse_owner(&owner) else { continue };
            if let Some(key) = self.key(id)? {
                delete_key(&key.record, batch);
            }
        }
        Ok(())
    }
}

fn delete_key(key: &Key, batch: &mut Batch) {
    batch.delete(Table::Keys, table::key(key.id));
    batch.delete(Table::Owners, table::owner(key.user, key.id));
    for digest in key.foreign_digests() {
        batch.delete(Table::Foreign, digest);
    }
    delete_key_usage(batch, key.id);
}

impl Accounts {
    /// Reserves the uids of the present store: a number that other systems know must not become
    /// another user's.
    pub(super) fn reserve_uids(&self, comparison: &Comparison, batch: &mut Batch) {
        let last = self.directory().last_uid().max(comparison.last_uid);
        if last > self.directory().last_uid() || !comparison.revivals.is_empty() {
            batch.put(Table::Meta, table::LAST_UID, encode(&last));
        }
    }
}
