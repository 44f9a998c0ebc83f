//! The rules, asked of the world as it would be.

use std::collections::{BTreeMap, HashSet};

use super::{
    plan::{Change, Plan},
    record::Kind,
};
use crate::{
    accounts::{
        AccountError, Accounts,
        rules::{
            check_application, check_identity, check_key, check_resource, check_scopes, check_user,
        },
    },
    model::{Key, METHODS, MOST_SLOW_KEYS, Resource, Scheme, Timestamp, User, Violation},
};

impl Plan {
    /// Asks every rule about every record that changes, and about those that rest on what goes.
    pub fn check(&mut self, accounts: &Accounts, world: &Accounts) -> Result<(), AccountError> {
        let mut found = Vec::new();
        ask(&self.roles, Change::is_one, &mut found, |role| role.check());
        ask(&self.applications, Change::is_one, &mut found, |one| check_application(world, one));
        let gone = gone(&self.applications);
        let rests = |one: &Change<Resource>| {
            one.is_one() || one.after.as_ref().is_some_and(|resource| names(resource, &gone))
        };
        ask(&self.resources, rests, &mut found, |one| check_resource(world, one));
        self.check_users(world, &mut found);
        self.check_keys(world, accounts.clock().now(), &mut found);
        self.found.extend(found);
        self.check_slow(accounts);
        self.check_quota(accounts)
    }

    fn check_users(&self, world: &Accounts, found: &mut Vec<Violation>) {
        let gone = gone(&self.roles);
        let rests = |one: &Change<User>| {
            let holds = |user: &User| user.roles.iter().any(|role| gone.contains(role));
            one.is_one() || one.after.as_ref().is_some_and(holds)
        };
        ask(&self.users, rests, found, |user| check_user(world, user));
        for one in &self.users {
            if let (Some(at), Some(before), Some(after)) = (one.at, &one.before, &one.after) {
                found.extend(placed::<User>(at, check_identity(&before.record, after)));
            }
        }
    }

    fn check_keys(&self, world: &Accounts, now: Timestamp, found: &mut Vec<Violation>) {
        for one in self.keys.iter().filter(|one| one.is_one()) {
            let (Some(at), Some(after)) = (one.at, &one.after) else { continue };
            let before = one.before.as_ref().map(|before| &before.record);
            // What stays as it was is not asked for again: it may have expired since, and name what its user has lost or an application that is gone.
            let was = before.or(self.put_back.contains(&at).then_some(after));
            let has_expiry = was.is_some_and(|was| was.expires == after.expires);
            let mut problems =
                check_key(world, after, if has_expiry { after.created } else { now });
            if was.is_some_and(|was| was.application == after.application) {
                problems.retain(|one| !["application", "universal"].contains(&&*one.location));
            }
            if was.is_none_or(|was| was.scopes != after.scopes) {
                problems.extend(check_scopes(world, after));
            }
            problems.extend(before.into_iter().flat_map(|before| stays(before, after)));
            problems.extend(ends_in_order(after));
            found.extend(placed::<Key>(at, problems));
        }
    }

    /// All of a user's keys that are slow to check are checked when one is presented: no user gets more than few of them.
    fn check_slow(&mut self, accounts: &Accounts) {
        let now = accounts.clock().now();
        let mut coming: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for one in self.keys.iter().filter(|one| one.before.is_none()) {
            let Some(key) = &one.after else { continue };
            if key.scheme == Scheme::Slow && key.is_in_force(now) {
                let (at, count) = coming.entry(key.user).or_default();
                *at = one.at.unwrap_or_default();
                *count += 1;
            }
        }
        for (user, (at, count)) in coming {
            if accounts.slow_in_force(user) + count > MOST_SLOW_KEYS {
                let said =
                    format!("A user has at most {MOST_SLOW_KEYS} keys that are slow to check.");
                self.wrong("keys", at, "scheme", said, "Give the user a new key, which is fast.");
            }
        }
    }

