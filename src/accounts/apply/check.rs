//! Checks a plan with the usual rules for records.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
};

use super::{change::PlannedChange, plan::Plan, record::StateRecord};
use crate::{
    accounts::{
        AccountError, Accounts,
        rules::{
            check_application, check_identity, check_key, check_resource_alone, check_scopes,
            check_user,
        },
    },
    directory::{RouteConflict, Routes},
    model::{Key, MOST_SLOW_KEYS, Resource, Scheme, Timestamp, User, Violation},
    store::{Cancel, StoreError},
};

impl Plan {
    /// Checks every record that changes, and every record that refers to a removed record.
    /// `planned` are the accounts of the dry run.
    pub fn check(&mut self, accounts: &Accounts, planned: &Accounts) -> Result<(), AccountError> {
        let mut violations = Vec::new();
        let has_effect = PlannedChange::has_effect;
        let cancel = &self.cancel;
        check_each(&self.roles, has_effect, cancel, &mut violations, |role| role.check())?;
        let has_effect = PlannedChange::has_effect;
        check_each(&self.applications, has_effect, cancel, &mut violations, |application| {
            check_application(planned, application)
        })?;
        let removed = removed_ids(&self.applications);
        let is_affected = |change: &PlannedChange<Resource>| {
            let refers = |resource| refers_to(resource, &removed);
            change.has_effect() || change.after.as_ref().is_some_and(refers)
        };
        let valid = RefCell::new(HashSet::new());
        check_each(&self.resources, is_affected, cancel, &mut violations, |resource| {
            let found = check_resource_alone(planned, resource);
            if found.is_empty() {
                valid.borrow_mut().insert(resource.id.clone());
            }
            found
        })?;
        self.check_routes(planned, &valid.into_inner(), &mut violations);
        self.check_users(planned, &mut violations)?;
        self.check_keys(planned, accounts.clock().now(), &mut violations)?;
        self.violations.extend(violations);
        self.check_slow_keys(accounts);
        self.check_quota(accounts)
    }

    /// Checks that no resource of `ids` has a method and path of another resource. The routes are
    /// compiled once for all resources.
    fn check_routes(
        &self,
        planned: &Accounts,
        ids: &HashSet<String>,
        violations: &mut Vec<Violation>,
    ) {
        let changes = self.resources.iter();
        let changes = changes.filter_map(|change| Some((&change.after.as_ref()?.id, change)));
        let changes: HashMap<&String, _> = changes.filter(|(id, _)| ids.contains(*id)).collect();
        let policy = planned.directory().policy();
        let resources = policy.routes.resources().map(|resource| Resource::clone(resource));
        for RouteConflict { resource, other, violation } in Routes::conflicts(resources) {
            for id in [Some(resource), other].into_iter().flatten() {
                let Some(change) = changes.get(&id) else { continue };
                violations.extend(placed(change, &id, vec![violation.clone()]));
            }
        }
    }

    fn check_users(
        &self,
        planned: &Accounts,
        violations: &mut Vec<Violation>,
    ) -> Result<(), StoreError> {
        let removed = removed_ids(&self.roles);
        let is_affected = |change: &PlannedChange<User>| {
            let had_role = |user: &User| user.roles.iter().any(|role| removed.contains(role));
            change.has_effect() || change.after.as_ref().is_some_and(had_role)
        };
        check_each(&self.users, is_affected, &self.cancel, violations, |user| {
            check_user(planned, user)
        })?;
        for change in &self.users {
            if let (Some(index), Some(before), Some(after)) =
                (change.at, change.current(), &change.after)
            {
                violations.extend(located::<User>(index, check_identity(before, after)));
            }
        }
        Ok(())
    }

