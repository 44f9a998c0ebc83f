//! The planned index of user names or mail addresses: for each value, the user who has it now and
//! the user who will have it.

use std::collections::BTreeMap;

use super::change::PlannedChange;
use crate::{
    accounts::{
        AccountError, Accounts,
        users::{taken_mail, taken_name},
    },
    model::{User, Violation},
    store::{Batch, Expected, Table, encode},
};

/// The index of either the names or the mail addresses of the users in a plan.
#[derive(Debug)]
pub(super) struct UserIndex {
    table: Table,
    entries: BTreeMap<String, IndexEntry>,
}

#[derive(Debug, Default)]
struct IndexEntry {
    /// The uid of the user in the plan who has the value now.
    before: Option<u64>,
    /// The uid of the user who will have the value, and that user's position in the plan.
    after: Option<(u64, usize)>,
}

impl UserIndex {
    /// An empty index.
    pub fn new(table: Table) -> Self {
        Self { table, entries: BTreeMap::new() }
    }

    /// Adds the current and the planned value of a user. `position` is the user's position in the
    /// plan.
    pub fn add(
        &mut self,
        position: usize,
        change: &PlannedChange<User>,
        value: impl Fn(&User) -> Option<String>,
        violations: &mut Vec<Violation>,
    ) {
        let entry_of = |user: &User| Some((user.uid, value(user)?));
        if let Some((uid, value)) = change.current().and_then(entry_of) {
            self.entries.entry(value).or_default().before.get_or_insert(uid);
        }
        let Some((uid, key)) = change.after.as_ref().and_then(entry_of) else { return };
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.after.is_none() {
            entry.after = Some((uid, position));
            return;
        }
        // Users of an old store keep texts that are equal now.
        if change.current().and_then(value).as_ref() == Some(&key) {
            return;
        }
        let (field, name) = match self.table {
            Table::Mails => ("mail", "mail address"),
            _ => ("name", "name"),
        };
        violations.push(Violation::new(
            format!("users.{}.{field}", change.at.unwrap_or_default()),
            format!("Two users of the file have this {name}."),
            "Change it for one of the users, or remove one of the users.",
        ));
    }

    /// The uid of the user who will have a value. `None` means that no user in the plan has or gets
    /// the value. `Some(None)` means that a user gives the value up and no other user gets it.
    pub fn planned_uid(&self, value: &str) -> Option<Option<u64>> {
        self.entries.get(value).map(|entry| entry.after.map(|(uid, _)| uid))
    }

    /// Adds a violation for each planned value that a user outside of the plan has.
    pub fn check(
        &self,
        accounts: &Accounts,
        users: &[PlannedChange<User>],
        violations: &mut Vec<Violation>,
    ) -> Result<(), AccountError> {
        for (value, entry) in &self.entries {
            let (Some((uid, position)), None) = (entry.after, entry.before) else { continue };
            if accounts.uid_by(self.table, value)?.is_none_or(|owner| owner == uid) {
                continue;
            }
            let change = &users[position];
            let Some(user) = &change.after else { continue };
            let mut taken = match self.table {
                Table::Mails => taken_mail(user),
                _ => taken_name(user),
            };
            taken.location = format!("users.{}.{}", change.at.unwrap_or_default(), taken.location);
            violations.push(taken);
        }
        Ok(())
    }

    /// Adds the writes of the index to the batch.
    pub fn write(&self, batch: &mut Batch) {
        for (value, entry) in &self.entries {
            match (entry.before, entry.after) {
                (Some(_), None) => drop(batch.delete(self.table, value.as_str())),
                (before, Some((uid, _))) if before != Some(uid) => {
                    // If another user gives the value up, that user's record is written in the same
                    // commit with its own expectation. So only a free value needs one here.
                    if before.is_none() {
                        batch.expect(self.table, value.as_str(), Expected::Missing);
                    }
                    batch.put(self.table, value.as_str(), encode(&uid));
                }
                _ => {}
            }
        }
    }
}

impl Accounts {
    /// The uid of the user who has a name or a mail address.
    pub(super) fn uid_by(&self, table: Table, value: &str) -> Result<Option<u64>, AccountError> {
        let stored = self.store().get(table, value.as_bytes())?;
        Ok(stored.map(|stored| stored.read(table, value.as_bytes())).transpose()?)
    }
}
