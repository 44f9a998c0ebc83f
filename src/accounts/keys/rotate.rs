//! Rotation: a key is replaced, and for a while both work, so that nobody who uses it is interrupted.

use super::{key_key, put_new_key, quota::Growth};
use crate::{
    accounts::{
        AccountError, Issued, NewKey, TRIES, Versioned, Writer,
        events::New,
        is_race,
        rules::{check_key, in_order},
        users::uid_key,
    },
    model::{Act, Key, KeyId, Mode, Rotation, Timestamp, Violation},
    store::{Batch, CommitError, State, Table, encode},
};

/// How long both keys work when nobody says otherwise: a day.
const OVERLAP: i64 = 86_400;

/// How a key is to be replaced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rotate {
    /// For how many seconds the old key goes on working; none: a day, or as long as it has left.
    pub overlap: Option<i64>,
    /// When the new key expires.
    pub lifetime: Lifetime,
}

/// When the key that replaces another expires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// After the span that the old one was made for.
    #[default]
    AsBefore,
    /// Not at all.
    Never,
    /// At this moment.
    Until(Timestamp),
}

/// A key and its replacement.
#[derive(Debug)]
pub struct Rotated {
    /// The new key.
    pub issued: Issued,
    /// The old one.
    pub old: Versioned<Key>,
}

impl Writer {
    /// Makes a key that replaces another: for the same user and application, with the same scopes, networks and label. The old one works until
    /// the overlap ends. Both happen in one commit.
    ///
    /// # Errors
    /// The old key was revoked, has expired or is replaced already; the overlap is negative or longer than the old key has left.
    pub async fn rotate_key(&self, id: KeyId, how: Rotate) -> Result<Rotated, AccountError> {
        let owner = self.key(id)?.map_or(0, |key| key.record.user);
        let _turn = self.0.turns.of(owner).await;
        for _ in 0..TRIES {
            let before = self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))?;
            let now = self.0.clock.now();
            let until = overlap_end(&before.record, how.overlap, now)?;
            let mut new = successor(&before.record);
            new.expires = expiry(&before.record, how.lifetime, now);
            let (key, text) = self.draft_key(before.record.user, &new);
            in_order(check_key(self, &key, now))?;
            let mut old = before.record.clone();
            old.rotated = Some(Rotation { to: key.id, until });
            let mut batch = Batch::new();
            batch.expect(Table::Keys, key_key(id), State::Revision(before.revision));
            batch.expect(Table::Users, uid_key(key.user), State::Present);
            self.within_quota(key.user, Growth::Replaced, &mut batch)?;
            batch.put(Table::Keys, key_key(id), encode(&old));
            put_new_key(&mut batch, &key);
            let owner = self.name_of(key.user);
            let webhooks = self.ask(&[New::Successor(&key, &owner, id)], Mode::Live).await?;
            let act = Act::change("key", "rotate", id, &before.record, &old);
            match self.commit_telling(batch, act, webhooks).await {
                Ok(revision) => {
                    let issued = Issued { key: Versioned { revision, record: key }, text };
                    return Ok(Rotated { issued, old: Versioned { revision, record: old } });
                }
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }
}

/// The first second in which the old key is refused.
fn overlap_end(key: &Key, overlap: Option<i64>, now: Timestamp) -> Result<Timestamp, AccountError> {
    let id = key.id;
    if key.revoked.is_some() {
        let fix = "Make a new key for its user.";
        return Err(AccountError::refused(format!("The key {id} was revoked."), fix));
    }
    if let Some(rotation) = &key.rotated {
        let said = format!("The key {id} is replaced already: by {}.", rotation.to);
        return Err(AccountError::refused(said, "Rotate that one, or make a new key."));
    }
    if key.expires.is_some_and(|end| end <= now) {
        let fix = "Make a new key for its user.";
        return Err(AccountError::refused(format!("The key {id} has expired."), fix));
    }
    let left = key.expires.map(|end| end.0.saturating_sub(now.0));
    let wrong = |message: String| {
        let fix = "Give a span such as 24h, or 0s to end the old key at once.";
        AccountError::Invalid(vec![Violation::new("overlap", message, fix)])
    };
    match (overlap, left) {
        (Some(overlap), _) if overlap < 0 => Err(wrong("An overlap cannot be negative.".into())),
        (Some(overlap), Some(left)) if overlap > left => Err(wrong(format!(
            "The overlap is longer than the old key has left, which is {left} seconds."
        ))),
        (Some(overlap), _) => Ok(now.plus(overlap)),
        (None, left) => Ok(now.plus(left.unwrap_or(OVERLAP).min(OVERLAP))),
    }
}

fn successor(old: &Key) -> NewKey {
    NewKey {
        label: old.label.clone(),
        application: old.application.clone(),
        universal: old.universal,
        // Those that its user has lost since give nothing, as before.
        scopes: old.scopes.clone(),
        expires: None,
        networks: old.networks.clone(),
        rate_limit: old.rate_limit,
        credits: old.credits,
    }
}

fn expiry(old: &Key, lifetime: Lifetime, now: Timestamp) -> Option<Timestamp> {
    match lifetime {
        Lifetime::Never => None,
        Lifetime::Until(at) => Some(at),
        Lifetime::AsBefore => {
            let span = old.expires?.0.saturating_sub(old.created.0);
            Some(now.plus(span))
        }
    }
}