    fn check_keys(
        &self,
        planned: &Accounts,
        now: Timestamp,
        violations: &mut Vec<Violation>,
    ) -> Result<(), StoreError> {
        for change in self.keys.iter().filter(|change| change.has_effect()) {
            self.cancel.check()?;
            let (Some(index), Some(after)) = (change.at, &change.after) else { continue };
            let before = change.current();
            // Unchanged fields are not checked again, because they were valid when they were
            // written. Today the key may have expired, its user may have lost the permissions of
            // the scopes, and the application may have been deleted.
            let old = before.or(self.restored_keys.contains(&index).then_some(after));
            let has_old_expiry = old.is_some_and(|old| old.expires == after.expires);
            let time = if has_old_expiry { after.created } else { now };
            let mut problems = check_key(planned, after, time);
            if old.is_some_and(|old| old.application == after.application) {
                problems.retain(|p| !["application", "universal"].contains(&&*p.location));
            }
            if old.is_none_or(|old| old.scopes != after.scopes) {
                problems.extend(check_scopes(planned, after));
            }
            problems.extend(before.into_iter().flat_map(|before| check_immutable(before, after)));
            problems.extend(check_times(after));
            violations.extend(located::<Key>(index, problems));
        }
        Ok(())
    }

    /// Limits the number of a user's keys that are slow to check, because a request with such a key
    /// checks all of the user's slow keys.
    fn check_slow_keys(&mut self, accounts: &Accounts) {
        let now = accounts.clock().now();
        let mut added: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for change in self.keys.iter().filter(|change| change.before.is_none()) {
            let Some(key) = &change.after else { continue };
            if key.scheme == Scheme::Slow && key.is_in_force(now) {
                let (index, count) = added.entry(key.user).or_default();
                *index = change.at.unwrap_or_default();
                *count += 1;
            }
        }
        for (user, (index, count)) in added {
            if accounts.slow_in_force(user) + count > MOST_SLOW_KEYS {
                let message = format!(
                    "A user may have at most {MOST_SLOW_KEYS} keys that are slow to check."
                );
                let fix = "Give the user a new key of Keyward instead.";
                self.add_violation("keys", index, "scheme", message, fix);
            }
        }
    }

    /// Checks that no user would have more keys in force than allowed.
    fn check_quota(&mut self, accounts: &Accounts) -> Result<(), AccountError> {
        let now = accounts.clock().now();
        // For each user: the index of the last added key in the document, and three numbers. They
        // count the added keys, the added keys that another key has already replaced, and the keys
        // that are no longer in force.
        let mut changes: BTreeMap<u64, (usize, [usize; 3])> = BTreeMap::new();
        for change in self.keys.iter().filter(|change| change.has_effect()) {
            let before = change.current().filter(|before| before.is_in_force(now));
            let after = change.after.as_ref().filter(|after| after.is_in_force(now));
            let Some(user) = before.or(after).map(|key| key.user) else {
                continue;
            };
            let (index, [added, rotated, ended]) = changes.entry(user).or_default();
            match (before, after) {
                (None, Some(after)) => {
                    *index = change.at.unwrap_or_default();
                    *(if after.rotated.is_some() { rotated } else { added }) += 1;
                }
                (Some(_), None) => *ended += 1,
                _ => {}
            }
        }
        let limit = accounts.0.keys_per_user;
        for (user, (index, [added, rotated, ended])) in changes {
            let kept = accounts.keys_in_force(user)?.0.saturating_sub(ended);
            let is_too_many = added > 0 && kept + added > limit;
            let total = kept + added + rotated;
            // During rotations a user may have twice the maximum number of keys.
            if is_too_many || rotated > 0 && total > limit.saturating_mul(2) {
                let message =
                    format!("The user would have {total} keys in force, and the limit is {limit}.");
                let fix = "Revoke some keys, or raise limits.keys_per_user in the configuration.";
                self.add_violation("keys", index, "user", message, fix);
            }
        }
        Ok(())
    }
}

/// Checks the planned records that `select` chooses against a rule.
fn check_each<T: StateRecord>(
    changes: &[PlannedChange<T>],
    select: impl Fn(&PlannedChange<T>) -> bool,
    cancel: &Cancel,
    violations: &mut Vec<Violation>,
    rule: impl Fn(&T) -> Vec<Violation>,
) -> Result<(), StoreError> {
    for change in changes.iter().filter(|change| select(change)) {
        cancel.check()?;
        let Some(after) = &change.after else { continue };
        violations.extend(placed(change, &after.title(), rule(after)));
    }
    Ok(())
}

