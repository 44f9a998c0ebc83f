//! Creating, reading, changing and deleting users.

pub(super) mod cache;
pub(super) mod last_admin;
pub(super) mod names;

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use self::names::claim_name_and_mail;
use super::{
    AccountError, Accounts, Page, ReadUser, Versioned, Writer,
    events::NewRecord,
    rules::{check_identity, check_user, ensure_valid},
    usage::{delete_key_usage, delete_user_usage},
    writer::{Attempt, PendingCommit},
};
use crate::{
    model::{
        Act, Credits, Mode, PasswordDigest, RateLimit, Secret, Timestamp, User, Violation, compose,
    },
    store::{Batch, Expected, Sequence, Table, encode, table},
};

/// The fields of a new user that the creator chooses. The other fields get default values.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The name.
    pub name: String,
    /// The mail address.
    pub mail: Option<String>,
    /// Whether the user is active. `false` means blocked.
    pub status: bool,
    /// The ids of the user's roles.
    pub roles: Vec<String>,
    /// The password, hashed by [`Accounts::hash_password`].
    pub password: Option<PasswordDigest>,
    /// The language of the record. `None` means `en`.
    pub langcode: Option<String>,
    /// The language that the user reads.
    pub preferred_langcode: Option<String>,
    /// The language of administration pages for the user.
    pub preferred_admin_langcode: Option<String>,
    /// The time zone.
    pub timezone: Option<String>,
    /// The time of creation. `None` means now.
    pub created: Option<Timestamp>,
    /// Named values that scripts can read.
    pub attributes: std::collections::BTreeMap<String, String>,
    /// The rate limit that all credentials of the user share. `None` means no limit.
    pub rate_limit: Option<RateLimit>,
    /// The credits that all credentials of the user share in a day, a week or a month. `None` means
    /// no limit.
    pub credits: Option<Credits>,
}

impl Accounts {
    /// The record of a new user. The record is not written yet, and its uid is 0.
    pub fn draft_user(&self, new: NewUser) -> User {
        let now = self.0.clock.now();
        User {
            uid: 0,
            uuid: new_uuid(self),
            name: new.name,
            init: new.mail.clone(),
            mail: new.mail,
            status: new.status,
            roles: new.roles,
            password: new.password,
            created: new.created.unwrap_or(now),
            changed: now,
            access: Timestamp(0),
            login: Timestamp(0),
            langcode: new.langcode.unwrap_or_else(|| "en".into()),
            preferred_langcode: new.preferred_langcode,
            preferred_admin_langcode: new.preferred_admin_langcode,
            timezone: new.timezone,
            attributes: new.attributes,
            rate_limit: new.rate_limit,
            credits: new.credits,
        }
    }

    /// All violations of a user's record, including a name or a mail address that another user has,
    /// so that a person sees all faults at once. The commit checks the name and the address again,
    /// because another user can take them after this check.
    pub fn user_violations(&self, user: &User) -> Result<Vec<Violation>, AccountError> {
        let mut found = check_user(self, user);
        if self.is_taken(Table::Names, user, |user| Some(&user.name))? {
            found.push(taken_name(user));
        }
        if self.is_taken(Table::Mails, user, |user| user.mail.as_deref())? {
            found.push(taken_mail(user));
        }
        Ok(found)
    }

    /// The user with this uid.
    pub fn user(&self, uid: u64) -> Result<Option<Versioned<User>>, AccountError> {
        self.read(Table::Users, &table::user(uid))
    }

    /// The user with this uid. An unchanged record comes from a cache.
    pub fn shared_user(&self, uid: u64) -> Result<Option<Arc<ReadUser>>, AccountError> {
        let Some(cached) = self.0.directory.user(uid) else { return Ok(None) };
        if let Some(user) = self.0.user_cache.get(&cached) {
            return Ok(Some(user));
        }
        let Some(user) = self.user(uid)?.map(ReadUser::new).map(Arc::new) else { return Ok(None) };
        self.0.user_cache.insert(cached, user.clone());
        Ok(Some(user))
    }

    /// A page of users, sorted by uid. The page begins after the user `after`, or with the first
    /// user if `after` is `None`.
    pub fn users(&self, after: Option<u64>, limit: usize) -> Result<Page<User>, AccountError> {
        let after = after.map(table::user);
        self.page(Table::Users, after.as_ref().map(<[u8; 8]>::as_slice), limit)
    }

    pub(super) fn change_batch(
        &self,
        before: &Versioned<User>,
        user: &User,
    ) -> Result<Batch, AccountError> {
        let key = table::user(user.uid);
        let mut batch = Batch::new();
        batch.expect(Table::Users, key, Expected::Revision(before.revision));
        batch.put(Table::Users, key, encode(user));
        self.require_remaining_admin(&before.record, Some(user), &mut batch)?;
        self.move_name_and_mail(&mut batch, user, &before.record)?;
        Ok(batch)
    }

