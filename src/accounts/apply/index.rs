//! The planned index of user names or mail addresses: which user gives a value up, and which user
//! gets it.

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

/// The names or the mail addresses of the users of a plan.
#[derive(Debug)]
pub(super) struct UserIndex {
    table: Table,
    entries: BTreeMap<String, IndexEntry>,
}

#[derive(Debug, Default)]
struct IndexEntry {
    /// The uid that has the value now.
    before: Option<u64>,
    /// The uid that will have the value, and the user's position in the plan.
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
            self.entries.entry(value).or_default().before = Some(uid);
        }
        let Some((uid, value)) = change.after.as_ref().and_then(entry_of) else { return };
        let entry = self.entries.entry(value).or_default();
        if entry.after.is_none() {
            entry.after = Some((uid, position));
            return;
        }
        let (field, name) = match self.table {
            Table::Mails => ("mail", "mail address"),
            _ => ("name", "name"),
        };
        violations.push(Violation::new(
            format!("users.{}.{field}", change.at.unwrap_or_default()),
            format!("Two users of the file have this {name}."),
            "Change it for one of them, or keep one of the two.",
        ));
    }

    /// The uid that will have a value. The outer `None` means that the plan does not concern the
    /// value, the inner `None` that no user will have it.
    pub fn planned_uid(&self, value: &str) -> Option<Option<u64>> {
        self.entries.get(value).map(|entry| entry.after.map(|(uid, _)| uid))
    }

    /// Reports the values that belong to users outside of the plan.
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
                    // A user who gives the value up is written in the same commit, with an
                    // expectation of its own.
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
