//! The plan: each record that a file names, and those that are to go, as it is and as it is to be.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    MOST_CHANGES, Others, State, StatedKey, StatedPassword, StatedUser,
    index::Index,
    record::{Kind, each},
};
use crate::{
    accounts::{AccountError, Accounts, Versioned, setup::shipped_roles, users::normalize_roles},
    model::{Application, Key, KeyId, Resource, Role, User, Violation, fold},
    store::{Sequence, Table},
};

/// The largest number that a user can be given: more than that, not every program can read in JSON (RFC 8259, section 6).
const MOST_UID: u64 = (1 << 52) - 1;

/// One record.
#[derive(Debug)]
pub(super) struct Change<T> {
    /// Its place in the file; none: the file does not name it.
    pub at: Option<usize>,
    /// As it is.
    pub before: Option<Versioned<T>>,
    /// As it is to be.
    pub after: Option<T>,
}

/// All records that matter, and what is wrong with them so far.
pub(super) struct Plan {
    /// Whether the store was never filled.
    pub is_new: bool,
    /// All roles.
    pub roles: Vec<Change<Role>>,
    /// All applications.
    pub applications: Vec<Change<Application>>,
    /// All resources.
    pub resources: Vec<Change<Resource>>,
    /// Users that the file names or that go.
    pub users: Vec<Change<User>>,
    /// Keys that the file names or that go.
    pub keys: Vec<Change<Key>>,
    /// The keys that were put back as they were, by their places in the file: they were made before.
    pub put_back: HashSet<usize>,
    /// The names of users, as they are to be.
    pub names: Index,
    /// Their mail addresses.
    pub mails: Index,
    /// What is wrong.
    pub found: Vec<Violation>,
}

impl<T: PartialEq> Change<T> {
    /// Whether anything is to be done.
    pub fn is_one(&self) -> bool {
        self.before.as_ref().map(|before| &before.record) != self.after.as_ref()
    }

    /// The commit that last wrote it.
    pub fn revision(&self) -> Option<Sequence> {
        self.before.as_ref().map(|before| before.revision)
    }
}

impl Plan {
    /// What is to be done.
    pub fn of(accounts: &Accounts, state: &State, others: Others) -> Result<Self, AccountError> {
        let mut found = Vec::new();
        let mut plan = Self {
            is_new: !accounts.is_filled()?,
            roles: of_policy(accounts, &state.roles, others, &mut found)?,
            applications: of_policy(accounts, &state.applications, others, &mut found)?,
            resources: of_policy(accounts, &state.resources, others, &mut found)?,
            users: Vec::new(),
            keys: Vec::new(),
            put_back: HashSet::new(),
            names: Index::new(Table::Names),
            mails: Index::new(Table::Mails),
            found,
        };
        plan.keep_shipped_roles();
        plan.settle_default();
        plan.plan_users(accounts, &state.users, others)?;
        plan.plan_keys(accounts, state, others)?;
        let count = plan.count();
        match count > MOST_CHANGES {
            true => Err(too_many(count)),
            false => Ok(plan),
        }
    }

    /// How many records are to change.
    pub fn count(&self) -> usize {
        fn of<T: PartialEq>(all: &[Change<T>]) -> usize {
            all.iter().filter(|one| one.is_one()).count()
        }
        of(&self.roles)
            + of(&self.applications)
            + of(&self.resources)
            + of(&self.users)
            + of(&self.keys)
    }

    /// The program relies on two roles. A store that is made of a file begins with those that every installation has.
    fn keep_shipped_roles(&mut self) {
        for one in &mut self.roles {
            if let (Some(before), None) = (&one.before, &one.after)
                && Role::is_locked(&before.record.id)
            {
                one.after = Some(before.record.clone());
            }
        }
        if self.is_new {
            for role in shipped_roles() {
                if !self.roles.iter().any(|one| title(one).as_ref() == Some(&role.id)) {
                    self.roles.push(Change { at: None, before: None, after: Some(role) });
                }
            }
        }
    }

    /// At most one application is the default. The one that was steps back when the file names another.
    fn settle_default(&mut self) {
        let says = |one: &Change<Application>| one.after.as_ref().is_some_and(|one| one.is_default);
        let mut stated = self.applications.iter().filter(|one| says(one) && one.at.is_some());
        if stated.next().is_none() {
            return;
        }
        if let Some(at) = stated.next().and_then(|second| second.at) {
            self.found.push(Violation::new(
                format!("applications.{at}.is_default"),
                "Two applications of the file are the default.",
                "Leave is_default out at one of them.",
            ));
        }
        for one in self.applications.iter_mut().filter(|one| one.at.is_none()) {
            if let Some(after) = &mut one.after {
                after.is_default = false;
            }
        }
    }

