//! Plans how a document changes the store: the current and the planned version of each record.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    DocumentFields, DocumentKey, DocumentPassword, DocumentUser, MOST_CHANGES, StateDocument,
    Unlisted,
    change::PlannedChange,
    index::UserIndex,
    record::{StateRecord, each},
};
use crate::{
    accounts::{
        AccountError, Accounts, Versioned, Writer,
        setup::shipped_roles,
        users::{normalize_mail, normalize_roles},
    },
    model::{Application, Key, Resource, Role, User, Violation, fold},
    store::{Cancel, Table},
};

/// The largest uid. Some programs cannot read larger numbers in JSON (RFC 8259, section 6).
const MAX_UID: u64 = (1 << 52) - 1;

/// The planned changes of the store.
pub(super) struct Plan {
    /// Ends the work early.
    pub cancel: Cancel,
    /// Whether the store is new: neither a first start nor a state file has filled it.
    pub is_new: bool,
    /// All roles, including those that do not change.
    pub roles: Vec<PlannedChange<Role>>,
    /// All applications, including those that do not change.
    pub applications: Vec<PlannedChange<Application>>,
    /// All resources, including those that do not change.
    pub resources: Vec<PlannedChange<Resource>>,
    /// The users that the document lists or that are removed.
    pub users: Vec<PlannedChange<User>>,
    /// The keys that the document lists or that are removed.
    pub keys: Vec<PlannedChange<Key>>,
    /// The indexes of the listed keys that have a creation time, which means that the plan restores
    /// an old record.
    pub restored_keys: HashSet<usize>,
    /// The planned user names.
    pub names: UserIndex,
    /// The planned mail addresses.
    pub mails: UserIndex,
    /// The names of the fields that each listed record has.
    pub fields: DocumentFields,
    /// The violations that were found so far.
    pub violations: Vec<Violation>,
}

impl Plan {
    /// Plans the changes.
    pub fn new(
        accounts: &Writer,
        document: &StateDocument,
        unlisted: Unlisted,
    ) -> Result<Self, AccountError> {
        let mut violations = Vec::new();
        let StateDocument { roles, applications, resources, .. } = document;
        let mut plan = Self {
            cancel: accounts.cancel().clone(),
            is_new: !accounts.is_filled()?,
            roles: plan_policy(accounts, roles, unlisted, &mut violations)?,
            applications: plan_policy(accounts, applications, unlisted, &mut violations)?,
            resources: plan_policy(accounts, resources, unlisted, &mut violations)?,
            users: Vec::new(),
            keys: Vec::new(),
            restored_keys: HashSet::new(),
            names: UserIndex::new(Table::Names),
            mails: UserIndex::new(Table::Mails),
            fields: document.fields.clone(),
            violations,
        };
        plan.keep_shipped_roles();
        plan.keep_one_default_application();
        plan.plan_users(accounts, &document.users, unlisted)?;
        plan.plan_keys(accounts, document, unlisted)?;
        plan.check_bases(&document.bases)?;
        let count = plan.count();
        if count > MOST_CHANGES { Err(too_many(count)) } else { Ok(plan) }
    }

    /// The number of records that change.
    pub fn count(&self) -> usize {
        fn count<T: PartialEq>(changes: &[PlannedChange<T>]) -> usize {
            changes.iter().filter(|change| change.has_effect()).count()
        }
        count(&self.roles)
            + count(&self.applications)
            + count(&self.resources)
            + count(&self.users)
            + count(&self.keys)
    }

    /// Keeps the two roles that the program needs, even if the document does not list them. A new
    /// store also gets the other roles that every installation has.
    fn keep_shipped_roles(&mut self) {
        for change in &mut self.roles {
            if let (Some(before), None) = (&change.before, &change.after)
                && Role::is_locked(&before.record.id)
            {
                change.after = Some(before.record.clone());
            }
        }
        if self.is_new {
            for role in shipped_roles() {
                let has_id = |change: &PlannedChange<Role>| {
                    change.any().is_some_and(|existing| existing.id == role.id)
                };
                if !self.roles.iter().any(has_id) {
                    self.roles.push(PlannedChange { at: None, before: None, after: Some(role) });
                }
            }
        }
    }

