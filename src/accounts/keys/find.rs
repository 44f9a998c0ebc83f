//! Finds the owner of a leaked credential, also if the key or its user was deleted.

use serde_json::Value;

use crate::{
    accounts::{AccountError, Accounts, AuditOrder, NumberedEntry, Versioned},
    model::{Act, Candidate, Found, Key, KeyId, Scanner, Timestamp, candidates},
};

/// The entries of the audit trail in one step of a search.
const PAGE: usize = 1000;

/// A key that a text contains.
#[derive(Debug)]
pub struct FoundKey {
    /// The kind of the text around the key, such as `a credential in Base64`.
    pub form: &'static str,
    /// The user's name in the credential. `None` means that the form has no name.
    pub presented_user: Option<String>,
    /// The key.
    pub key: FoundRecord,
}

/// The record of a found key, or what is left of it.
#[derive(Debug)]
pub enum FoundRecord {
    /// The key is in the store.
    Present(Box<Versioned<Key>>),
    /// The key is not in the store any more. The audit trail still knows it.
    Deleted(DeletedKey),
    /// The text has the format and the checksum of a key, but this store never had the key, or the
    /// audit trail has forgotten it.
    Unknown(KeyId),
}

/// A key that was deleted, alone or with its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedKey {
    /// The key's id.
    pub id: KeyId,
    /// The uid of the user to whom the key belonged.
    pub user: u64,
    /// The name of the user. `None` means that the trail does not have the name.
    pub username: Option<String>,
    /// The label of the key.
    pub label: String,
    /// The time at which the key was deleted. `None` means that the trail does not have the time.
    pub deleted: Option<Timestamp>,
    /// Whether the key was deleted alone. Otherwise it was deleted with its user.
    pub is_deleted_alone: bool,
}

impl Accounts {
    /// Finds the keys in a text, in any form in which clients send or people keep them.
    ///
    /// An imported key is found by its digest, unless its digest is slow and was never replaced.
    ///
    /// # Errors
    /// The store failed.
    pub fn find_keys(&self, text: &str) -> Result<Vec<FoundKey>, AccountError> {
        let mut found: Vec<FoundKey> = Vec::new();
        let all = candidates(text);
        for candidate in &all {
            let Candidate { form, user, key } = candidate;
            let Some((id, _)) = self.0.directory.foreign_key(&self.0.pepper, key.expose()) else {
                continue;
            };
            if let Some(key) = self.key(id)? {
                let key = FoundRecord::Present(Box::new(key));
                found.push(FoundKey { form, presented_user: user.clone(), key });
            }
        }
        for Found { id, .. } in scan(text) {
            let is_of = |key: &FoundKey| match &key.key {
                FoundRecord::Present(key) => key.record.id == id,
                FoundRecord::Deleted(key) => key.id == id,
                FoundRecord::Unknown(known) => *known == id,
            };
            if found.iter().any(is_of) {
                continue;
            }
            let has_id = |candidate: &&Candidate| {
                let shape = crate::model::KeyText::shape(candidate.key.expose());
                shape == crate::model::KeyShape::Ours(id)
            };
            let candidate = all.iter().find(has_id);
            found.push(FoundKey {
                form: candidate.map_or("a key in a text", |candidate| candidate.form),
                presented_user: candidate.and_then(|candidate| candidate.user.clone()),
                key: match self.key(id)? {
                    Some(key) => FoundRecord::Present(Box::new(key)),
                    None => match self.deleted_key(id)? {
                        Some(deleted) => FoundRecord::Deleted(deleted),
                        None => FoundRecord::Unknown(id),
                    },
                },
            });
        }
        Ok(found)
    }

    /// Looks for a deleted key in the audit trail.
    pub fn deleted_key(&self, id: KeyId) -> Result<Option<DeletedKey>, AccountError> {
        let Some(entry) = self.newest_entry(|entry| owner_in(entry, id).is_some())? else {
            return Ok(None);
        };
        let Some(user) = owner_in(&entry, id) else { return Ok(None) };
        let act = &entry.entry.act;
        if let Some((username, label)) = deleted_alone(act, id) {
            let deleted = Some(entry.entry.time);
            return Ok(Some(DeletedKey {
                id,
                user,
                username,
                label,
                deleted,
                is_deleted_alone: true,
            }));
        }
        let of_key = act.after.as_ref().or(act.before.as_ref());
        let label = of_key.and_then(|key| key["label"].as_str()).unwrap_or_default().to_owned();
        let user_object = format!("user/{user}");
        let deletion = self.newest_entry(|entry| {
            let act = &entry.entry.act;
            act.object == user_object && act.action == "user.delete"
        })?;
        let name = deletion.as_ref().and_then(|entry| entry.entry.act.before.as_ref());
        let username = name.and_then(|user| user["name"].as_str()).map(str::to_owned);
        let deleted = deletion.map(|entry| entry.entry.time);
        let is_deleted_alone = false;
        Ok(Some(DeletedKey { id, user, username, label, deleted, is_deleted_alone }))
    }

    fn newest_entry(
        &self,
        is_wanted: impl Fn(&NumberedEntry) -> bool,
    ) -> Result<Option<NumberedEntry>, AccountError> {
        let mut after = None;
        loop {
            let page = self.audit(AuditOrder::Newest, after, PAGE)?;
            after = page.items.last().map(|entry| entry.number);
            if let Some(found) = page.items.into_iter().find(&is_wanted) {
                return Ok(Some(found));
            }
            if !page.has_more || after.is_none() {
                return Ok(None);
            }
        }
    }
}

/// The owner of a key, from an entry about the key or with a list of keys. `None` means that the
/// entry does not name the owner.
fn owner_in(entry: &NumberedEntry, id: KeyId) -> Option<u64> {
    let act = &entry.entry.act;
    let sides = [&act.after, &act.before].into_iter().flatten();
    let text = id.to_string();
    if act.object.strip_prefix("key/").is_some_and(|object| object == text) {
        return sides.filter_map(|side| side["user"].as_u64()).next();
    }
    if !["key.imported", "key.generated", "key.purged"].contains(&act.action.as_str()) {
        return None;
    }
    let mut listed = sides.filter_map(|side| side["keys"].as_array()).flatten();
    listed.find(|pair| pair[0] == *text.as_str())?[1].as_u64()
}

/// The name of the user and the label of a key that was deleted alone, from the entry about the
/// deletion. `None` means that the entry is about something else.
fn deleted_alone(act: &Act, id: KeyId) -> Option<(Option<String>, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match act.action.as_str() {
        "key.delete" => {
            let key = act.before.as_ref()?;
            Some((text(&key["username"]), text(&key["label"]).unwrap_or_default()))
        }
        "key.purged" => {
            let mut keys = act.after.as_ref()?["keys"].as_array()?.iter();
            let key = keys.find(|key| key[0] == *id.to_string())?;
            Some((text(&key[2]), text(&key[3]).unwrap_or_default()))
        }
        _ => None,
    }
}

fn scan(text: &str) -> Vec<Found> {
    let (mut scanner, mut found) = (Scanner::default(), Vec::new());
    scanner.read(text.as_bytes(), &mut found);
    scanner.finish(&mut found);
    found
}
