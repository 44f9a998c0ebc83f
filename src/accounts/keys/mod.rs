//! Keys.

pub(super) mod adopt;
pub(super) mod bulk;
pub(super) mod quota;
pub(super) mod rehash;
pub(super) mod rotate;

use ipnet::IpNet;

use super::{
    AccountError, Accounts, Page, TRIES, Versioned, Writer,
    events::New,
    is_race,
    keys::quota::Growth,
    rules::{check_key, check_scopes, in_order},
    users::uid_key,
};
use crate::{
    model::{Act, Credits, Key, KeyId, KeyText, Mode, RateLimit, Scheme, Secret, Timestamp},
    store::{Batch, CommitError, Sequence, State, Table, encode},
};

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// What people call it.
    pub label: String,
    /// The one application that it may be used with; none: any.
    pub application: Option<String>,
    /// Whether it acts as any user whom its client names.
    pub universal: bool,
    /// The permissions that it may use; none: all of its user's.
    pub scopes: Option<Vec<String>>,
    /// The first second in which it is refused.
    pub expires: Option<Timestamp>,
    /// The networks that it may be used from; none: any.
    pub networks: Vec<IpNet>,
    /// How fast it may be used; none: as fast as they come.
    pub rate_limit: Option<RateLimit>,
    /// How often it may be used in a day, a week or a month; none: without end.
    pub credits: Option<Credits>,
}

/// A key that was just made. Its text is nowhere else.
#[derive(Debug)]
pub struct Issued {
    /// The record.
    pub key: Versioned<Key>,
    /// The text that the client presents.
    pub text: Secret,
}

impl Accounts {
    /// A key record and its text, in memory.
    pub(super) fn draft_key(&self, uid: u64, new: &NewKey) -> (Key, Secret) {
        let prefix = self.key_prefix(new.application.as_deref());
        let text = KeyText::generate(&prefix, &self.0.entropy);
        self.key_of_text(uid, new, prefix, text)
    }

    /// What keys for an application begin with.
    pub(super) fn key_prefix(&self, application: Option<&str>) -> String {
        let policy = self.0.directory.policy();
        let application = match application {
            Some(id) => policy.applications.get(id),
            None => policy.applications.default(),
        };
        application.map_or_else(|| "kw".into(), |one| one.record.key_prefix.clone())
    }