    /// Plans at most one default application. If the document lists a default, unlisted
    /// applications lose the flag. Two listed defaults are a violation.
    fn keep_one_default_application(&mut self) {
        let is_listed_default = |change: &&PlannedChange<Application>| {
            change.at.is_some() && change.after.as_ref().is_some_and(|after| after.is_default)
        };
        let mut defaults = self.applications.iter().filter(is_listed_default);
        if defaults.next().is_none() {
            return;
        }
        if let Some(index) = defaults.next().and_then(|second| second.at) {
            self.violations.push(Violation::new(
                format!("applications.{index}.is_default"),
                "Two applications of the file are the default.",
                "Remove is_default from one of the two applications.",
            ));
        }
        for change in self.applications.iter_mut().filter(|change| change.at.is_none()) {
            if let Some(after) = &mut change.after {
                after.is_default = false;
            }
        }
    }

    fn plan_users(
        &mut self,
        accounts: &Accounts,
        listed: &[DocumentUser],
        unlisted: Unlisted,
    ) -> Result<(), AccountError> {
        // Listed users with a uid come first, because they may give up a name that a listed user
        // without a uid gets.
        let mut uids: BTreeMap<usize, u64> = BTreeMap::new();
        let mut listed_uids = HashSet::new();
        let mut last = accounts.directory().last_uid();
        for (index, user) in listed.iter().enumerate() {
            let Some(uid) = user.uid else { continue };
            if !(1..=MAX_UID).contains(&uid) {
                let message = format!("{uid} is not a valid uid.");
                let fix = "Leave uid out, and the server chooses a uid.";
                self.add_violation("users", index, "uid", message, fix);
            } else if !listed_uids.insert(uid) {
                let message = format!("The user {uid} is listed twice in the file.");
                self.add_violation("users", index, "uid", message, "Keep one of the two entries.");
            } else {
                uids.insert(index, uid);
                last = last.max(uid);
            }
        }
        for (index, user) in listed.iter().enumerate().filter(|(_, user)| user.uid.is_none()) {
            let existing = accounts.uid_by(Table::Names, &fold(&user.user.name))?;
            let uid = existing.filter(|uid| !listed_uids.contains(uid)).unwrap_or_else(|| {
                last += 1;
                last
            });
            listed_uids.insert(uid);
            uids.insert(index, uid);
        }
        for (index, uid) in uids {
            self.cancel.check()?;
            // A user without a uid in the document is identified by its name. Another writer may
            // have taken a new uid in the meantime, or renamed the user. Without a current record
            // the commit then ends in a conflict, and the plan is made again.
            let has_identity = |found: &Versioned<User>| {
                listed[index].uid.is_some()
                    || fold(&found.record.name) == fold(&listed[index].user.name)
            };
            let before = accounts.user(uid)?.filter(has_identity);
            let after =
                user_after(accounts, &listed[index], uid, before.as_ref().map(|b| &b.record));
            self.users.push(PlannedChange { at: Some(index), before, after: Some(after) });
        }
        if unlisted == Unlisted::Remove {
            remove_unlisted(accounts, &mut self.users, |user| listed_uids.contains(&user.uid))?;
        }
        self.index_users(accounts)
    }

    /// Collects the planned names and mail addresses, and checks that they are unique.
    fn index_users(&mut self, accounts: &Accounts) -> Result<(), AccountError> {
        for (position, change) in self.users.iter().enumerate() {
            let mail = |user: &User| user.mail.as_deref().map(fold);
            let name = |user: &User| Some(fold(&user.name));
            self.names.add(position, change, name, &mut self.violations);
            self.mails.add(position, change, mail, &mut self.violations);
        }
        self.names.check(accounts, &self.users, &mut self.violations)?;
        self.mails.check(accounts, &self.users, &mut self.violations)
    }

