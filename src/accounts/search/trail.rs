//! Searching the audit trail.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    aborted, names,
    subject::{FormerOwners, sides, subject},
};
use crate::{
    accounts::{AccountError, Accounts, AuditOrder, NumberedEntry},
    model::{Actor, KeyId, Timestamp},
};

/// The number of entries that a search of the trail reads at most. The next page continues after
/// these entries.
const ENTRIES_PER_PAGE: usize = if cfg!(test) { 1000 } else { 20_000 };
/// The number of entries that are read from the store at once.
const ENTRIES_PER_READ: usize = 500;

/// Selects entries. An entry must match every part that is set.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// The user who acted, or whom the entry is about.
    pub user: Option<u64>,
    /// The key that acted, or that the entry is about.
    pub key: Option<KeyId>,
    /// The action, or the text with which it begins.
    pub action: Option<TextPattern>,
    /// The object, or the text with which it begins.
    pub object: Option<TextPattern>,
    /// Entries of this time or later.
    pub since: Option<Timestamp>,
    /// Entries before this time.
    pub until: Option<Timestamp>,
}

/// A text, or the text with which others begin. Case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextPattern {
    /// The whole text.
    Whole(String),
    /// The beginning of the text.
    Beginning(String),
}

/// A page of a search of the trail.
#[derive(Debug, Default)]
pub struct FoundEntries {
    /// The entries.
    pub items: Vec<NumberedEntry>,
    /// The number of the last entry that was read, if more entries may follow.
    pub next: Option<u64>,
    /// The names of the users that the entries are about.
    pub names: names::UserNames,
}

impl TextPattern {
    /// A pattern that ends with `*` means all texts that begin with the rest.
    pub fn parse(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Beginning(folded(beginning)),
            None => Self::Whole(folded(text)),
        }
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        let text = folded(text);
        match self {
            Self::Whole(whole) => text == *whole,
            Self::Beginning(beginning) => text.starts_with(beginning),
        }
    }
}

/// The final sigma is the same letter as the other one.
fn folded(text: &str) -> String {
    crate::model::fold(text).replace('ς', "σ")
}

impl Accounts {
    /// Finds entries of the trail, with the names of the users that they are about.
    ///
    /// # Errors
    /// Those of [`Accounts::audit`].
    pub(crate) async fn search_audit(
        &self,
        filter: AuditFilter,
        order: AuditOrder,
        after: Option<u64>,
        limit: usize,
    ) -> Result<FoundEntries, AccountError> {
        let accounts = self.clone();
        self.run_search(move |cancelled| {
            let mut found = accounts.matching(&filter, order, after, limit, cancelled)?;
            found.names = accounts.names_in(&found.items, cancelled)?;
            Ok(found)
        })
        .await
    }

    fn matching(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        mut after: Option<u64>,
        limit: usize,
        cancelled: &AtomicBool,
    ) -> Result<FoundEntries, AccountError> {
        let is_plain = filter.is_empty();
        let former = match filter.user {
            Some(uid) => self.former_owners(cancelled, |_, owner| owner == uid)?,
            None => FormerOwners::new(),
        };
        let mut found = FoundEntries::default();
        let mut read = 0;
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(aborted());
            }
            let part = if is_plain { limit } else { ENTRIES_PER_READ };
            let page = match self.audit(order, after, part) {
                // The entries before the broken one are shown. The next page is then the error.
                Err(AccountError::AuditTrail(_)) if !found.items.is_empty() => {
                    return Ok(FoundEntries { next: after, ..found });
                }
                page => page?,
            };
            for entry in page.items {
                read += 1;
                let number = entry.number;
                if filter.matches(&entry, self, &former) {
                    if found.items.len() == limit {
                        return Ok(FoundEntries { next: after, ..found });
                    }
                    found.items.push(entry);
                }
                after = Some(number);
            }
            if !page.has_more {
                return Ok(FoundEntries { next: None, ..found });
            }
            let is_full = is_plain && found.items.len() >= limit;
            if is_full || read >= ENTRIES_PER_PAGE {
                return Ok(FoundEntries { next: after, ..found });
            }
        }
    }
}

impl AuditFilter {
    /// Whether every entry matches.
    pub fn is_empty(&self) -> bool {
        let Self { user, key, action, object, since, until } = self;
        user.is_none()
            && key.is_none()
            && action.is_none()
            && object.is_none()
            && since.is_none()
            && until.is_none()
    }

    fn matches(
        &self,
        numbered: &NumberedEntry,
        accounts: &Accounts,
        former: &FormerOwners,
    ) -> bool {
        let entry = &numbered.entry;
        let fits = |pattern: &Option<TextPattern>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| pattern.matches(text))
        };
        self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
            && fits(&self.action, &entry.act.action)
            && fits(&self.object, &entry.act.object)
            && self.key.is_none_or(|key| concerns_key(numbered, key))
            && self.user.is_none_or(|uid| concerns_user(numbered, uid, accounts, former))
    }
}

/// Whether a key acted, or the entry is about the key.
fn concerns_key(numbered: &NumberedEntry, id: KeyId) -> bool {
    let entry = &numbered.entry;
    let acted = matches!(&entry.actor, Actor::User { key: Some(key), .. } if *key == id);
    let text = id.to_string();
    acted
        || entry.act.object.strip_prefix("key/") == Some(&text)
        || sides(numbered).any(|side| {
            let listed = side["keys"].as_array().into_iter().flatten();
            side["key"] == *text.as_str()
                || side["rotated"]["to"] == *text.as_str()
                || listed.into_iter().any(|pair| pair[0] == *text.as_str())
        })
}

/// Whether a user acted, or the entry is about the user or one of the user's keys.
fn concerns_user(
    numbered: &NumberedEntry,
    uid: u64,
    accounts: &Accounts,
    former: &FormerOwners,
) -> bool {
    let entry = &numbered.entry;
    if matches!(&entry.actor, Actor::User { uid: actor, .. } if *actor == uid)
        || subject(numbered, accounts, former) == Some(uid)
    {
        return true;
    }
    sides(numbered).any(|side| {
        let pairs = |name: &str| side[name].as_array().into_iter().flatten();
        side["uid"] == uid
            || pairs("users").any(|pair| pair[0] == uid)
            || pairs("keys").any(|pair| pair[1] == uid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_is_a_whole_text_or_a_beginning() {
        for (pattern, text, matches) in [
            ("ann", "Ann", true),
            ("ann", "anna", false),
            ("an*", "ANNA", true),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("ΟΔΟΣ*", "οδοσα", true),
            ("key.*", "key.revoke", true),
            ("key.*", "keys", false),
        ] {
            assert_eq!(TextPattern::parse(pattern).matches(text), matches, "{pattern} {text}");
        }
    }
}
