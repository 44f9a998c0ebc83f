//! The entries of the audit trail about the records that a document changes.

use std::collections::HashSet;

use super::{change::PlannedChange, plan::Plan, record::StateRecord};
use crate::{
    accounts::{Accounts, record_list},
    model::{Act, Role, User},
};

/// The maximum number of records with an entry of their own. The trail keeps a limited number of
/// entries, so a large document must not push all other entries out.
const MOST_ENTRIES: usize = 1000;

impl Plan {
    /// One entry for each record that changes, in the form of the entries of single changes. A
    /// document with more than [`MOST_ENTRIES`] changes gets these entries for the records that
    /// concern administrators, and lists the other records in few entries.
    pub(super) fn entries(&self, accounts: &Accounts) -> Vec<Act> {
        let is_large = self.count() > MOST_ENTRIES;
        let mut entries = Vec::new();
        let mut listed = Vec::new();
        let is_admin_role = |role: &Role| role.is_admin;
        let admin_roles = self.admin_roles();
        let is_admin = |user: &User| user.roles.iter().any(|id| admin_roles.contains(id.as_str()));
        add(&self.roles, |role| !is_large || is_admin_role(role), &mut entries, &mut listed);
        add(&self.applications, |_| !is_large, &mut entries, &mut listed);
        add(&self.resources, |_| !is_large, &mut entries, &mut listed);
        add(&self.users, |user| !is_large || is_admin(user), &mut entries, &mut listed);
        add(&self.keys, |_| !is_large, &mut entries, &mut listed);
        let rest = entries.split_off(entries.len().min(MOST_ENTRIES));
        listed.extend(rest.into_iter().map(|act| format!("{} {}", act.action, act.object)));
        let mut entries: Vec<Act> =
            entries.into_iter().map(|act| accounts.hide_credentials(act)).collect();
        entries.extend(record_list("state.records", "store", "records", listed));
        entries
    }

    /// The ids of the roles that are an administrator's before or after the change.
    fn admin_roles(&self) -> HashSet<&str> {
        let versions =
            self.roles.iter().flat_map(|change| change.current().into_iter().chain(&change.after));
        versions.filter(|role| role.is_admin).map(|role| role.id.as_str()).collect()
    }
}

/// Adds the entry of each changed record whose versions `has_entry` selects, and lists the others.
fn add<T: StateRecord>(
    changes: &[PlannedChange<T>],
    has_entry: impl Fn(&T) -> bool,
    entries: &mut Vec<Act>,
    listed: &mut Vec<String>,
) {
    for change in changes {
        let before = change.current();
        let act = match (before, &change.after) {
            (None, Some(after)) => Act::create(T::NAME, after.object_id(), after),
            (Some(before), None) => Act::delete(T::NAME, before.object_id(), before),
            (Some(before), Some(after)) if change.has_effect() => {
                Act::change(T::NAME, "change", after.object_id(), before, after)
            }
            _ => continue,
        };
        if before.into_iter().chain(&change.after).any(&has_entry) {
            entries.push(act);
        } else {
            listed.push(format!("{} {}", act.action, act.object));
        }
    }
}