    fn plan_keys(
        &mut self,
        accounts: &Accounts,
        document: &StateDocument,
        unlisted: Unlisted,
    ) -> Result<(), AccountError> {
        self.check_pepper(accounts, document);
        let mut seen = HashSet::new();
        let mut digests = HashSet::new();
        let prefixes = self.key_prefixes();
        for (index, listed) in document.keys.iter().enumerate() {
            self.cancel.check()?;
            let id = listed.key.id;
            if !seen.insert(id) {
                let message = format!("The key {id} is listed twice in the file.");
                self.add_violation("keys", index, "id", message, "Keep one of the two entries.");
                continue;
            }
            let repeated = listed.key.foreign_digests().filter(|digest| !digests.insert(*digest));
            if repeated.count() > 0 {
                let message = "Two keys of the file have this digest.";
                let fix = "A key belongs to one user. Keep one of the two entries.";
                self.add_violation("keys", index, "digest", message, fix);
            }
            let before = accounts.key(id)?;
            if before.is_none() {
                self.check_digest_is_free(accounts, index, &listed.key)?;
            }
            let Some(user) = self.owner(accounts, &listed.owner)? else {
                let message = format!("There is no user {:?}.", listed.owner);
                let fix = "Name a user who is in the store or in the file.";
                self.add_violation("keys", index, "user", message, fix);
                continue;
            };
            let mut after = key_after(accounts, listed, user, before.as_ref().map(|b| &b.record));
            if before.is_none() && listed.prefix.is_none() && after.scheme.is_own() {
                let prefix = prefixes.get(&after.application).cloned();
                after.prefix = prefix.unwrap_or_else(|| "kw".into());
            }
            if listed.created.is_some() {
                self.restored_keys.insert(index);
            }
            self.keys.push(PlannedChange { at: Some(index), before, after: Some(after) });
        }
        if unlisted == Unlisted::Remove {
            remove_unlisted(accounts, &mut self.keys, |key: &Key| seen.contains(&key.id))?;
        }
        Ok(())
    }

    /// Checks that the digests of the listed keys were made with the pepper of the store. With
    /// another pepper, the text of a key would not match its digest.
    fn check_pepper(&mut self, accounts: &Accounts, document: &StateDocument) {
        if document.keys.is_empty() || document.pepper == Some(accounts.pepper().fingerprint()) {
            return;
        }
        let (message, fix) = match document.pepper {
            None => (
                "The file has keys, but does not name the pepper that their digests were made with.",
                "Copy the line pepper = … from the exported file that the keys were copied from.",
            ),
            Some(_) => (
                "The keys' digests were made with another pepper than the store's: no key would \
                 match.",
                "Apply the file on a server with that pepper, or remove the keys from the file and \
                 give the users new keys.",
            ),
        };
        self.violations.push(Violation::new("pepper", message, fix));
    }

    /// Checks that no key of the store has the digest of a new key. The digests must be unique,
    /// because the server finds keys of other systems by their digests.
    fn check_digest_is_free(
        &mut self,
        accounts: &Accounts,
        index: usize,
        key: &Key,
    ) -> Result<(), AccountError> {
        for digest in key.foreign_digests() {
            if accounts.store().get(Table::Foreign, &digest)?.is_none() {
                continue;
            }
            let message = "Another key of the store has this digest.";
            let fix = "Change the record's id to the id of that key, which keyward key list shows.";
            self.add_violation("keys", index, "digest", message, fix);
        }
        Ok(())
    }

    /// The uid of the user who will have this name. `None` means that no user will have it.
    fn owner(&self, accounts: &Accounts, name: &str) -> Result<Option<u64>, AccountError> {
        let folded = fold(name);
        match self.names.planned_uid(&folded) {
            Some(uid) => Ok(uid),
            None => accounts.uid_by(Table::Names, &folded),
        }
    }

    /// The planned prefix of each application's keys. `None` stands for the default application.
    fn key_prefixes(&self) -> HashMap<Option<String>, String> {
        let planned = self.applications.iter().filter_map(|change| change.after.as_ref());
        let mut prefixes = HashMap::new();
        for application in planned {
            let prefix = &application.key_prefix;
            if application.is_default {
                prefixes.entry(None).or_insert_with(|| prefix.clone());
            }
            prefixes.insert(Some(application.id.clone()), prefix.clone());
        }
        prefixes
    }

    /// Adds a violation of a field of a listed record. `list` is the name of the document's list,
    /// such as `users`, and `index` is the index of the record in that list.
    pub fn add_violation(
        &mut self,
        list: &str,
        index: usize,
        field: &str,
        message: impl Into<String>,
        fix: &str,
    ) {
        self.violations.push(Violation::new(format!("{list}.{index}.{field}"), message, fix));
    }
}

