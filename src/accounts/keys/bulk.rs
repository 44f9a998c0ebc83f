//! Keys for all users, a part at a time: each part is one commit.
//!
//! A key's text is shown once, so an answer that is lost would be a key that nobody has. Therefore the texts of a run are made of the pepper
//! and the run's name: whoever asks for a part again, with the same name, gets the same keys, and nothing is made twice.

use std::collections::HashSet;

use serde_json::json;

use super::{key_key, put_new_key};
use crate::{
    accounts::{
        AccountError, Accounts, Issued, NewKey, TRIES, Versioned, Writer,
        events::New,
        is_race,
        rules::{check_key, has_scopes, in_order},
        users::uid_key,
    },
    model::{Act, Entropy, Key, KeyId, KeyText, Mode, Secret, User},
    store::{Batch, CommitError, State, Table},
};

/// A run's name. Not to be told: with it the caller of the run gets its keys again.
pub type RunId = [u8; 16];

/// How many neighbouring users get neighbouring ids: they lie together in the store, which makes writing many of them cheap.
const NEIGHBOURS: u64 = 1024;

/// A key is written, and its place among its user's keys.
const WRITES: usize = 2;

/// For whom keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Every user.
    All,
    /// Those who have no key that is in force.
    Missing,
}

/// A part of a run.
#[derive(Debug, Clone)]
pub struct Bulk {
    /// The run's name.
    pub run: RunId,
    /// For whom.
    pub whom: Whom,
    /// Whether administrators get keys.
    pub includes_administrators: bool,
    /// What each key is to be.
    pub new: NewKey,
    /// Users behind this number.
    pub after: Option<u64>,
    /// At most so many users are looked at.
    pub limit: usize,
}

/// What came of a part.
#[derive(Debug)]
pub struct BulkPart {
    /// The keys, each with its user's name.
    pub items: Vec<(String, Issued)>,
    /// Why the others got none.
    pub skipped: Skipped,
    /// The last user that was looked at.
    pub last: Option<u64>,
    /// Whether there are more users.
    pub has_more: bool,
}

/// How many users got no key, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// They have one.
    pub has_key: usize,
    /// They have as many as there may be.
    pub has_most: usize,
    /// They do not have the scopes.
    pub lacks_scope: usize,
    /// They are administrators, and whoever asks is none.
    pub administrator: usize,
}

/// What a user gets.
enum Share {
    New(Key, Secret),
    /// Made when this part was asked for before.
    Again(Key, Secret),
    Nothing,
}

impl Writer {
    /// Makes keys for the next users of a run.
    ///
    /// # Errors
    /// What is asked for is not in order, or the store cannot write. Then no key of this part is made.
    pub async fn issue_for_many(&self, bulk: &Bulk) -> Result<BulkPart, AccountError> {
        for _ in 0..TRIES {
            let page = self.users(bulk.after, bulk.limit)?;
            let mut part = BulkPart {
                items: Vec::with_capacity(page.items.len()),
                skipped: Skipped::default(),
                last: page.items.last().map(|user| user.record.uid),
                has_more: page.has_more,
            };
            let mut batch = Batch::new();
            let mut made = HashSet::new();
            for user in page.items {
                let share = self.share(bulk, &user.record, &mut part.skipped, &mut batch)?;
                if let Share::New(key, _) = &share {
                    made.insert(key.id);
                }
                let (Share::New(key, text) | Share::Again(key, text)) = share else { continue };
                let key = Versioned { revision: 0, record: key };
                part.items.push((user.record.name, Issued { key, text }));
            }
            if batch.writes.is_empty() {
                return Ok(part);
            }
            let new = part.items.iter().filter(|(_, one)| made.contains(&one.key.record.id));
            let new: Vec<_> = new.map(|(name, one)| New::Key(&one.key.record, name)).collect();
            let webhooks = self.ask(&new, Mode::Live).await?;
            let act = told(&part, batch.writes.len() / WRITES);
            match self.commit_telling(batch, act, webhooks).await {
                Ok(revision) => {
                    part.items.iter_mut().for_each(|(_, issued)| issued.key.revision = revision);
                    return Ok(part);
                }
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    fn share(
        &self,
        bulk: &Bulk,
        user: &User,
        skipped: &mut Skipped,
        batch: &mut Batch,
    ) -> Result<Share, AccountError> {
        let is_admin = self.0.directory.policy().roles.has_administrators(&user.roles);
        if is_admin && !bulk.includes_administrators {
            skipped.administrator += 1;
            return Ok(Share::Nothing);
        }
        let (key, text) = match self.derive(bulk, user.uid)? {
            Share::New(key, text) => (key, text),
            share => return Ok(share),
        };
        in_order(check_key(self, &key, self.0.clock.now()))?;
        let (held, newest) = self.keys_in_force(user.uid)?;
        let reason = if bulk.whom == Whom::Missing && held > 0 {
            &mut skipped.has_key
        } else if held >= self.0.keys_per_user {
            &mut skipped.has_most
        } else if !has_scopes(self, user.uid, bulk.new.scopes.as_deref()) {
            &mut skipped.lacks_scope
        } else {
            batch.expect(Table::Users, uid_key(user.uid), State::Present);
            batch.expect(Table::Owners, uid_key(user.uid), State::Newest(newest));
            put_new_key(batch, &key);
            return Ok(Share::New(key, text));
        };
        *reason += 1;
        Ok(Share::Nothing)
    }
}

impl Accounts {
    /// The key that a run makes for a user: new, or the one that it has made.
    fn derive(&self, bulk: &Bulk, uid: u64) -> Result<Share, AccountError> {
        let prefix = self.key_prefix(bulk.new.application.as_deref());
        for attempt in 0..TRIES as u64 {
            // Of a part of its own for each attempt, for neighbours and for each of them.
            let part = |number: u64| number.wrapping_mul(TRIES as u64).wrapping_add(attempt);
            let block = part(uid / NEIGHBOURS) | 1 << 63;
            let base = Entropy::derived(self.0.pepper.run_secret(&bulk.run, block)).bytes();
            let base = KeyId::from_number(u64::from_le_bytes(base)).number();
            let id = KeyId::from_number(base + uid % NEIGHBOURS);
            let own = Entropy::derived(self.0.pepper.run_secret(&bulk.run, part(uid) & !(1 << 63)));
            let text = KeyText::with_id(&prefix, id, &own);
            let (key, text) = self.key_of_text(uid, &bulk.new, prefix.clone(), text);
            let Some(stored) = self.store().get(Table::Keys, &key_key(id))? else {
                return Ok(Share::New(key, text));
            };
            let held: Key = stored.read(Table::Keys, &key_key(id))?;
            // One that is bound otherwise is not what is asked for, whoever knows the run's name.
            let is_alike = (&held.scopes, &held.application, &held.networks)
                == (&key.scopes, &key.application, &key.networks);
            if held.user == uid && held.digest == key.digest && is_alike {
                return Ok(match held.is_in_force(self.0.clock.now()) {
                    true => Share::Again(held, text),
                    // It was taken back since.
                    false => Share::Nothing,
                });
            }
            // Somebody else's id.
        }
        Err(AccountError::contended())
    }
}

/// What the audit trail says of a part.
fn told(part: &BulkPart, keys: usize) -> Act {
    let uid = |item: Option<&(String, Issued)>| item.map(|(_, issued)| issued.key.record.user);
    let known = json!({
        "keys": keys,
        "first_user": uid(part.items.first()),
        "last_user": uid(part.items.last()),
    });
    Act::other("key.generate-all", "key", known)
}
