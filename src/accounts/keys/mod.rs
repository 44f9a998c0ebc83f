//! Creating, reading, changing and revoking keys.

pub(super) mod adopt;
pub(super) mod bulk;
mod edit;
pub(super) mod find;
pub(super) mod quota;
pub(super) mod rehash;
pub(super) mod remove;
pub(super) mod rotate;

use ipnet::IpNet;

use super::{
    AccountError, Accounts, Page, Versioned, Writer,
    events::NewRecord,
    keys::quota::KeyCountChange,
    rules::{check_key, check_scopes, ensure_valid},
    writer::{Attempt, PendingCommit},
};
use crate::{
    model::{Act, Actor, Credits, Key, KeyId, KeyText, Mode, RateLimit, Scheme, Secret, Timestamp},
    store::{Batch, Expected, Table, encode, table},
};

/// The properties of a new key.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// A label for people.
    pub label: String,
    /// The only application that accepts the key. `None` means every application.
    pub application: Option<String>,
    /// Whether the key acts as any user that the client names.
    pub universal: bool,
    /// The permissions that the key may use. `None` means all permissions of its user.
    pub scopes: Option<Vec<String>>,
    /// The first second in which the key is rejected. `None` means that the key does not expire.
    pub expires: Option<Timestamp>,
    /// The networks from which the key may be used. Empty means every network.
    pub networks: Vec<IpNet>,
    /// The rate limit of the key. `None` means no limit.
    pub rate_limit: Option<RateLimit>,
    /// The credits of the key in a day, a week or a month. `None` means no limit.
    pub credits: Option<Credits>,
}

/// A new key with its text. The text is not stored anywhere.
#[derive(Debug)]
pub struct Issued {
    /// The record.
    pub key: Versioned<Key>,
    /// The text that the client presents.
    pub text: Secret,
}

impl Accounts {
    /// A new key and its text. The key is not written to the store.
    pub(super) fn draft_key(&self, uid: u64, new: &NewKey) -> (Key, Secret) {
        let prefix = self.key_prefix(new.application.as_deref());
        let text = KeyText::generate(&prefix, &self.0.entropy);
        self.key_from_text(uid, new, prefix, text)
    }

    /// The prefix of the keys of an application. `None` means the default application.
    pub(super) fn key_prefix(&self, application: Option<&str>) -> String {
        let policy = self.0.directory.policy();
        let application = match application {
            Some(id) => policy.applications.get(id),
            None => policy.applications.default(),
        };
        application.map_or_else(|| "kw".into(), |found| found.record.key_prefix.clone())
    }

    /// The record of a key with this text.
    pub(super) fn key_from_text(
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
        self.read(Table::Keys, &table::key(id))
    }

    /// A page of all keys, sorted by id. The page begins after the key `after`, or with the first
    /// key if `after` is `None`.
    pub fn keys(&self, after: Option<KeyId>, limit: usize) -> Result<Page<Key>, AccountError> {
        let after = after.map(table::key);
        self.page(Table::Keys, after.as_ref().map(<[u8; 8]>::as_slice), limit)
    }

    /// A page of a user's keys, sorted by id. The page begins after the key `after`, or with the
    /// first key if `after` is `None`.
    pub fn keys_of(
        &self,
        uid: u64,
        after: Option<KeyId>,
        limit: usize,
    ) -> Result<Page<Key>, AccountError> {
        let after = after.map(|id| table::owner(uid, id));
        let after = after.as_ref().map(<[u8; 16]>::as_slice);
        let mut owners =
            self.store().scan(Table::Owners, &table::user(uid), after, limit.saturating_add(1))?;
        let has_more = owners.len() > limit;
        owners.truncate(limit);
        let mut items = Vec::with_capacity(owners.len());
        for (owner, _) in owners {
            let Some((_, id)) = table::parse_owner(&owner) else { continue };
            // A key that was deleted after the scan is left out.
            items.extend(self.key(id)?);
        }
        Ok(Page { items, has_more })
    }
}