    fn plan_users(
        &mut self,
        accounts: &Accounts,
        stated: &[StatedUser],
        others: Others,
    ) -> Result<(), AccountError> {
        // Those with a number first: a name that one of them gives up is free for another.
        let mut uids: BTreeMap<usize, u64> = BTreeMap::new();
        let mut taken = HashSet::new();
        let mut last = accounts.directory().last_uid();
        for (at, one) in stated.iter().enumerate() {
            let Some(uid) = one.uid else { continue };
            if !(1..=MOST_UID).contains(&uid) {
                let fix = "Leave uid out: the server gives one.";
                self.wrong("users", at, "uid", format!("{uid} cannot be a user's number."), fix);
            } else if !taken.insert(uid) {
                let said = format!("The user {uid} stands twice in the file.");
                self.wrong("users", at, "uid", said, "Keep one of the two.");
            } else {
                uids.insert(at, uid);
                last = last.max(uid);
            }
        }
        for (at, one) in stated.iter().enumerate().filter(|(_, one)| one.uid.is_none()) {
            let held = accounts.holder(Table::Names, &fold(&one.user.name))?;
            let uid = held.filter(|uid| !taken.contains(uid)).unwrap_or_else(|| {
                last += 1;
                last
            });
            taken.insert(uid);
            uids.insert(at, uid);
        }
        for (at, uid) in uids {
            let before = accounts.user(uid)?;
            let after = user_after(accounts, &stated[at], uid, before.as_ref().map(|b| &b.record));
            self.users.push(Change { at: Some(at), before, after: Some(after) });
        }
        if others == Others::Go {
            let mut count = 0;
            each::<User>(accounts, |user| {
                if !taken.contains(&user.record.uid) {
                    count += 1;
                    self.users.push(Change { at: None, before: Some(user), after: None });
                }
                if count > MOST_CHANGES { Err(too_many(count)) } else { Ok(()) }
            })?;
        }
        self.index_users(accounts)
    }

    /// Names and mail addresses, as they are to be.
    fn index_users(&mut self, accounts: &Accounts) -> Result<(), AccountError> {
        for (place, one) in self.users.iter().enumerate() {
            let mail = |user: &User| user.mail.as_deref().map(fold);
            self.names.take(place, one, |user| Some(fold(&user.name)), &mut self.found);
            self.mails.take(place, one, mail, &mut self.found);
        }
        self.names.check(accounts, &self.users, &mut self.found)?;
        self.mails.check(accounts, &self.users, &mut self.found)
    }

    fn plan_keys(
        &mut self,
        accounts: &Accounts,
        state: &State,
        others: Others,
    ) -> Result<(), AccountError> {
        self.same_pepper(accounts, state);
        let mut seen = HashSet::new();
        let mut digests = HashMap::new();
        for (at, one) in state.keys.iter().enumerate() {
            let id = one.key.id;
            if !seen.insert(id) {
                let said = format!("The key {id} stands twice in the file.");
                self.wrong("keys", at, "id", said, "Keep one of the two.");
                continue;
            }
            let twice =
                one.key.foreign_digests().filter(|digest| digests.insert(*digest, at).is_some());
            if twice.count() > 0 {
                let fix = "A key is one user's. Keep one of the two.";
                self.wrong("keys", at, "digest", "Two keys of the file have this digest.", fix);
            }
            let before = accounts.key(id)?;
            if before.is_none() {
                self.is_nobody_elses(accounts, at, &one.key)?;
            }
            let Some(user) = self.owner(accounts, &one.owner)? else {
                let said = format!("There is no user {:?}.", one.owner);
                self.wrong("keys", at, "user", said, "Name one that is there or in the file.");
                continue;
            };
            let mut after = key_after(accounts, one, user, before.as_ref().map(|b| &b.record));
            if before.is_none() && one.prefix.is_none() && after.scheme.is_own() {
                after.prefix = self.key_prefix(after.application.as_deref());
            }
            if one.created.is_some() {
                self.put_back.insert(at);
            }
            self.keys.push(Change { at: Some(at), before, after: Some(after) });
        }
        match others {
            Others::Stay => Ok(()),
            Others::Go => self.drop_keys(accounts, &seen),
        }
    }

    fn drop_keys(
        &mut self,
        accounts: &Accounts,
        seen: &HashSet<KeyId>,
    ) -> Result<(), AccountError> {
        let mut count = 0;
        each::<Key>(accounts, |key| {
            if !seen.contains(&key.record.id) {
                count += 1;
                self.keys.push(Change { at: None, before: Some(key), after: None });
            }
            if count > MOST_CHANGES { Err(too_many(count)) } else { Ok(()) }
        })
    }

    /// A digest is good with the pepper that it was made with alone.
    fn same_pepper(&mut self, accounts: &Accounts, state: &State) {
        if state.keys.is_empty() || state.pepper == Some(accounts.pepper().fingerprint()) {
            return;
        }
        let (said, fix) = match state.pepper {
            None => (
                "The file has keys and does not say which pepper their digests were made with.",
                "Copy the line pepper = … from the keyward export that the keys are from.",
            ),
            Some(_) => (
                "The keys' digests were made with another pepper than this store's: none of them would match.",
                "Apply it where that pepper is, or take the keys out and give the users new ones.",
            ),
        };
        self.found.push(Violation::new("pepper", said, fix));
    }

