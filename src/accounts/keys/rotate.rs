//! Rotation of a key: a new key replaces an old key. Both keys work during an overlap, so that no
//! client is interrupted.

use super::{put_new_key, quota::KeyCountChange, replace_key};
use crate::{
    accounts::{
        AccountError, Issued, NewKey, Versioned, Writer,
        events::NewRecord,
        rules::{check_key, ensure_valid},
        writer::PendingCommit,
    },
    model::{Act, Key, KeyId, Mode, Rotation, Timestamp, Violation},
    store::{Expected, Table, table},
};

/// The default overlap in seconds: one day.
const OVERLAP: i64 = 86_400;

/// The options of a rotation.
#[derive(Debug, Clone, Copy, Default)]
pub struct RotateOptions {
    /// The number of seconds after the rotation during which the old key works. `None` means one
    /// day, or the time until the old key expires if that is shorter.
    pub overlap: Option<i64>,
    /// The lifetime of the new key.
    pub lifetime: Lifetime,
}

/// The lifetime of the new key of a rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// The lifetime of the old key, counted from now, but no later than the end of the key with
    /// which the actor authenticated.
    #[default]
    AsBefore,
    /// The key does not expire.
    Never,
    /// The key expires at this time.
    Until(Timestamp),
}

/// A key and its replacement.
#[derive(Debug)]
pub struct Rotated {
    /// The new key.
    pub issued: Issued,
    /// The old key.
    pub old: Versioned<Key>,
}

impl Writer {
    /// Replaces a key by a new key with the same user, application, scopes, networks, limits and
    /// label. The old key works until the overlap ends. Both records are written in one commit.
    ///
    /// # Errors
    /// The old key was revoked, has expired or is already replaced. Or the overlap is negative, or
    /// longer than the remaining lifetime of the old key.
    pub async fn rotate_key(
        &self,
        id: KeyId,
        options: RotateOptions,
    ) -> Result<Rotated, AccountError> {
        let owner_id = self.key(id)?.map_or(0, |key| key.record.user);
        self.require_authority_over(owner_id)?;
        let _guard = self.0.user_locks.lock(owner_id).await;
        let attempt = || async move {
            let before = self.current_key(id)?;
            self.admin_only_if(before.record.universal)?;
            let now = self.0.clock.now();
            let until = overlap_end(&before.record, options.overlap, now)?;
            let mut new_key = successor(&before.record);
            new_key.expires = new_expiry(&before.record, options.lifetime, now);
            if options.lifetime == Lifetime::AsBefore
                && let Some(latest) = self.authority().latest_end()
            {
                let end = new_key.expires.map_or(latest, |end| Timestamp(end.0.min(latest.0)));
                new_key.expires = Some(end);
            }
            self.authority().check_key((&new_key).into())?;
            let (key, text) = self.draft_key(before.record.user, &new_key);
            ensure_valid(check_key(self, &key, now))?;
            let mut old = before.record.clone();
            old.rotated = Some(Rotation { to: key.id, until });
            let mut batch = replace_key(&before, &old);
            batch.expect(Table::Users, table::user(key.user), Expected::Present);
            self.require_key_quota(key.user, KeyCountChange::Replaced, &mut batch)?;
            put_new_key(&mut batch, &key);
            let owner_name = self.user_name(key.user);
            let record_to_approve = NewRecord::Successor(&key, &owner_name, id);
            let webhooks = self.approve(&[record_to_approve], Mode::Live).await?;
            let act = Act::change("key", "rotate", id, &before.record, &old);
            let finish = |revision| Rotated {
                issued: Issued { key: Versioned { revision, record: key }, text },
                old: Versioned { revision, record: old },
            };
            Ok(PendingCommit::new(batch, act, finish).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}

/// The first second in which the old key is rejected.
fn overlap_end(key: &Key, overlap: Option<i64>, now: Timestamp) -> Result<Timestamp, AccountError> {
    let id = key.id;
    if key.revoked.is_some() {
        let fix = "Create a new key for its user.";
        return Err(AccountError::refused(format!("The key {id} was revoked."), fix));
    }
    if let Some(rotation) = &key.rotated {
        let message = format!("The key {id} was already replaced by {}.", rotation.to);
        return Err(AccountError::refused(message, "Rotate the new key, or create another key."));
    }
    if key.expires.is_some_and(|end| end <= now) {
        let fix = "Create a new key for its user.";
        return Err(AccountError::refused(format!("The key {id} has expired."), fix));
    }
    let left = key.expires.map(|end| end.0.saturating_sub(now.0));
    let invalid = |message: String| {
        let fix = "Give a span such as 24h, or 0s to end the old key at once.";
        AccountError::Invalid(vec![Violation::new("overlap", message, fix)])
    };
    match (overlap, left) {
        (Some(overlap), _) if overlap < 0 => Err(invalid("An overlap cannot be negative.".into())),
        (Some(overlap), Some(left)) if overlap > left => Err(invalid(format!(
            "The overlap is longer than the remaining lifetime of the old key, which is {left} seconds."
        ))),
        (Some(overlap), _) => Ok(now.plus(overlap)),
        (None, left) => Ok(now.plus(left.unwrap_or(OVERLAP).min(OVERLAP))),
    }
}

/// The properties of the new key, except for its expiry.
fn successor(old: &Key) -> NewKey {
    NewKey {
        label: old.label.clone(),
        application: old.application.clone(),
        universal: old.universal,
        // The new key keeps all scopes. If the user no longer has the permission of a scope, the
        // scope grants nothing.
        scopes: old.scopes.clone(),
        expires: None,
        networks: old.networks.clone(),
        rate_limit: old.rate_limit,
        credits: old.credits,
    }
}

/// The expiry of the new key. `None` means that the new key does not expire.
fn new_expiry(old: &Key, lifetime: Lifetime, now: Timestamp) -> Option<Timestamp> {
    match lifetime {
        Lifetime::Never => None,
        Lifetime::Until(time) => Some(time),
        Lifetime::AsBefore => {
            let span = old.expires?.0.saturating_sub(old.created.0);
            Some(now.plus(span))
        }
    }
}