    /// The record of a key with this text.
    pub(super) fn key_of_text(
        &self,
        uid: u64,
        new: &NewKey,
        prefix: String,
        text: KeyText,
    ) -> (Key, Secret) {
        let key = Key {
            id: text.id,
            user: uid,
            application: new.application.clone(),
            label: new.label.clone(),
            prefix,
            last_four: text.last_four().to_owned(),
            digest: self.0.pepper.digest(text.text.expose()),
            scheme: Scheme::Own,
            slow: None,
            former_digest: None,
            universal: new.universal,
            scopes: new.scopes.clone(),
            created: self.0.clock.now(),
            expires: new.expires,
            revoked: None,
            rotated: None,
            networks: new.networks.clone(),
            rate_limit: new.rate_limit,
            credits: new.credits,
        };
        (key, text.text)
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Result<Option<Versioned<Key>>, AccountError> {
        let at = key_key(id);
        let Some(stored) = self.store().get(Table::Keys, &at)? else {
            return Ok(None);
        };
        Ok(Some(Versioned { revision: stored.revision, record: stored.read(Table::Keys, &at)? }))
    }

    /// All keys, after `after`, in the order of their ids.
    pub fn keys(&self, after: Option<KeyId>, limit: usize) -> Result<Page<Key>, AccountError> {
        let after = after.map(key_key);
        self.page(Table::Keys, after.as_ref().map(<[u8; 8]>::as_slice), limit)
    }

    /// A user's keys, after `after`, in the order of their ids.
    pub fn keys_of(
        &self,
        uid: u64,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Page<Key>, AccountError> {
        let prefix = uid_key(uid);
        let after = after.map(|id| [prefix, key_key(id)].concat());
        let mut owners =
            self.store().scan(Table::Owners, &prefix, after.as_deref(), limit.saturating_add(1))?;
        let has_more = owners.len() > limit;
        owners.truncate(limit);
        let mut items = Vec::with_capacity(owners.len());
        for (owner, _) in owners {
            let id =
                KeyId::from_number(u64::from_be_bytes(owner[8..].try_into().unwrap_or_default()));
            // One that has just gone is left out.
            items.extend(self.key(id)?);
        }
        Ok(Page { items, has_more })
    }
}

impl Writer {
    /// Makes a key for a user.
    pub async fn issue_key(&self, uid: u64, new: NewKey) -> Result<Issued, AccountError> {
        let _turn = self.0.turns.of(uid).await;
        for _ in 0..TRIES {
            // Of the store, because the Directory also knows the person at the machine.
            if self.user(uid)?.is_none() {
                return Err(AccountError::not_found("user", uid));
            }
            let (key, text) = self.draft_key(uid, &new);
            let mut problems = check_key(self, &key, self.0.clock.now());
            problems.extend(check_scopes(self, &key));
            in_order(problems)?;
            let mut batch = Batch::new();
            batch.expect(Table::Users, uid_key(uid), State::Present);
            self.within_quota(uid, Growth::More, &mut batch)?;
            put_new_key(&mut batch, &key);
            let owner = self.name_of(uid);
            let webhooks = self.ask(&[New::Key(&key, &owner)], Mode::Live).await?;
            let act = Act::create("key", key.id, &key);
            match self.commit_telling(batch, act, webhooks).await {
                Ok(revision) => {
                    let key = Versioned { revision, record: key };
                    return Ok(Issued { key, text });
                }
                // The id was taken (one chance in 10¹⁴ for each key there is), or the user has just gone.
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    /// Changes a key as [`Writer::change_user`] changes a user.
    pub async fn change_key<E: From<AccountError>>(
        &self,
        id: KeyId,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut Key) -> Result<(), E>,
    ) -> Result<Versioned<Key>, E> {
        for _ in 0..TRIES {
            let before = self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))?;
            if expected.is_some_and(|revision| revision != before.revision) {
                return Err(AccountError::Stale { current: before.revision }.into());
            }
            let mut key = before.record.clone();
            edit(&mut key)?;
            if key == before.record {
                return Ok(before);
            }
            // One that has expired can be labelled.
            in_order(check_key(self, &key, key.created))?;
            let mut batch = Batch::new();
            batch.expect(Table::Keys, key_key(id), State::Revision(before.revision));
            batch.put(Table::Keys, key_key(id), encode(&key));
            let act = Act::change("key", "change", id, &before.record, &key);
            match self.commit(batch, act).await {
                Ok(revision) => return Ok(Versioned { revision, record: key }),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(AccountError::from(problem).into()),
                Err(_) => return Err(AccountError::contended().into()),
            }
        }
        Err(AccountError::contended().into())
    }

    /// Takes a key back. It is refused from the next request on. One that was taken back before stays as it is.
    pub async fn revoke_key(&self, id: KeyId) -> Result<Versioned<Key>, AccountError> {
        for _ in 0..TRIES {
            let before = self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))?;
            if before.record.revoked.is_some() {
                return Ok(before);
            }
            let mut key = before.record.clone();
            key.revoked = Some(self.0.clock.now());
            let mut batch = Batch::new();
            batch.expect(Table::Keys, key_key(id), State::Revision(before.revision));
            batch.put(Table::Keys, key_key(id), encode(&key));
            let webhooks = self.tell_of_revoked(&key).await;
            let act = Act::change("key", "revoke", id, &before.record, &key);
            match self.commit_telling(batch, act, webhooks).await {
                Ok(revision) => return Ok(Versioned { revision, record: key }),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }
}

/// Writes a key that is not there yet, and its place among its user's keys.
pub(super) fn put_new_key(batch: &mut Batch, key: &Key) {
    let at = key_key(key.id);
    let owner = [uid_key(key.user), at].concat();
    batch.expect(Table::Keys, at, State::Missing);
    batch.put(Table::Keys, at, encode(key));
    batch.put(Table::Owners, owner, encode(&()));
    for digest in key.foreign_digests() {
        batch.expect(Table::Foreign, digest, State::Missing);
        batch.put(Table::Foreign, digest, encode(&key.id));
    }
}

pub(super) fn key_key(id: KeyId) -> [u8; 8] {
    id.number().to_be_bytes()
}