    /// A key of another system is found by its digest, so it is one user's.
    fn is_nobody_elses(
        &mut self,
        accounts: &Accounts,
        at: usize,
        key: &Key,
    ) -> Result<(), AccountError> {
        for digest in key.foreign_digests() {
            if accounts.store().get(Table::Foreign, &digest)?.is_none() {
                continue;
            }
            let said = "Another key of the store has this digest.";
            let fix = "Give the record that key's id: keyward key list shows it.";
            self.wrong("keys", at, "digest", said, fix);
        }
        Ok(())
    }

    /// The number of the user with this name, as it is to be.
    fn owner(&self, accounts: &Accounts, name: &str) -> Result<Option<u64>, AccountError> {
        let folded = fold(name);
        match self.names.holder(&folded) {
            Some(holder) => Ok(holder),
            None => accounts.holder(Table::Names, &folded),
        }
    }

    /// What keys for an application begin with, as it is to be.
    fn key_prefix(&self, application: Option<&str>) -> String {
        let mut all = self.applications.iter().filter_map(|one| one.after.as_ref());
        let found = all.find(|one| application.map_or(one.is_default, |id| one.id == id));
        found.map_or_else(|| "kw".into(), |one| one.key_prefix.clone())
    }

    /// Names a fault of a record of the file.
    pub fn wrong(
        &mut self,
        place: &str,
        at: usize,
        field: &str,
        said: impl Into<String>,
        fix: &str,
    ) {
        self.found.push(Violation::new(format!("{place}.{at}.{field}"), said, fix));
    }
}

/// The records of a kind that there are few of: all of them, so that it is known what the others rest on.
fn of_policy<T: Kind>(
    accounts: &Accounts,
    stated: &[T],
    others: Others,
    found: &mut Vec<Violation>,
) -> Result<Vec<Change<T>>, AccountError> {
    let mut held: BTreeMap<Vec<u8>, Versioned<T>> = BTreeMap::new();
    each::<T>(accounts, |one| {
        held.insert(one.record.key(), one);
        Ok(())
    })?;
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for (at, record) in stated.iter().enumerate() {
        if seen.insert(record.key()) {
            let before = held.remove(&record.key());
            changes.push(Change { at: Some(at), before, after: Some(record.clone()) });
            continue;
        }
        let said = format!("The {} {} stands twice in the file.", T::WHAT, record.title());
        found.push(Violation::new(format!("{}.{at}.id", T::PLACE), said, "Keep one of the two."));
    }
    let rest = held.into_values().map(|before| {
        let after = (others == Others::Stay).then(|| before.record.clone());
        Change { at: None, before: Some(before), after }
    });
    changes.extend(rest);
    Ok(changes)
}

fn title<T: Kind>(one: &Change<T>) -> Option<String> {
    let before = one.before.as_ref().map(|before| &before.record);
    one.after.as_ref().or(before).map(Kind::title)
}

fn user_after(accounts: &Accounts, stated: &StatedUser, uid: u64, before: Option<&User>) -> User {
    let mut user = User { uid, ..stated.user.clone() };
    normalize_roles(&mut user.roles);
    user.uuid = stated.uuid.or(before.map(|before| before.uuid)).unwrap_or(user.uuid);
    user.init = match (&stated.init, stated.created) {
        (Some(init), _) => Some(init.clone()),
        // One that was made before is put back as it was.
        (None, Some(_)) => None,
        (None, None) => before.map_or_else(|| user.mail.clone(), |before| before.init.clone()),
    };
    user.password = match &stated.password {
        StatedPassword::Unsaid => before.and_then(|before| before.password.clone()),
        StatedPassword::None => None,
        StatedPassword::Digest(digest) => Some(digest.clone()),
    };
    let now = accounts.clock().now();
    user.created = stated.created.or(before.map(|before| before.created)).unwrap_or(now);
    user.changed = now;
    if let Some(before) = before {
        (user.access, user.login) = (before.access, before.login);
        let same = User { changed: before.changed, ..user.clone() };
        if same == *before {
            return same;
        }
    }
    user
}

fn key_after(accounts: &Accounts, stated: &StatedKey, user: u64, before: Option<&Key>) -> Key {
    let mut key = Key { user, ..stated.key.clone() };
    let now = accounts.clock().now();
    key.created = stated.created.or(before.map(|before| before.created)).unwrap_or(now);
    // What is told of a text is told by whoever made it.
    let prefix = stated.prefix.clone().or_else(|| before.map(|before| before.prefix.clone()));
    key.prefix = prefix.unwrap_or_default();
    let last_four = stated.last_four.clone().or_else(|| before.map(|b| b.last_four.clone()));
    key.last_four = last_four.unwrap_or_default();
    // One that was slow to check when the file was written, and has been used since, stays as it is now.
    if let Some(before) = before.filter(|before| before.former_digest == Some(key.digest)) {
        key.digest = before.digest;
        key.scheme = before.scheme;
        key.slow.clone_from(&before.slow);
        key.former_digest = before.former_digest;
    }
    key
}

fn too_many(count: usize) -> AccountError {
    AccountError::refused(
        format!(
            "The file would change {count} records or more, and at most {MOST_CHANGES} are changed at once."
        ),
        "Bring many keys over with keyward key import, and a whole store with keyward backup and keyward restore.",
    )
}