/// Puts the record's location before the location of each violation.
fn placed<T: StateRecord>(
    change: &PlannedChange<T>,
    title: &str,
    violations: Vec<Violation>,
) -> Vec<Violation> {
    let Some(index) = change.at else {
        // The document does not list this record, which stays but conflicts with the document.
        let unlisted = |mut problem: Violation| {
            let kind = T::NAME;
            problem.message = format!("The {kind} {title} is not in the file: {}", problem.message);
            problem.location = String::new();
            problem
        };
        return violations.into_iter().map(unlisted).collect();
    };
    located::<T>(index, violations).collect()
}

/// Puts the record's location in the document before the location of each violation.
fn located<T: StateRecord>(
    index: usize,
    violations: Vec<Violation>,
) -> impl Iterator<Item = Violation> {
    violations.into_iter().map(move |mut violation| {
        violation.location = format!("{}.{index}.{}", T::LIST, violation.location);
        violation
    })
}

/// The ids of the records that are removed.
fn removed_ids<T: StateRecord>(changes: &[PlannedChange<T>]) -> HashSet<String> {
    let removed = changes.iter().filter(|change| change.after.is_none());
    removed.filter_map(|change| Some(change.current()?.title())).collect()
}

/// Whether a resource names one of these applications.
fn refers_to(resource: &Resource, applications: &HashSet<String>) -> bool {
    if applications.is_empty() {
        return false;
    }
    let mut rules = resource.rules.each();
    rules.any(|rules| rules.authentication.iter().any(|id| applications.contains(id)))
        || resource.applications.iter().any(|id| applications.contains(id))
}

/// Checks that the fields of a key that cannot be changed stay, and that a revoked or replaced key
/// stays revoked or replaced.
fn check_immutable(before: &Key, after: &Key) -> Vec<Violation> {
    let unchanged = "Keep the current value, or give the record another id to create another key.";
    let final_fix =
        "Copy the value of this field from keyward export, or create a new key for the user.";
    let revoked = before.revoked.is_some() && after.revoked.is_none();
    let rotated = before.rotated.is_some() && after.rotated.is_none();
    let rules = [
        ("user", before.user != after.user, "The user of a key cannot be changed.", unchanged),
        (
            "digest",
            before.digest != after.digest,
            "The digest of a key cannot be changed.",
            unchanged,
        ),
        (
            "scheme",
            before.scheme != after.scheme || before.slow != after.slow,
            "The scheme of a key cannot be changed.",
            unchanged,
        ),
        (
            "former_digest",
            before.former_digest != after.former_digest,
            "The former digest of a key cannot be changed.",
            unchanged,
        ),
        (
            "universal",
            before.universal != after.universal,
            "A key cannot become universal, or stop being universal.",
            unchanged,
        ),
        ("revoked", revoked, "The key was revoked, and a revocation is final.", final_fix),
        ("rotated", rotated, "The key was replaced, and a rotation is final.", final_fix),
    ];
    let broken = rules.into_iter().filter(|(_, is_broken, ..)| *is_broken);
    broken.map(|(field, _, message, fix)| Violation::new(field, message, fix)).collect()
}

/// Checks that the revocation and the end of the overlap are not before the key's creation.
fn check_times(key: &Key) -> Vec<Violation> {
    let rotated = key.rotated.as_ref().map(|rotation| rotation.until);
    let ends = [("revoked", key.revoked), ("rotated.until", rotated)];
    let early = ends.into_iter().filter(|(_, end)| end.is_some_and(|end| end < key.created));
    let violation = |(field, _)| {
        let fix = "Write a later time, or leave out the field created.";
        Violation::new(field, "This time is before the creation of the key.", fix)
    };
    early.map(violation).collect()
}
