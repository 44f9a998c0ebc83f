//! An index over users as it is to be: who gives a name up, and who takes it.

use std::collections::BTreeMap;

use super::plan::Change;
use crate::{
    accounts::{
        AccountError, Accounts,
        users::{taken_mail, taken_name},
    },
    model::{User, Violation},
    store::{Batch, Expected, Table, encode},
};

/// The names, or the mail addresses, of the users of a plan.
#[derive(Debug)]
pub(super) struct Index {
    table: Table,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Whose it is.
    before: Option<u64>,
    /// Whose it is to be, and where that user stands in the plan.
    after: Option<(u64, usize)>,
}

impl Index {
    /// Nothing yet.
    pub fn new(table: Table) -> Self {
        Self { table, entries: BTreeMap::new() }
    }

    /// Takes in what a user has and what it is to have. `place` is where the user stands in the plan.
    pub fn take(
        &mut self,
        place: usize,
        one: &Change<User>,
        value: impl Fn(&User) -> Option<String>,
        found: &mut Vec<Violation>,
    ) {
        let before = one.before.as_ref().map(|before| &before.record);
        if let Some((uid, value)) = before.and_then(|user| Some((user.uid, value(user)?))) {
            self.entries.entry(value).or_default().before = Some(uid);
        }
        let after = one.after.as_ref();
        let Some((uid, value)) = after.and_then(|user| Some((user.uid, value(user)?))) else {
            return;
        };
        let entry = self.entries.entry(value).or_default();
        if entry.after.is_none() {
            entry.after = Some((uid, place));
            return;
        }
        let (field, what) = match self.table {
            Table::Mails => ("mail", "mail address"),
            _ => ("name", "name"),
        };
        found.push(Violation::new(
            format!("users.{}.{field}", one.at.unwrap_or_default()),
            format!("Two users of the file have this {what}."),
            "Give one of them another, or keep one of the two.",
        ));
    }

    /// Whose a value is to be, as far as the plan decides it; nobody's, when it is given up.
    pub fn holder(&self, value: &str) -> Option<Option<u64>> {
        self.entries.get(value).map(|entry| entry.after.map(|(uid, _)| uid))
    }

    /// Says which values others have, who are not in the plan.
    pub fn check(
        &self,
        accounts: &Accounts,
        users: &[Change<User>],
        found: &mut Vec<Violation>,
    ) -> Result<(), AccountError> {
        for (value, entry) in &self.entries {
            let (Some((uid, place)), None) = (entry.after, entry.before) else { continue };
            if accounts.holder(self.table, value)?.is_none_or(|holder| holder == uid) {
                continue;
            }
            let (at, user) = (users[place].at.unwrap_or_default(), users[place].after.as_ref());
            let Some(user) = user else { continue };
            let mut taken = match self.table {
                Table::Mails => taken_mail(user),
                _ => taken_name(user),
            };
            taken.location = format!("users.{at}.{}", taken.location);
            found.push(taken);
        }
        Ok(())
    }

    /// What has to be written.
    pub fn write(&self, batch: &mut Batch) {
        for (value, entry) in &self.entries {
            match (entry.before, entry.after) {
                (Some(_), None) => drop(batch.delete(self.table, value.as_str())),
                (before, Some((uid, _))) if before != Some(uid) => {
                    // Whoever gives it up is written in the same commit, and must be as it was seen.
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
    /// The number of the user who has a name or a mail address.
    pub(super) fn holder(&self, table: Table, value: &str) -> Result<Option<u64>, AccountError> {
        let stored = self.store().get(table, value.as_bytes())?;
        Ok(stored.map(|stored| stored.read(table, value.as_bytes())).transpose()?)
    }
}
