//! Runs that create keys for all users. A client requests a run in parts. Each part creates keys
//! for the next users, in one commit.
//!
//! The text of a key is shown only in the response, so a lost response would leave keys whose text
//! nobody knows. Therefore the texts of a run are derived from the pepper and the run's id. A
//! client that requests a part again with the same run id gets the same keys, and no key is created
//! twice.

use std::collections::HashSet;

use serde_json::json;

use super::put_new_key;
use crate::{
    accounts::{
        AccountError, Accounts, Issued, NewKey, Versioned, Writer,
        events::NewRecord,
        record_list,
        rules::{check_key, ensure_valid, has_scopes},
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Entropy, Key, KeyId, KeyText, Mode, Secret, User},
    store::{Batch, Expected, Table, table},
};

/// The id of a run. The id is a secret: a client that knows it can get the run's keys again.
pub type RunId = [u8; 16];

/// The number of users with consecutive uids who get consecutive key ids. Writing records with
/// consecutive ids in one commit is cheap.
const USERS_PER_BLOCK: u64 = 1024;

/// The number of ids that are tried for each key. The derivation of ids and texts depends on this
/// number, so after a change of the number a repeated run would create other keys.
const ID_ATTEMPTS: u64 = 16;

/// The number of writes for each key: the key's record, and the key's row in `Owners`.
const WRITES_PER_KEY: usize = 2;

/// The users who get keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkRecipients {
    /// Every user.
    All,
    /// Users who have no key in force.
    WithoutKey,
}

/// A request for one part of a run.
#[derive(Debug, Clone)]
pub struct BulkIssue {
    /// The id of the run.
    pub run: RunId,
    /// The users who get keys.
    pub recipients: BulkRecipients,
    /// The properties of each key.
    pub new: NewKey,
    /// The uid after which the part begins. `None` means that the part begins with the first user.
    pub after: Option<u64>,
    /// The maximum number of users in this part, including users who get no key.
    pub limit: usize,
}

/// The result of one part of a run.
#[derive(Debug)]
pub struct BulkPart {
    /// The keys, each with its user's name.
    pub items: Vec<(String, Issued)>,
    /// The users who got no key.
    pub skipped: Skipped,
    /// The uid of the last user of this part.
    pub last: Option<u64>,
    /// Whether more users follow.
    pub has_more: bool,
}

/// The number of users who got no key, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// The user has a key.
    pub has_key: usize,
    /// The user has the maximum number of keys.
    pub has_most: usize,
    /// The user lacks a permission that is among the scopes.
    pub lacks_scope: usize,
    /// The user is an administrator, and the actor is not an administrator.
    pub administrator: usize,
}

/// The key that a user gets.
enum UserKey {
    New(Key, Secret),
    /// The key exists, because an earlier request for this part has created it.
    Existing(Key, Secret),
    Skipped,
}

impl Writer {
    /// Creates keys for the next users of a run. Administrators get keys only from an
    /// administrator.
    ///
    /// # Errors
    /// The key's properties are invalid, or the store cannot write. In both cases no key of this
    /// part is created.
    pub async fn issue_for_many(&self, bulk: &BulkIssue) -> Result<BulkPart, AccountError> {
        self.authority().check_key((&bulk.new).into())?;
        let attempt = || async move {
            let page = self.users(bulk.after, bulk.limit)?;
            let mut part = BulkPart {
                items: Vec::with_capacity(page.items.len()),
                skipped: Skipped::default(),
                last: page.items.last().map(|user| user.record.uid),
                has_more: page.has_more,
            };
            let mut batch = Batch::new();
            let mut created = HashSet::new();
            for user in page.items {
                let key = self.bulk_key(bulk, &user.record, &mut part.skipped, &mut batch)?;
                if let UserKey::New(key, _) = &key {
                    created.insert(key.id);
                }
                let (UserKey::New(key, text) | UserKey::Existing(key, text)) = key else {
                    continue;
                };
                let key = Versioned { revision: 0, record: key };
                part.items.push((user.record.name, Issued { key, text }));
            }
            if batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(part));
            }
            let new = part.items.iter().filter(|(_, item)| created.contains(&item.key.record.id));
            let new: Vec<_> =
                new.map(|(name, item)| NewRecord::Key(&item.key.record, name)).collect();
            let webhooks = self.approve(&new, Mode::Live).await?;
            let act = audit_act(&part, batch.writes.len() / WRITES_PER_KEY);
            let new = part.items.iter().filter(|(_, item)| created.contains(&item.key.record.id));
            let keys = new.map(|(_, item)| json!([item.key.record.id, item.key.record.user]));
            let entries = record_list("key.generated", "key", "keys", keys.collect());
            let finish = |revision| {
                part.items.iter_mut().for_each(|(_, issued)| issued.key.revision = revision);
                part
            };
            let pending = PendingCommit::new(batch, act, finish).with_entries(entries);
            Ok(pending.with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }

