//! Checks a plan, and turns it into a batch and into the differences that are reported.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    Announcements, Applied, ApplyOptions, Difference, LeftOut, Operation, PlannedCommit,
    change::PlannedChange,
    cleared,
    plan::Plan,
    record::{StateRecord, differing_fields},
};
use crate::{
    accounts::{
        AccountError, Accounts, Writer,
        authority::delete_resource_owner,
        keys::put_new_key,
        rules::ensure_valid,
        setup::PEPPER,
        usage::{delete_key_usage, delete_user_usage},
        users::names::{CURRENT_FORM, NAME_FORM},
    },
    model::{Mode, Violation},
    store::{Batch, Expected, Table, encode, table},
};

impl Plan {
    /// Checks the plan and builds the commit. The batch of a plan without changes is empty.
    pub fn into_commit(
        mut self,
        writer: &Writer,
        options: ApplyOptions,
    ) -> Result<PlannedCommit, AccountError> {
        ensure_valid(std::mem::take(&mut self.violations))?;
        let (mut applied, cleared) = self.differences(writer);
        if (options.left_out, options.mode) == (LeftOut::Refuse, Mode::Live) {
            self.violations.extend(cleared);
        }
        if applied.changes.is_empty() && !self.is_new {
            let (batch, announcements) = (Batch::new(), Announcements::default());
            return Ok(PlannedCommit { applied, batch, entries: Vec::new(), announcements });
        }
        let planned = self.planned_accounts(writer, writer.actor())?;
        applied.warnings = self.advice(&planned);
        self.check(writer, &planned)?;
        ensure_valid(std::mem::take(&mut self.violations))?;
        let administrator = self.keep_an_administrator(writer, &planned)?;
        self.keep_the_caller(writer, &planned, writer.actor())?;
        let mut batch = Batch::new();
        self.expect_unchanged(writer, administrator, &mut batch)?;
        self.delete(writer, &mut batch)?;
        self.put(writer, &mut batch)?;
        let entries = self.entries(writer);
        let announcements = self.announcements(writer);
        Ok(PlannedCommit { applied, batch, entries, announcements })
    }

    /// The new and revoked records for which the event scripts are called.
    fn announcements(self, accounts: &Accounts) -> Announcements {
        let names: HashMap<u64, String> = self
            .users
            .iter()
            .filter_map(|change| change.after.as_ref())
            .map(|user| (user.uid, user.name.clone()))
            .collect();
        let name = |uid: u64| names.get(&uid).cloned().unwrap_or_else(|| accounts.user_name(uid));
        let mut announcements = Announcements::default();
        for change in self.keys {
            let was_revoked = change.current().map(|before| before.revoked.is_some());
            let Some(key) = change.after else { continue };
            match (was_revoked, key.revoked.is_some()) {
                (None, false) => {
                    let owner = name(key.user);
                    announcements.new_keys.push((key, owner));
                }
                (Some(false), true) => announcements.revoked_keys.push(key),
                _ => {}
            }
        }
        let new = self.users.into_iter().filter(|change| change.before.is_none());
        announcements.new_users.extend(new.filter_map(|change| change.after));
        announcements
    }

    /// Adds expectations about the records that the rules have read: no other writer may change
    /// such a record before the commit. `administrator` is the uid of an administrator who remains.
    /// For a new store, also adds the write of the pepper's fingerprint.
    fn expect_unchanged(
        &self,
        accounts: &Accounts,
        administrator: Option<u64>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        expect_table_unchanged(&self.roles, batch);
        expect_table_unchanged(&self.applications, batch);
        expect_table_unchanged(&self.resources, batch);
        if let Some(uid) = administrator
            && let Some(user) = accounts.user(uid)?
        {
            batch.expect(Table::Users, table::user(uid), Expected::Revision(user.revision));
        }
        if self.is_new {
            batch.expect(Table::Meta, PEPPER, Expected::Missing);
            batch.put(Table::Meta, PEPPER, encode(&accounts.pepper().fingerprint()));
            batch.put(Table::Meta, NAME_FORM, encode(&CURRENT_FORM));
        }
        Ok(())
    }

    fn delete(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        for change in self.keys.iter().filter(|change| change.after.is_none()) {
            let Some(before) = &change.before else { continue };
            let (key, row) = (&before.record, before.record.key());
            batch.expect(Table::Keys, row.clone(), Expected::Revision(before.revision));
            batch.delete(Table::Keys, row);
            batch.delete(Table::Owners, table::owner(key.user, key.id));
            for digest in key.foreign_digests() {
                batch.delete(Table::Foreign, digest);
            }
            delete_key_usage(batch, key.id);
        }
        let mut last_deleted = None;
        for change in self.users.iter().filter(|change| change.after.is_none()) {
            let Some(before) = &change.before else { continue };
            let row = table::user(before.record.uid);
            batch.expect(Table::Users, row, Expected::Revision(before.revision));
            batch.delete(Table::Users, row);
            // A key that another writer adds before the commit would have no user.
            let newest = accounts.keys_in_force(before.record.uid)?.1;
            batch.expect(Table::Owners, row, Expected::Newest(newest));
            delete_user_usage(batch, before.record.uid);
            last_deleted = last_deleted.max(Some(before.record.uid));
        }
        if let Some(uid) = last_deleted {
            accounts.keep_last_uid(uid, batch)?;
        }
        remove(&self.resources, batch);
        remove(&self.applications, batch);
        remove(&self.roles, batch);
        Ok(())
    }