    /// No user gets more keys than there may be.
    fn check_quota(&mut self, accounts: &Accounts) -> Result<(), AccountError> {
        let now = accounts.clock().now();
        // Of each user: the keys that come and stay, those that are on their way out besides, and those that end.
        let mut coming: BTreeMap<u64, (usize, [usize; 3])> = BTreeMap::new();
        for one in self.keys.iter().filter(|one| one.is_one()) {
            let was = one.before.as_ref().filter(|before| before.record.is_in_force(now));
            let is = one.after.as_ref().filter(|after| after.is_in_force(now));
            let Some(user) = was.map(|was| was.record.user).or(is.map(|is| is.user)) else {
                continue;
            };
            let (at, [stay, pass, end]) = coming.entry(user).or_default();
            match (was, is) {
                (None, Some(is)) => {
                    *at = one.at.unwrap_or_default();
                    *(if is.rotated.is_some() { pass } else { stay }) += 1;
                }
                (Some(_), None) => *end += 1,
                _ => {}
            }
        }
        let most = accounts.0.keys_per_user;
        for (user, (at, [stay, pass, end])) in coming {
            let held = accounts.keys_in_force(user)?.0.saturating_sub(end);
            let is_too_many = stay > 0 && held + stay > most;
            if is_too_many || pass > 0 && held + stay + pass > most.saturating_mul(2) {
                let said = format!(
                    "The user would have {} keys in force, and the limit is {most}.",
                    held + stay + pass
                );
                let fix = "Revoke some, or raise limits.keys_per_user in the configuration.";
                self.wrong("keys", at, "user", said, fix);
            }
        }
        Ok(())
    }
}

/// Asks a rule about some of the records that are to be.
fn ask<T: Kind>(
    all: &[Change<T>],
    which: impl Fn(&Change<T>) -> bool,
    found: &mut Vec<Violation>,
    rule: impl Fn(&T) -> Vec<Violation>,
) {
    for one in all.iter().filter(|one| which(one)) {
        let Some(after) = &one.after else { continue };
        match one.at {
            Some(at) => found.extend(placed::<T>(at, rule(after))),
            // The file does not name it, and what the file says is not in order with it.
            None => found.extend(rule(after).into_iter().map(|mut problem| {
                problem.message =
                    format!("The {} {} stays: {}", T::WHAT, after.title(), problem.message);
                problem.location = String::new();
                problem
            })),
        }
    }
}

fn placed<T: Kind>(at: usize, found: Vec<Violation>) -> impl Iterator<Item = Violation> {
    found.into_iter().map(move |mut one| {
        one.location = format!("{}.{at}.{}", T::PLACE, one.location);
        one
    })
}

/// The ids of those that go.
fn gone<T: Kind>(all: &[Change<T>]) -> HashSet<String> {
    let goes = all.iter().filter(|one| one.after.is_none());
    goes.filter_map(|one| Some(one.before.as_ref()?.record.title())).collect()
}

fn names(resource: &Resource, applications: &HashSet<String>) -> bool {
    let rules = METHODS.iter().filter_map(|method| resource.rules.of(method));
    rules.flat_map(|rules| rules.authentication).any(|id| applications.contains(&id))
}

/// What a key is stays, and what was taken back is not given again.
fn stays(before: &Key, after: &Key) -> Vec<Violation> {
    let another = "Leave it as it is, or give the record another id: then it is another key.";
    let back = "Write it as keyward export does, or make a new key for the user.";
    let revoked = before.revoked.is_some() && after.revoked.is_none();
    let rotated = before.rotated.is_some() && after.rotated.is_none();
    let faults = [
        ("user", before.user != after.user, "A key stays its user's.", another),
        (
            "digest",
            before.digest != after.digest,
            "The digest of a key cannot be changed.",
            another,
        ),
        (
            "scheme",
            before.scheme != after.scheme || before.slow != after.slow,
            "The scheme of a key cannot be changed.",
            another,
        ),
        (
            "former_digest",
            before.former_digest != after.former_digest,
            "The digest that a key had before cannot be changed.",
            another,
        ),
        (
            "universal",
            before.universal != after.universal,
            "A key stays what it is: universal, or its user's own.",
            another,
        ),
        ("revoked", revoked, "The key was revoked, and a revocation is not taken back.", back),
        ("rotated", rotated, "The key was replaced, and that is not taken back.", back),
    ];
    let wrong = faults.into_iter().filter(|(_, is_wrong, ..)| *is_wrong);
    wrong.map(|(field, _, said, fix)| Violation::new(field, said, fix)).collect()
}

/// Nothing ends before it begins.
fn ends_in_order(key: &Key) -> Vec<Violation> {
    let rotated = key.rotated.as_ref().map(|rotation| rotation.until);
    let ends = [("revoked", key.revoked), ("rotated.until", rotated)];
    let early = ends.into_iter().filter(|(_, end)| end.is_some_and(|end| end < key.created));
    let fault = |(field, _)| {
        let fix = "Give a time after it, or leave created out.";
        Violation::new(field, "This is before the key was made.", fix)
    };
    early.map(fault).collect()
}