    /// A batch that deletes a user with all dependent records.
    pub(super) fn deletion_batch(&self, before: &Versioned<User>) -> Result<Batch, AccountError> {
        let user = &before.record;
        let key = table::user(user.uid);
        let mut batch = Batch::new();
        batch.expect(Table::Users, key, Expected::Revision(before.revision));
        batch.delete(Table::Users, key);
        self.require_remaining_admin(user, None, &mut batch)?;
        self.release_name_and_mail(&mut batch, user)?;
        self.delete_keys(user.uid, &mut batch)?;
        delete_user_usage(&mut batch, user.uid);
        self.keep_last_uid(user.uid, &mut batch)?;
        Ok(batch)
    }

    /// Adds the largest uid that was ever assigned to a batch that deletes a user, unless the store
    /// already has a uid that is at least as large. A uid is then never reused, and deletions at
    /// the same time do not all write one record.
    pub(super) fn keep_last_uid(&self, uid: u64, batch: &mut Batch) -> Result<(), AccountError> {
        let last = self.read::<u64>(Table::Meta, table::LAST_UID)?;
        if last.as_ref().is_some_and(|last| last.record >= uid) {
            return Ok(());
        }
        let expected = last.map_or(Expected::Missing, |last| Expected::Revision(last.revision));
        batch.expect(Table::Meta, table::LAST_UID, expected);
        let newest = self.0.directory.last_uid().max(uid);
        batch.put(Table::Meta, table::LAST_UID, encode(&newest));
        Ok(())
    }

    fn delete_keys(&self, uid: u64, batch: &mut Batch) -> Result<(), AccountError> {
        for (owner, _) in self.store().scan(Table::Owners, &table::user(uid), None, usize::MAX)? {
            let Some((_, id)) = table::parse_owner(&owner) else { continue };
            if let Some(key) = self.key(id)? {
                for digest in key.record.foreign_digests() {
                    batch.delete(Table::Foreign, digest);
                }
            }
            delete_key_usage(batch, id);
            batch.delete(Table::Keys, table::key(id));
            batch.delete(Table::Owners, owner);
        }
        Ok(())
    }

    /// Hashes a new password.
    pub async fn hash_password(&self, password: Secret) -> Result<PasswordDigest, AccountError> {
        ensure_valid(password_problem(&password).into_iter().collect())?;
        let entropy = self.0.entropy.clone();
        let hashed = self.0.passwords.hash(password, entropy).await;
        hashed.map_err(|_| AccountError::Busy)
    }

    /// Whether a user with these roles is an administrator.
    pub(super) fn has_admin_role(&self, roles: &[String]) -> bool {
        self.0.directory.policy().roles.has_administrators(roles)
    }
}

impl Writer {
    /// Creates a user.
    pub async fn create_user(&self, new: NewUser) -> Result<Versioned<User>, AccountError> {
        self.insert_user(self.draft_user(new)).await
    }

    /// Creates a user from a draft. The user gets the next free uid.
    pub async fn insert_user(&self, mut user: User) -> Result<Versioned<User>, AccountError> {
        normalize_roles(&mut user.roles);
        normalize_mail(&mut user);
        self.authority().check_user(None, &user, self)?;
        ensure_valid(check_user(self, &user))?;
        let draft = &user;
        let attempt = || async move {
            let user = User { uid: self.0.directory.next_uid(), ..draft.clone() };
            let mut batch = Batch::new();
            batch.expect(Table::Users, table::user(user.uid), Expected::Missing);
            batch.put(Table::Users, table::user(user.uid), encode(&user));
            claim_name_and_mail(&mut batch, &user);
            let webhooks = self.approve(&[NewRecord::User(&user)], Mode::Live).await?;
            let act = self.hide_credentials(Act::create("user", user.uid, &user));
            // A conflict in `Users` means that another process took the uid.
            let taken = taken_violations(&user);
            let finish = |revision| Versioned { revision, record: user };
            Ok(PendingCommit::new(batch, act, finish)
                .with_webhooks(webhooks)
                .on_conflict(|conflict| taken_error(conflict.table, taken).map(Err))
                .into())
        };
        self.update_async(attempt).await
    }