    fn put(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        self.cancel.check()?;
        write(&self.roles, batch);
        write(&self.applications, batch);
        write(&self.resources, batch);
        for change in self.resources.iter().filter(|change| change.has_effect()) {
            // Only administrators apply documents.
            let Some(resource) = change.current().or(change.after.as_ref()) else { continue };
            delete_resource_owner(&resource.id, accounts, batch)?;
        }
        write(&self.users, batch);
        self.names.write(batch);
        self.mails.write(batch);
        let new = self.users.iter().filter(|change| change.before.is_none());
        let new = new.filter_map(|change| change.after.as_ref());
        let new: HashSet<u64> = new.map(|user| user.uid).collect();
        let mut owners = BTreeSet::new();
        for change in self.keys.iter().filter(|change| change.has_effect()) {
            match (&change.before, &change.after) {
                (None, Some(key)) => {
                    put_new_key(batch, key);
                    owners.insert(key.user);
                }
                (Some(before), Some(key)) => {
                    batch.expect(Table::Keys, key.key(), Expected::Revision(before.revision));
                    batch.put(Table::Keys, key.key(), encode(key));
                }
                _ => {}
            }
        }
        for uid in owners {
            let newest = accounts.keys_in_force(uid)?.1;
            batch.expect(Table::Owners, table::user(uid), Expected::Newest(newest));
            if !new.contains(&uid) {
                batch.expect(Table::Users, table::user(uid), Expected::Present);
            }
        }
        Ok(())
    }

    /// Advice about the changed roles and resources. `planned` are the accounts of the dry run.
    fn advice(&self, planned: &Accounts) -> Vec<String> {
        let mut advice = Vec::new();
        for change in self.roles.iter().filter(|change| change.has_effect()) {
            let Some(after) = &change.after else { continue };
            let of_role = planned.advice_on_role(change.current(), after);
            advice.extend(of_role.into_iter().map(|text| format!("role {}: {text}", after.id)));
        }
        for change in self.resources.iter().filter(|change| change.has_effect()) {
            let Some(after) = &change.after else { continue };
            let of_resource = planned.advice_on_resource(change.current(), after);
            let with_id = |text| format!("resource {}: {text}", after.id);
            advice.extend(of_resource.into_iter().map(with_id));
        }
        advice
    }

    /// The differences, and the violations by fields that the document leaves out.
    fn differences(&self, accounts: &Accounts) -> (Applied, Vec<Violation>) {
        let after = self.users.iter().filter_map(|change| change.after.as_ref());
        let names: HashMap<u64, &str> = after.map(|user| (user.uid, user.name.as_str())).collect();
        let name = |uid: u64| match names.get(&uid) {
            Some(name) => Some((*name).to_owned()),
            None => accounts.directory().user(uid).map(|user| user.name.to_string()),
        };
        let applied = Applied { changes: Vec::new(), unchanged: 0, warnings: Vec::new() };
        let mut found = (applied, Vec::new());
        self.add_differences(&self.roles, &name, &mut found);
        self.add_differences(&self.applications, &name, &mut found);
        self.add_differences(&self.resources, &name, &mut found);
        self.add_differences(&self.users, &name, &mut found);
        self.add_differences(&self.keys, &name, &mut found);
        found
    }

    fn add_differences<T: StateRecord>(
        &self,
        changes: &[PlannedChange<T>],
        name_of: &dyn Fn(u64) -> Option<String>,
        (applied, violations): &mut (Applied, Vec<Violation>),
    ) {
        for change in changes {
            let before = change.current();
            let operation = match (before, &change.after) {
                (None, Some(_)) => Operation::Add,
                (Some(_), None) => Operation::Remove,
                _ if change.has_effect() => Operation::Change,
                _ => {
                    applied.unchanged += usize::from(change.at.is_some());
                    continue;
                }
            };
            let id = before.or(change.after.as_ref()).map(StateRecord::title).unwrap_or_default();
            let view = |record: &T| record.view(name_of);
            let (before, after) =
                differing_fields(before.map(view), change.after.as_ref().map(view));
            let cleared = self.fields.cleared::<T>(change.at, &before, &after);
            let difference =
                Difference { change: operation, kind: T::NAME, id, before, after, cleared };
            if let Some(index) = change.at {
                violations.extend(cleared::violations::<T>(index, &difference));
            }
            applied.changes.push(difference);
        }
    }
}

/// Adds the expectation that no other writer adds, changes or deletes a record of this kind before
/// the commit.
fn expect_table_unchanged<T: StateRecord>(changes: &[PlannedChange<T>], batch: &mut Batch) {
    let mut newest = 0;
    for before in changes.iter().filter_map(|change| change.before.as_ref()) {
        batch.expect(T::TABLE, before.record.key(), Expected::Revision(before.revision));
        newest = newest.max(before.revision);
    }
    batch.expect(T::TABLE, Vec::new(), Expected::Newest(newest));
}

fn remove<T: StateRecord>(changes: &[PlannedChange<T>], batch: &mut Batch) {
    let removed = changes.iter().filter(|change| change.after.is_none());
    for before in removed.filter_map(|change| change.current()) {
        batch.delete(T::TABLE, before.key());
    }
}

fn write<T: StateRecord>(changes: &[PlannedChange<T>], batch: &mut Batch) {
    for change in changes.iter().filter(|change| change.has_effect()) {
        let Some(after) = &change.after else { continue };
        let expected = change.revision().map_or(Expected::Missing, Expected::Revision);
        batch.expect(T::TABLE, after.key(), expected);
        batch.put(T::TABLE, after.key(), encode(after));
    }
}
