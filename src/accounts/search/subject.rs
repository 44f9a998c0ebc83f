//! The user that an entry of the audit trail is about.

use serde_json::Value;

use crate::{
    accounts::{Accounts, NumberedEntry},
    model::KeyId,
};

/// The user that an entry is about: the object, or the owner of the key that is the object. `None`
/// means that the entry is not about one user.
pub fn subject(numbered: &NumberedEntry, accounts: &Accounts) -> Option<u64> {
    let object = &numbered.entry.act.object;
    if let Some(uid) = object.strip_prefix("user/") {
        return uid.parse().ok();
    }
    let id = KeyId::parse(object.strip_prefix("key/")?)?;
    let recorded = sides(numbered).find_map(|side| side["user"].as_u64());
    recorded.or_else(|| accounts.directory().key(id).map(|key| key.user))
}

/// The two sides of a change: after it and before it.
pub fn sides(numbered: &NumberedEntry) -> impl Iterator<Item = &Value> {
    let act = &numbered.entry.act;
    [&act.after, &act.before].into_iter().flatten()
}
