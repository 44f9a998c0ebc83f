//! The names of the users that entries of the audit trail are about, also of deleted users.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    aborted,
    subject::{FormerOwners, key, owners, sides, subject},
};
use crate::{
    accounts::{AccountError, Accounts, AuditOrder, NumberedEntry},
    model::{Actor, KeyId, fold},
};

/// The number of entries that are read at most to find the names of deleted users.
const MOST_ENTRIES: usize = 100_000;
/// The number of entries that are read from the store at once.
const ENTRIES_PER_READ: usize = 500;

/// The users that entries are about, by the numbers of the entries.
#[derive(Debug, Default)]
pub struct UserNames {
    subjects: BTreeMap<u64, u64>,
    names: BTreeMap<u64, String>,
}

impl UserNames {
    /// The user that an entry is about: the uid, and the name if it is known.
    pub fn subject(&self, entry: u64) -> Option<(u64, Option<&str>)> {
        let uid = *self.subjects.get(&entry)?;
        Some((uid, self.names.get(&uid).map(String::as_str)))
    }
}

impl Accounts {
    /// The users that these entries are about, and their names. Those of deleted users and keys
    /// come from the trail.
    pub(super) fn names_in(
        &self,
        entries: &[NumberedEntry],
        cancelled: &AtomicBool,
    ) -> Result<UserNames, AccountError> {
        let none = FormerOwners::new();
        let has_subject = |entry: &&NumberedEntry| subject(entry, self, &none).is_some();
        let lost: BTreeSet<KeyId> =
            entries.iter().filter(|entry| !has_subject(entry)).filter_map(key).collect();
        let former = if lost.is_empty() {
            none
        } else {
            self.former_owners(cancelled, |id, _| lost.contains(&id))?
        };
        let mut found = UserNames::default();
        let mut missing = BTreeSet::new();
        for entry in entries {
            let Some(uid) = subject(entry, self, &former) else { continue };
            found.subjects.insert(entry.number, uid);
            match self.directory().user(uid) {
                Some(user) => drop(found.names.insert(uid, user.name.to_string())),
                None => drop(missing.insert(uid)),
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        self.newest_entries(cancelled, |entry| {
            if let Some((uid, name)) = name_of(entry)
                && missing.remove(&uid)
            {
                found.names.insert(uid, name);
            }
            missing.is_empty()
        })?;
        Ok(found)
    }

    /// The owners of keys that are not in the store any more, as far as the newest entries of the
    /// trail know them.
    pub(super) fn former_owners(
        &self,
        cancelled: &AtomicBool,
        is_wanted: impl Fn(KeyId, u64) -> bool,
    ) -> Result<FormerOwners, AccountError> {
        let mut found = FormerOwners::new();
        self.newest_entries(cancelled, |entry| {
            let owners = owners(entry).into_iter();
            let wanted = owners.filter(|(id, owner)| is_wanted(*id, *owner));
            found.extend(wanted.filter(|(id, _)| self.directory().key(*id).is_none()));
            false
        })?;
        Ok(found)
    }

    /// The user with this name, also if the user was deleted: then the trail still knows the name.
    /// `None` means that no user has or had this name, as far as the newest entries of the trail
    /// know.
    pub(crate) async fn present_or_former_user(
        &self,
        name: &str,
    ) -> Result<Option<u64>, AccountError> {
        if let Some(user) = self.directory().user_by_name(name) {
            return Ok(Some(user.uid));
        }
        let (accounts, name) = (self.clone(), fold(name));
        self.run_search(move |cancelled| {
            let mut uid = None;
            accounts.newest_entries(cancelled, |entry| {
                uid = name_of(entry).filter(|(_, found)| fold(found) == name).map(|(uid, _)| uid);
                uid.is_some()
            })?;
            Ok(uid)
        })
        .await
    }

    /// Shows the newest entries to `each`, until it returns true.
    fn newest_entries(
        &self,
        cancelled: &AtomicBool,
        mut each: impl FnMut(&NumberedEntry) -> bool,
    ) -> Result<(), AccountError> {
        let mut after = None;
        for _ in 0..MOST_ENTRIES / ENTRIES_PER_READ {
            if cancelled.load(Ordering::Relaxed) {
                return Err(aborted());
            }
            let page = match self.audit(AuditOrder::Newest, after, ENTRIES_PER_READ) {
                // A list shows the entries that can be read. The names are an addition.
                Err(AccountError::AuditTrail(_)) => return Ok(()),
                page => page?,
            };
            after = page.items.last().map(|entry| entry.number);
            if page.items.iter().any(&mut each) || !page.has_more || after.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The user whose name an entry has: the object of the entry, or its actor.
fn name_of(numbered: &NumberedEntry) -> Option<(u64, String)> {
    let object = numbered.entry.act.object.strip_prefix("user/");
    if let Some(uid) = object.and_then(|uid| uid.parse().ok())
        && let Some(name) = sides(numbered).find_map(|side| side["name"].as_str())
    {
        return Some((uid, name.to_owned()));
    }
    match &numbered.entry.actor {
        Actor::User { uid, name, .. } => Some((*uid, name.clone())),
        _ => None,
    }
}