impl Writer {
    /// Creates a key for a user.
    pub async fn issue_key(&self, uid: u64, new: NewKey) -> Result<Issued, AccountError> {
        self.authority().check_key((&new).into())?;
        self.admin_only_if(new.universal)?;
        self.require_authority_over(uid)?;
        let _guard = self.0.user_locks.lock(uid).await;
        let new = &new;
        let attempt = || async move {
            // Look the user up in the store, because the Directory also contains the operator, who
            // is not a user.
            self.current_user(uid)?;
            let (key, text) = self.draft_key(uid, new);
            let mut violations = check_key(self, &key, self.0.clock.now());
            violations.extend(check_scopes(self, &key));
            ensure_valid(violations)?;
            let mut batch = Batch::new();
            batch.expect(Table::Users, table::user(uid), Expected::Present);
            self.require_key_quota(uid, KeyCountChange::Added, &mut batch)?;
            put_new_key(&mut batch, &key);
            let owner = self.user_name(uid);
            let webhooks = self.approve(&[NewRecord::Key(&key, &owner)], Mode::Live).await?;
            let act = Act::create("key", key.id, &key);
            // A conflict has one of three causes: the id is taken (the probability for each key in
            // the store is 10⁻¹⁴), the user was just deleted, or the user just got another key.
            let finish = |revision| Issued { key: Versioned { revision, record: key }, text };
            Ok(PendingCommit::new(batch, act, finish).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    /// Revokes a key. From the next request on, the key is rejected. A key that is already revoked
    /// stays unchanged.
    pub async fn revoke_key(&self, id: KeyId) -> Result<Versioned<Key>, AccountError> {
        let attempt = || async move {
            let before = self.current_key(id)?;
            self.require_authority_over(before.record.user)?;
            if before.record.revoked.is_some() {
                return Ok(Attempt::Unchanged(before));
            }
            let mut key = before.record.clone();
            key.revoked = Some(self.0.clock.now());
            let batch = replace_key(&before, &key);
            let webhooks = self.notify_revoked(&key).await;
            let act = Act::change("key", "revoke", id, &before.record, &key);
            let finish = |revision| Versioned { revision, record: key };
            Ok(PendingCommit::new(batch, act, finish).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    pub(super) fn current_key(&self, id: KeyId) -> Result<Versioned<Key>, AccountError> {
        self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))
    }

    /// Refuses a change to the keys of an administrator unless the actor is an administrator. Every
    /// user may change the keys that belong to that user.
    pub(super) fn require_authority_over(&self, uid: u64) -> Result<(), AccountError> {
        let is_caller = matches!(self.actor(), Actor::User { uid: caller, .. } if *caller == uid);
        if is_caller || self.admin().is_some() {
            return Ok(());
        }
        let owner = self.user(uid)?;
        self.admin_only_if(owner.is_some_and(|owner| self.has_admin_role(&owner.record.roles)))
    }
}

/// A batch that replaces the record of a key. The commit expects that no other writer has changed
/// the record.
pub(super) fn replace_key(before: &Versioned<Key>, after: &Key) -> Batch {
    let row = table::key(after.id);
    let mut batch = Batch::new();
    batch.expect(Table::Keys, row, Expected::Revision(before.revision));
    batch.put(Table::Keys, row, encode(after));
    batch
}

/// Adds the writes of a new key and of its rows in the indexes.
pub(super) fn put_new_key(batch: &mut Batch, key: &Key) {
    let row = table::key(key.id);
    batch.expect(Table::Keys, row, Expected::Missing);
    batch.put(Table::Keys, row, encode(key));
    batch.put(Table::Owners, table::owner(key.user, key.id), encode(&()));
    for digest in key.foreign_digests() {
        batch.expect(Table::Foreign, digest, Expected::Missing);
        batch.put(Table::Foreign, digest, encode(&key.id));
    }
}
