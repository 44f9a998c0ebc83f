//! The user that an entry of the audit trail is about.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    accounts::{Accounts, NumberedEntry},
    model::KeyId,
};

/// The owners of keys that are not in the store any more, as the trail knows them.
pub type FormerOwners = BTreeMap<KeyId, u64>;

/// The user that an entry is about: the object, or the owner of the key that is the object. `None`
/// means that the entry is not about one user, or that the owner of the key is not known.
pub fn subject(
    numbered: &NumberedEntry,
    accounts: &Accounts,
    former: &FormerOwners,
) -> Option<u64> {
    let object = &numbered.entry.act.object;
    if let Some(uid) = object.strip_prefix("user/") {
        return uid.parse().ok();
    }
    let id = key(numbered)?;
    let present = || accounts.directory().key(id).map(|key| key.user);
    recorded_owner(numbered).or_else(present).or_else(|| former.get(&id).copied())
}

/// The key that is the object of an entry.
pub fn key(numbered: &NumberedEntry) -> Option<KeyId> {
    KeyId::parse(numbered.entry.act.object.strip_prefix("key/")?)
}

/// The keys whose owners an entry has, each with its owner.
pub fn owners(numbered: &NumberedEntry) -> Vec<(KeyId, u64)> {
    if let Some(id) = key(numbered) {
        return recorded_owner(numbered).map(|owner| (id, owner)).into_iter().collect();
    }
    let listed = sides(numbered).filter_map(|side| side["keys"].as_array()).flatten();
    let pair = |pair: &Value| Some((KeyId::parse(pair[0].as_str()?)?, pair[1].as_u64()?));
    listed.filter_map(pair).collect()
}

fn recorded_owner(numbered: &NumberedEntry) -> Option<u64> {
    sides(numbered).find_map(|side| side["user"].as_u64())
}

/// The two sides of a change: after it and before it.
pub fn sides(numbered: &NumberedEntry) -> impl Iterator<Item = &Value> {
    let act = &numbered.entry.act;
    [&act.after, &act.before].into_iter().flatten()
}
