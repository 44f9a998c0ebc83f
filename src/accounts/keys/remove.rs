//! Deleting keys that are not accepted any more. The audit trail keeps what they were.

use serde_json::{Value, json};

use super::adopt::is_adopted;
use crate::{
    accounts::{
        AccountError, Versioned, Writer, record_list,
        usage::delete_key_usage,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Key, KeyId, Mode, Timestamp},
    store::{Batch, Expected, Sequence, Table, table},
};

/// A step of the deletion of all keys that ended before a time.
#[derive(Debug, Clone, Copy)]
pub struct KeyPurge {
    /// Only keys that ended before this time are deleted.
    pub ended_before: Timestamp,
    /// Whether the keys are deleted, or only listed.
    pub mode: Mode,
    /// The step begins after this key. `None` means the first key.
    pub after: Option<KeyId>,
    /// The maximum number of keys that the step looks at.
    pub limit: usize,
}

/// The result of a step.
#[derive(Debug, Clone, Default)]
pub struct PurgedKeys {
    /// The keys that were deleted, or that a dry run would delete.
    pub keys: Vec<PurgedKey>,
    /// The number of ended keys that stay: keys that were adopted, and keys that only an
    /// administrator may delete.
    pub kept: usize,
    /// The last key that the step looked at. `None` means that there was no key.
    pub last: Option<KeyId>,
    /// Whether more keys follow.
    pub has_more: bool,
}

/// A deleted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurgedKey {
    /// The id.
    pub id: KeyId,
    /// The uid of the user.
    pub user: u64,
    /// The name of the user.
    pub username: String,
    /// The label.
    pub label: String,
    /// The first second in which the key was refused.
    pub ended: Timestamp,
}

impl Writer {
    /// Deletes a key that is not accepted any more.
    ///
    /// # Errors
    /// The key is still accepted, or was adopted: without its record, the script would adopt the
    /// credential again, also if it was revoked.
    pub async fn delete_key(
        &self,
        id: KeyId,
        expected: Option<Sequence>,
    ) -> Result<(), AccountError> {
        let attempt = || {
            let before = self.current_key(id)?;
            self.require_authority_over(before.record.user)?;
            self.admin_only_if(before.record.universal)?;
            self.authority().require_keys()?;
            let before = before.expect_revision(expected)?;
            self.require_ended(&before.record)?;
            let mut batch = Batch::new();
            put_deletion(&mut batch, &before);
            let mut act = Act::delete("key", id, &before.record);
            if let Some(Value::Object(fields)) = &mut act.before {
                fields.insert("username".into(), self.user_name(before.record.user).into());
            }
            Ok::<_, AccountError>(PendingCommit::new(batch, act, |_| ()).into())
        };
        self.update(attempt).await
    }

    fn require_ended(&self, key: &Key) -> Result<(), AccountError> {
        let id = key.id;
        if key.is_in_force(self.0.clock.now()) {
            let message = format!("The key {id} is still accepted.");
            let fix = format!("Revoke it first: keyward key revoke {id}.");
            return Err(AccountError::refused(message, fix));
        }
        if is_adopted(key) {
            let message = format!(
                "The key {id} was taken over from another system by a script. Without its record, \
                 the script would take the credential over again."
            );
            let fix = "Keep the record, or delete the user.";
            return Err(AccountError::refused(message, fix));
        }
        Ok(())
    }

    /// Deletes the keys of one step that ended before a time, in one commit.
    pub async fn purge_keys(&self, purge: KeyPurge) -> Result<PurgedKeys, AccountError> {
        self.authority().require_keys()?;
        let attempt = || {
            let page = self.keys(purge.after, purge.limit)?;
            let last = page.items.last().map(|key| key.record.id).or(purge.after);
            let mut purged = PurgedKeys { last, has_more: page.has_more, ..PurgedKeys::default() };
            let mut batch = Batch::new();
            for key in &page.items {
                let Some(ended) = self.ended_before(&key.record, purge.ended_before) else {
                    continue;
                };
                if !self.may_purge(&key.record)? {
                    purged.kept += 1;
                    continue;
                }
                put_deletion(&mut batch, key);
                let Key { id, user, label, .. } = &key.record;
                let (id, user, label) = (*id, *user, label.clone());
                let username = self.user_name(user);
                purged.keys.push(PurgedKey { id, user, username, label, ended });
            }
            if purge.mode == Mode::DryRun || purged.keys.is_empty() {
                return Ok(Attempt::Unchanged(purged));
            }
            let listed = |key: &PurgedKey| json!([key.id, key.user, key.username, key.label]);
            let listed: Vec<Value> = purged.keys.iter().map(listed).collect();
            let details = json!({
                "ended_before": purge.ended_before.to_string(),
                "keys": listed.len(),
            });
            let entries = record_list("key.purged", "keys", "keys", listed);
            let act = Act::other("key.purge", "keys", details);
            let pending = PendingCommit::new(batch, act, |_| purged).with_entries(entries);
            Ok::<_, AccountError>(pending.into())
        };
        self.update(attempt).await
    }

    /// The time at which a key ended. `None` means that it did not end before `before`.
    fn ended_before(&self, key: &Key, before: Timestamp) -> Option<Timestamp> {
        let ended = [key.revoked, key.ends()].into_iter().flatten().min()?;
        (ended < before && ended <= self.0.clock.now()).then_some(ended)
    }

    fn may_purge(&self, key: &Key) -> Result<bool, AccountError> {
        let allowed = match self.require_authority_over(key.user) {
            Ok(()) => self.admin_only_if(key.universal),
            refused => refused,
        };
        match allowed {
            Ok(()) => Ok(!is_adopted(key)),
            Err(AccountError::AdminOnly | AccountError::Forbidden { .. }) => Ok(false),
            Err(problem) => Err(problem),
        }
    }
}

/// Adds the deletion of a key and of its rows in the indexes.
fn put_deletion(batch: &mut Batch, before: &Versioned<Key>) {
    let key = &before.record;
    let row = table::key(key.id);
    batch.expect(Table::Keys, row, Expected::Revision(before.revision));
    batch.delete(Table::Keys, row);
    batch.delete(Table::Owners, table::owner(key.user, key.id));
    for digest in key.foreign_digests() {
        batch.delete(Table::Foreign, digest);
    }
    delete_key_usage(batch, key.id);
}