    /// Chooses the key of one user. A new key is added to the batch, a skipped user to `skipped`.
    fn bulk_key(
        &self,
        bulk: &BulkIssue,
        user: &User,
        skipped: &mut Skipped,
        batch: &mut Batch,
    ) -> Result<UserKey, AccountError> {
        if self.admin_only_if(self.has_admin_role(&user.roles)).is_err() {
            skipped.administrator += 1;
            return Ok(UserKey::Skipped);
        }
        let (key, text) = match self.derive(bulk, user.uid)? {
            UserKey::New(key, text) => (key, text),
            UserKey::Existing(key, text) => {
                // The key of an earlier request may end later than this actor may make keys.
                self.authority().check_key((&key).into())?;
                return Ok(UserKey::Existing(key, text));
            }
            UserKey::Skipped => return Ok(UserKey::Skipped),
        };
        ensure_valid(check_key(self, &key, self.0.clock.now()))?;
        let (count, newest) = self.keys_in_force(user.uid)?;
        let reason = if bulk.recipients == BulkRecipients::WithoutKey && count > 0 {
            &mut skipped.has_key
        } else if count >= self.0.keys_per_user {
            &mut skipped.has_most
        } else if !has_scopes(self, user.uid, bulk.new.scopes.as_deref()) {
            &mut skipped.lacks_scope
        } else {
            batch.expect(Table::Users, table::user(user.uid), Expected::Present);
            batch.expect(Table::Owners, table::user(user.uid), Expected::Newest(newest));
            put_new_key(batch, &key);
            return Ok(UserKey::New(key, text));
        };
        *reason += 1;
        Ok(UserKey::Skipped)
    }
}

impl Accounts {
    /// Derives the key of a user in a run. The key may exist from an earlier request.
    fn derive(&self, bulk: &BulkIssue, uid: u64) -> Result<UserKey, AccountError> {
        let prefix = self.key_prefix(bulk.new.application.as_deref());
        for attempt in 0..ID_ATTEMPTS {
            // Each attempt derives two secrets from two numbers. The number with bit 63 set gives
            // the first id of a block of users, the number with bit 63 clear gives the user's text.
            let number_of = |index: u64| index.wrapping_mul(ID_ATTEMPTS).wrapping_add(attempt);
            let block = number_of(uid / USERS_PER_BLOCK) | 1 << 63;
            let base = Entropy::derived(self.0.pepper.run_secret(&bulk.run, block)).bytes();
            let base = KeyId::from_number(u64::from_le_bytes(base)).number();
            let id = KeyId::from_number(base + uid % USERS_PER_BLOCK);
            let user_number = number_of(uid) & !(1 << 63);
            let entropy = Entropy::derived(self.0.pepper.run_secret(&bulk.run, user_number));
            let text = KeyText::with_id(&prefix, id, &entropy);
            let (key, text) = self.key_from_text(uid, &bulk.new, prefix.clone(), text);
            let Some(existing) = self.key(id)? else { return Ok(UserKey::New(key, text)) };
            let existing = existing.record;
            // An existing key is returned only if its restrictions equal the requested
            // restrictions, even to a client that knows the run's id.
            let has_same_restrictions =
                (&existing.scopes, &existing.application, &existing.networks)
                    == (&key.scopes, &key.application, &key.networks);
            if existing.user == uid && existing.digest == key.digest && has_same_restrictions {
                let is_in_force = existing.is_in_force(self.0.clock.now());
                return Ok(if is_in_force {
                    UserKey::Existing(existing, text)
                } else {
                    UserKey::Skipped
                });
            }
            // The id belongs to another key: try the next id.
        }
        Err(AccountError::contended())
    }
}

fn audit_act(part: &BulkPart, keys: usize) -> Act {
    let uid = |item: Option<&(String, Issued)>| item.map(|(_, issued)| issued.key.record.user);
    let details = json!({
        "keys": keys,
        "first_user": uid(part.items.first()),
        "last_user": uid(part.items.last()),
    });
    Act::other("key.generate-all", "key", details)
}
