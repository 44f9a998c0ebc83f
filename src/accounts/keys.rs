//! Keys.

use ipnet::IpNet;

use super::{
    AccountError, Accounts, Page, TRIES, Versioned, is_race,
    rules::{check_key, in_order},
    users::uid_key,
};
use crate::{
    model::{Key, KeyId, KeyText, Secret, Timestamp},
    store::{Batch, CommitError, State, Table, encode},
};

/// The fewest bytes of another system's key: a digest without salt and stretching is right only for what was drawn at random.
const SHORTEST_FOREIGN: usize = 16;

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// What people call it.
    pub label: String,
    /// The one application that it may be used with; none: any.
    pub application: Option<String>,
    /// The permissions that it may use; none: all of its user's.
    pub scopes: Option<Vec<String>>,
    /// The first second in which it is refused.
    pub expires: Option<Timestamp>,
    /// The networks that it may be used from; none: any.
    pub networks: Vec<IpNet>,
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
    /// Makes a key for a user.
    pub async fn issue_key(&self, uid: u64, new: NewKey) -> Result<Issued, AccountError> {
        for _ in 0..TRIES {
            // Of the store, because the Directory also knows the person at the machine.
            if self.user(uid)?.is_none() {
                return Err(AccountError::not_found("user", uid));
            }
            let (key, text) = self.draft_key(uid, &new);
            in_order(check_key(self, &key, self.0.clock.now()))?;
            let mut batch = Batch::new();
            batch.expect(Table::Users, uid_key(uid), State::Present);
            put_new_key(&mut batch, &key);
            match self.store().commit(batch).await {
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

    /// Makes a key of another system one of a user's own, for this application. Its text stays what it is; only its digest is kept. One that was
    /// adopted before stays as it is, revoked ones above all.
    ///
    /// # Errors
    /// The user is gone, the text is too short to be a random key, or the store failed.
    pub async fn adopt_key(
        &self,
        uid: u64,
        application: &str,
        text: &Secret,
    ) -> Result<(), AccountError> {
        let length = text.expose().len();
        if length < SHORTEST_FOREIGN || text.expose().chars().any(char::is_control) {
            return Err(AccountError::refused(
                format!("A key of {length} bytes could be guessed, and is not taken over."),
                "Give the user a key of Keyward's own.",
            ));
        }
        let digest = self.0.pepper.digest(text.expose());
        let key = Key {
            id: digest.key_id(),
            user: uid,
            application: Some(application.to_owned()),
            label: "taken over".into(),
            prefix: String::new(),
            last_four: text.expose().chars().skip(text.expose().chars().count() - 4).collect(),
            digest,
            scopes: None,
            created: self.0.clock.now(),
            expires: None,
            revoked: None,
            rotated: None,
            networks: Vec::new(),
        };
        let mut batch = Batch::new();
        batch.expect(Table::Users, uid_key(uid), State::Present);
        put_new_key(&mut batch, &key);
        match self.store().commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(on)) if on.table == Table::Keys => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
            Err(_) => Err(AccountError::not_found("user", uid)),
        }
    }

    /// A key record and its text, in memory.
    pub(super) fn draft_key(&self, uid: u64, new: &NewKey) -> (Key, Secret) {
        let policy = self.0.directory.policy();
        let application = match &new.application {
            Some(id) => policy.applications.get(id),
            None => policy.applications.default(),
        };
        let prefix = application.map_or("kw", |one| one.record.key_prefix.as_str());
        let text = KeyText::generate(prefix, &self.0.entropy);
        let key = Key {
            id: text.id,
            user: uid,
            application: new.application.clone(),
            label: new.label.clone(),
            prefix: prefix.to_owned(),
            last_four: text.last_four().to_owned(),
            digest: self.0.pepper.digest(text.text.expose()),
            scopes: new.scopes.clone(),
            created: self.0.clock.now(),
            expires: new.expires,
            revoked: None,
            rotated: None,
            networks: new.networks.clone(),
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

    /// Takes a key back. It is refused from the next request on. One that was taken back before stays as it is.
    pub async fn revoke_key(&self, id: KeyId) -> Result<Versioned<Key>, AccountError> {
        for _ in 0..TRIES {
            let before = self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))?;
            if before.record.revoked.is_some() {
                return Ok(before);
            }
            let mut key = before.record;
            key.revoked = Some(self.0.clock.now());
            let mut batch = Batch::new();
            batch.expect(Table::Keys, key_key(id), State::Revision(before.revision));
            batch.put(Table::Keys, key_key(id), encode(&key));
            match self.store().commit(batch).await {
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
}

fn key_key(id: KeyId) -> [u8; 8] {
    id.number().to_be_bytes()
}