    /// Changes a user.
    ///
    /// `edit` gets the current record and may refuse the change. If another writer changes the
    /// record before the commit, `edit` is called again with the new record. `expected` is the only
    /// revision that may be changed; `None` accepts every revision. If `edit` changes no field,
    /// nothing is written.
    pub async fn change_user<E: From<AccountError>>(
        &self,
        uid: u64,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut User) -> Result<(), E>,
    ) -> Result<Versioned<User>, E> {
        let changes_attributes = || {
            let Ok(Some(before)) = self.user(uid) else { return false };
            let mut user = before.record.clone();
            edit(&mut user).is_ok() && user.attributes != before.record.attributes
        };
        self.load_scripts_for_attributes(changes_attributes).await?;
        let attempt = || {
            let before = self.current_user(uid)?.expect_revision(expected)?;
            let mut user = before.record.clone();
            edit(&mut user)?;
            normalize_roles(&mut user.roles);
            normalize_mail(&mut user);
            if user == before.record {
                return Ok(Attempt::Unchanged(before));
            }
            self.authority().check_user(Some(&before.record), &user, self)?;
            ensure_valid(check_identity(&before.record, &user))?;
            ensure_valid(check_user(self, &user))?;
            user.changed = self.0.clock.now();
            let mut batch = self.change_batch(&before, &user)?;
            if self.replaces_credential_attribute(&before.record, &user) {
                self.revoke_adopted_keys(uid, &mut batch)?;
            }
            let act = Act::change("user", "change", uid, &before.record, &user);
            let act = self.hide_credentials(act);
            let taken = taken_violations(&user);
            let finish = |revision| Versioned { revision, record: user };
            Ok(PendingCommit::new(batch, act, finish)
                .on_conflict(|conflict| taken_error(conflict.table, taken).map(Err))
                .into())
        };
        self.update(attempt).await
    }

    /// Deletes a user and the user's keys.
    pub async fn delete_user(
        &self,
        uid: u64,
        expected: Option<Sequence>,
    ) -> Result<(), AccountError> {
        let attempt = || {
            let before = self.current_user(uid)?;
            self.require_change_of(&before.record)?;
            let before = before.expect_revision(expected)?;
            let batch = self.deletion_batch(&before)?;
            let act = self.hide_credentials(Act::delete("user", uid, &before.record));
            Ok::<_, AccountError>(PendingCommit::new(batch, act, |_| ()).into())
        };
        self.update(attempt).await?;
        self.delete_late_keys(uid).await
    }

    /// Deletes keys that were created while their user was being deleted. After the deletion no
    /// more keys can be created, because a new key needs an existing user.
    pub(super) async fn delete_late_keys(&self, uid: u64) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        self.delete_keys(uid, &mut batch)?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        let details =
            json!({ "reason": "The keys were created while their user was being deleted." });
        let act = Act::other("key.delete", format!("user/{uid}"), details);
        self.commit(batch, act, Vec::new()).await?;
        Ok(())
    }

    pub(super) fn current_user(&self, uid: u64) -> Result<Versioned<User>, AccountError> {
        self.user(uid)?.ok_or_else(|| AccountError::not_found("user", uid))
    }
}

/// The violations for a taken name and for a taken mail address.
fn taken_violations(user: &User) -> [Violation; 2] {
    [taken_name(user), taken_mail(user)]
}

/// The error for a conflict in the index of names or of mail addresses. `None` means that the
/// conflict is in another table.
fn taken_error(conflict: Table, [name, mail]: [Violation; 2]) -> Option<AccountError> {
    match conflict {
        Table::Names => Some(AccountError::Invalid(vec![name])),
        Table::Mails => Some(AccountError::Invalid(vec![mail])),
        _ => None,
    }
}

pub(super) fn taken_name(user: &User) -> Violation {
    let message = format!("The username {} is already taken.", user.name);
    Violation::new("name", message, "Choose another name.")
}

pub(super) fn taken_mail(user: &User) -> Violation {
    let mail = user.mail.as_deref().unwrap_or_default();
    let message = format!("The email address {mail} is already taken.");
    Violation::new("mail", message, "Give another address.")
}

/// Brings the user's mail address into the composed form, in which it is sent (RFC 6532).
pub(super) fn normalize_mail(user: &mut User) {
    if let Some(mail) = user.mail.as_mut().filter(|mail| !mail.is_ascii()) {
        *mail = compose(mail).into_owned();
    }
}

/// Removes duplicates and the role `authenticated`, which every user has. The order of the other
/// roles stays.
pub(super) fn normalize_roles(roles: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    roles.retain(|role| role != crate::model::AUTHENTICATED && seen.insert(role.clone()));
}

/// The rule that a new password breaks. `None` means that the password is acceptable.
pub fn password_problem(password: &Secret) -> Option<Violation> {
    let is_valid = (1..=1024).contains(&password.expose().len());
    (!is_valid).then(|| {
        Violation::new("password", "A password has 1 to 1,024 bytes.", "Choose another password.")
    })
}

/// The minimum length of a new password, in characters (NIST SP 800-63B, section 5.1.1.1).
const MIN_PASSWORD: usize = 8;

/// The violation of a new password that is too short. `None` means that it is long enough. The user
/// entity does not have this rule, because its clients may set shorter passwords.
pub fn short_password(password: &Secret) -> Option<Violation> {
    (password.expose().chars().count() < MIN_PASSWORD).then(|| {
        Violation::new(
            "password",
            format!("A password has at least {MIN_PASSWORD} characters."),
            "Choose a longer password, such as several words.",
        )
    })
}

/// A version 7 UUID (RFC 9562) from the accounts' clock and random source.
pub(super) fn new_uuid(accounts: &Accounts) -> Uuid {
    let millis = accounts.0.clock.now().0.unsigned_abs() * 1000;
    uuid::Builder::from_unix_timestamp_millis(millis, &accounts.0.entropy.bytes()).into_uuid()
}
