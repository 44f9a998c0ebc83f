//! Changing the label, the limits and the bounds of a key.

use super::{quota::KeyCountChange, replace_key};
use crate::{
    accounts::{
        AccountError, Versioned, Writer,
        rules::{check_key, check_scopes, ensure_valid},
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Key, KeyId, MOST_SLOW_KEYS, Scheme, Violation},
    store::{Batch, Expected, Sequence, Table, table},
};

impl Writer {
    /// Changes a key. The parameters have the same meaning as for [`Writer::change_user`].
    ///
    /// Only an administrator can widen the scopes, the networks or the end of a key. Owners who are
    /// not administrators cannot raise the limits of their keys either.
    pub async fn change_key<E: From<AccountError>>(
        &self,
        id: KeyId,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut Key) -> Result<(), E>,
    ) -> Result<Versioned<Key>, E> {
        let attempt = || {
            let before = self.current_key(id)?;
            self.require_authority_over(before.record.user)?;
            self.admin_only_if(before.record.universal)?;
            let before = before.expect_revision(expected)?;
            let mut key = before.record.clone();
            edit(&mut key)?;
            self.authority().check_key((&key).into())?;
            if key == before.record {
                return Ok(Attempt::Unchanged(before));
            }
            let mut batch = replace_key(&before, &key);
            self.check_key_change(&before.record, &key, &mut batch)?;
            let act = Act::change("key", "change", id, &before.record, &key);
            let finish = |revision| Versioned { revision, record: key };
            Ok(PendingCommit::new(batch, act, finish).into())
        };
        self.update(attempt).await
    }

    /// Checks a change, and adds the expectations that it depends on.
    fn check_key_change(
        &self,
        before: &Key,
        after: &Key,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let now = self.0.clock.now();
        let has_new_end = before.expires != after.expires;
        // An expired key may get another label, so an unchanged expiry is compared with the time of
        // creation, not with the current time.
        let mut violations = check_key(self, after, if has_new_end { now } else { after.created });
        if has_new_end && after.expires.is_some_and(|end| end <= now) {
            let fix = "To end the key now, revoke it.";
            violations.retain(|violation| violation.location != "expires");
            violations.push(Violation::new("expires", "The expiry is not in the future.", fix));
        }
        // A scope that the key has already may name a permission that the user has lost.
        let adds_scope = match (&before.scopes, &after.scopes) {
            (Some(old), Some(new)) => new.iter().any(|scope| !old.contains(scope)),
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if adds_scope {
            violations.extend(check_scopes(self, after));
        }
        ensure_valid(violations)?;
        self.authority().check_key_change(before, after)?;
        let bounds = |key: &Key| (key.scopes.clone(), key.networks.clone(), key.expires);
        if before.revoked.is_some() && bounds(before) != bounds(after) {
            let message = format!("The key {} was revoked, and a revocation is final.", after.id);
            return Err(AccountError::refused(message, "Create a new key for its user."));
        }
        if !before.is_in_force(now) && after.is_in_force(now) {
            self.check_revival(after, batch)?;
        }
        Ok(())
    }

    /// Checks a key that a later end brings back as if the key was new.
    fn check_revival(&self, key: &Key, batch: &mut Batch) -> Result<(), AccountError> {
        batch.expect(Table::Users, table::user(key.user), Expected::Present);
        self.require_key_quota(key.user, KeyCountChange::Added, batch)?;
        if key.scheme == Scheme::Slow && self.slow_in_force(key.user) >= MOST_SLOW_KEYS {
            let message =
                format!("A user may have at most {MOST_SLOW_KEYS} keys that are slow to check.");
            let fix = "Give the user a new key of Keyward instead.";
            return Err(AccountError::refused(message, fix));
        }
        Ok(())
    }
}