/// Plans the roles, applications or resources. The plan also contains the records that do not
/// change, because the rules for other records depend on them.
fn plan_policy<T: StateRecord>(
    accounts: &Accounts,
    listed: &[T],
    unlisted: Unlisted,
    violations: &mut Vec<Violation>,
) -> Result<Vec<PlannedChange<T>>, AccountError> {
    let mut current: BTreeMap<Vec<u8>, Versioned<T>> = BTreeMap::new();
    each::<T>(accounts, |stored| {
        current.insert(stored.record.key(), stored);
        Ok(())
    })?;
    let mut seen = HashSet::new();
    let mut changes = Vec::new();
    for (index, record) in listed.iter().enumerate() {
        if seen.insert(record.key()) {
            let before = current.remove(&record.key());
            changes.push(PlannedChange { at: Some(index), before, after: Some(record.clone()) });
            continue;
        }
        let location = format!("{}.{index}.id", T::LIST);
        let message = format!("The {} {} is listed twice in the file.", T::NAME, record.title());
        violations.push(Violation::new(location, message, "Keep one of the two entries."));
    }
    let rest = current.into_values().map(|before| {
        let after = (unlisted == Unlisted::Keep).then(|| before.record.clone());
        PlannedChange { at: None, before: Some(before), after }
    });
    changes.extend(rest);
    Ok(changes)
}

/// Plans the removal of all records that the document does not list.
fn remove_unlisted<T: StateRecord>(
    accounts: &Accounts,
    changes: &mut Vec<PlannedChange<T>>,
    is_listed: impl Fn(&T) -> bool,
) -> Result<(), AccountError> {
    let mut count = 0;
    each::<T>(accounts, |stored| {
        if !is_listed(&stored.record) {
            count += 1;
            changes.push(PlannedChange { at: None, before: Some(stored), after: None });
        }
        if count > MOST_CHANGES { Err(too_many(count)) } else { Ok(()) }
    })
}

/// The planned record of a listed user. `before` is the current record.
fn user_after(accounts: &Accounts, listed: &DocumentUser, uid: u64, before: Option<&User>) -> User {
    let mut user = User { uid, ..listed.user.clone() };
    normalize_roles(&mut user.roles);
    normalize_mail(&mut user);
    user.uuid = listed.uuid.or(before.map(|before| before.uuid)).unwrap_or(user.uuid);
    user.init = match (&listed.init, listed.created) {
        (Some(init), _) => Some(init.clone()),
        // A listed creation time means that the document restores an old record. If it lists no
        // first mail address, the old record had none.
        (None, Some(_)) => None,
        (None, None) => before.map_or_else(|| user.mail.clone(), |before| before.init.clone()),
    };
    user.password = match &listed.password {
        DocumentPassword::Unspecified => before.and_then(|before| before.password.clone()),
        DocumentPassword::None => None,
        DocumentPassword::Digest(digest) => Some(digest.clone()),
    };
    let now = accounts.clock().now();
    user.created = listed.created.or(before.map(|before| before.created)).unwrap_or(now);
    user.changed = now;
    if let Some(before) = before {
        (user.access, user.login) = (before.access, before.login);
        let unchanged = User { changed: before.changed, ..user.clone() };
        if unchanged == *before {
            return unchanged;
        }
    }
    user
}

/// The planned record of a listed key. `before` is the current record.
fn key_after(accounts: &Accounts, listed: &DocumentKey, user: u64, before: Option<&Key>) -> Key {
    let mut key = Key { user, ..listed.key.clone() };
    let now = accounts.clock().now();
    key.created = listed.created.or(before.map(|before| before.created)).unwrap_or(now);
    // The prefix and the last four characters cannot be computed, because the document does not
    // contain the key's text.
    let prefix = listed.prefix.clone().or_else(|| before.map(|before| before.prefix.clone()));
    key.prefix = prefix.unwrap_or_default();
    let last_four = listed.last_four.clone().or_else(|| before.map(|b| b.last_four.clone()));
    key.last_four = last_four.unwrap_or_default();
    // The file contains the slow digest of the key, which the first use of the key has replaced
    // after the file was written. The current digest stays.
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
            "The file would change at least {count} records, and one file may change at most \
             {MOST_CHANGES}."
        ),
        "Use keyward key import for many keys, and keyward backup and keyward restore for a whole \
         store.",
    )
}
