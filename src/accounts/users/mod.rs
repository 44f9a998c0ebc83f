//! Users.

pub(super) mod cache;
pub(super) mod last_admin;

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;

use super::{
    AccountError, Accounts, Page, ReadUser, TRIES, Versioned, Writer,
    events::New,
    is_race,
    rules::{check_identity, check_user, in_order},
    usage::{forget_usage_of_key, forget_usage_of_user},
};
use crate::{
    directory::LAST_UID,
    model::{
        Act, Credits, Key, Mode, PasswordDigest, RateLimit, Secret, Timestamp, User, Violation,
        fold,
    },
    store::{Batch, CommitError, Sequence, State, Table, encode},
};

/// What a new user starts with. What is not here begins empty.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// The name.
    pub name: String,
    /// The mail address.
    pub mail: Option<String>,
    /// Active, or blocked.
    pub status: bool,
    /// The ids of its roles.
    pub roles: Vec<String>,
    /// The password, hashed by [`Accounts::hash_password`].
    pub password: Option<PasswordDigest>,
    /// The language of the record; none: `en`.
    pub langcode: Option<String>,
    /// The language that the user reads.
    pub preferred_langcode: Option<String>,
    /// The language that the user administers in.
    pub preferred_admin_langcode: Option<String>,
    /// The time zone.
    pub timezone: Option<String>,
    /// When it was made; none: now.
    pub created: Option<Timestamp>,
    /// Small facts that scripts can read.
    pub attributes: std::collections::BTreeMap<String, String>,
    /// How fast all its credentials together may be used; none: as fast as they come.
    pub rate_limit: Option<RateLimit>,
    /// How often they may be used in a day, a week or a month; none: without end.
    pub credits: Option<Credits>,
}

impl Accounts {
    /// A user that is not written yet and has no number.
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

    /// All that is wrong with a user's record as it would be written: what others have taken too, so that a person learns of everything at
    /// once. What is taken between this look and the write is found by the write.
    pub fn user_problems(&self, user: &User) -> Result<Vec<Violation>, AccountError> {
        let mut found = check_user(self, user);
        let is_others = |table, key: String| -> Result<bool, AccountError> {
            let Some(stored) = self.store().get(table, key.as_bytes())? else {
                return Ok(false);
            };
            Ok(stored.read::<u64>(table, key.as_bytes())? != user.uid)
        };
        if is_others(Table::Names, fold(&user.name))? {
            found.push(taken_name(user));
        }
        if let Some(mail) = &user.mail
            && is_others(Table::Mails, fold(mail))?
        {
            found.push(taken_mail(user));
        }
        Ok(found)
    }

    /// The user with this number.
    pub fn user(&self, uid: u64) -> Result<Option<Versioned<User>>, AccountError> {
        let key = uid_key(uid);
        let Some(stored) = self.store().get(Table::Users, &key)? else {
            return Ok(None);
        };
        Ok(Some(Versioned { revision: stored.revision, record: stored.read(Table::Users, &key)? }))
    }

    /// The same, shared: without asking the store for one that was read since it was last written.
    pub fn shared_user(&self, uid: u64) -> Result<Option<Arc<ReadUser>>, AccountError> {
        let Some(member) = self.0.directory.user(uid) else { return Ok(None) };
        if let Some(user) = self.0.recent.get(&member) {
            return Ok(Some(user));
        }
        let Some(user) = self.user(uid)?.map(ReadUser::new).map(Arc::new) else { return Ok(None) };
        self.0.recent.keep(member, user.clone());
        Ok(Some(user))
    }

    /// Users in the order of their numbers, after `after`.
    pub fn users(&self, after: Option<u64>, limit: usize) -> Result<Page<User>, AccountError> {
        let after = after.map(uid_key);
        self.page(Table::Users, after.as_ref().map(<[u8; 8]>::as_slice), limit)
    }

    fn change_batch(&self, before: &Versioned<User>, user: &User) -> Result<Batch, AccountError> {
        let key = uid_key(user.uid);
        let mut batch = Batch::new();
        batch.expect(Table::Users, key, State::Revision(before.revision));
        batch.put(Table::Users, key, encode(user));
        self.keep_an_administrator(&before.record, Some(user), &mut batch)?;
        claim(&mut batch, user, Some(&before.record));
        Ok(batch)
    }

    /// All that goes with a user. Its number is never given again, so the largest one there was is written down.
    fn farewell(&self, before: &Versioned<User>) -> Result<Batch, AccountError> {
        let user = &before.record;
        let key = uid_key(user.uid);
        let mut batch = Batch::new();
        batch.expect(Table::Users, key, State::Revision(before.revision));
        batch.delete(Table::Users, key);
        self.keep_an_administrator(user, None, &mut batch)?;
        batch.delete(Table::Names, fold(&user.name));
        if let Some(mail) = &user.mail {
            batch.delete(Table::Mails, fold(mail));
        }
        self.delete_keys(user.uid, &mut batch)?;
        forget_usage_of_user(&mut batch, user.uid);
        let last = self.store().get(Table::Meta, LAST_UID)?;
        let state = last.map_or(State::Missing, |stored| State::Revision(stored.revision));
        batch.expect(Table::Meta, LAST_UID, state);
        batch.put(Table::Meta, LAST_UID, encode(&self.0.directory.last_uid()));
        Ok(batch)
    }

    fn delete_keys(&self, uid: u64, batch: &mut Batch) -> Result<(), AccountError> {
        for (owner, _) in self.store().scan(Table::Owners, &uid_key(uid), None, usize::MAX)? {
            if let Some(stored) = self.store().get(Table::Keys, &owner[8..])? {
                let key: Key = stored.read(Table::Keys, &owner[8..])?;
                for digest in key.foreign_digests() {
                    batch.delete(Table::Foreign, digest);
                }
            }
            forget_usage_of_key(batch, &owner[8..]);
            batch.delete(Table::Keys, &owner[8..]);
            batch.delete(Table::Owners, owner);
        }
        Ok(())
    }

    /// Hashes a new password.
    pub async fn hash_password(&self, password: Secret) -> Result<PasswordDigest, AccountError> {
        in_order(password_problem(&password).into_iter().collect())?;
        let entropy = self.0.entropy.clone();
        let hashed = self.0.passwords.hash(password, entropy).await;
        hashed.map_err(|_| AccountError::Busy)
    }

    /// Says which of a user's unique values somebody else has.
    fn taken(&self, problem: CommitError, user: &User) -> AccountError {
        let on = match problem {
            CommitError::Conflict(on) => on,
            CommitError::Store(problem) => return problem.into(),
        };
        AccountError::Invalid(vec![match on.table {
            Table::Names => taken_name(user),
            _ => taken_mail(user),
        }])
    }
}

impl Writer {
    /// Makes a user.
    pub async fn create_user(&self, new: NewUser) -> Result<Versioned<User>, AccountError> {
        self.insert_user(self.draft_user(new)).await
    }

    /// Makes a user of a draft. Its number is given now.
    pub async fn insert_user(&self, mut user: User) -> Result<Versioned<User>, AccountError> {
        dedup(&mut user.roles);
        in_order(check_user(self, &user))?;
        for _ in 0..TRIES {
            user.uid = self.0.directory.next_uid();
            let mut batch = Batch::new();
            batch.expect(Table::Users, uid_key(user.uid), State::Missing);
            batch.put(Table::Users, uid_key(user.uid), encode(&user));
            claim(&mut batch, &user, None);
            let webhooks = self.ask(&[New::User(&user)], Mode::Live).await?;
            let act = Act::create("user", user.uid, &user);
            match self.commit_telling(batch, act, webhooks).await {
                Ok(revision) => return Ok(Versioned { revision, record: user }),
                // Another process took the number: take the next one.
                Err(CommitError::Conflict(on)) if on.table == Table::Users => {}
                Err(problem) => return Err(self.taken(problem, &user)),
            }
        }
        Err(AccountError::contended())
    }

    /// Changes a user. `edit` gets the record as it is and may refuse; it is called again if somebody else changed the record in between,
    /// unless `expected` names the revision that must be changed. Nothing is written when nothing changed.
    pub async fn change_user<E: From<AccountError>>(
        &self,
        uid: u64,
        expected: Option<Sequence>,
        mut edit: impl FnMut(&mut User) -> Result<(), E>,
    ) -> Result<Versioned<User>, E> {
        for _ in 0..TRIES {
            let before = self.user(uid)?.ok_or_else(|| AccountError::not_found("user", uid))?;
            if expected.is_some_and(|revision| revision != before.revision) {
                let current = before.revision;
                return Err(AccountError::Stale { current }.into());
            }
            let mut user = before.record.clone();
            edit(&mut user)?;
            dedup(&mut user.roles);
            if user == before.record {
                return Ok(before);
            }
            in_order(check_identity(&before.record, &user))?;
            in_order(check_user(self, &user))?;
            user.changed = self.0.clock.now();
            let batch = self.change_batch(&before, &user)?;
            let act = Act::change("user", "change", uid, &before.record, &user);
            match self.commit(batch, act).await {
                Ok(revision) => return Ok(Versioned { revision, record: user }),
                // The user, or what the change relies on, is not as it was.
                Err(CommitError::Conflict(on))
                    if matches!(on.table, Table::Users | Table::Roles) => {}
                Err(problem) => return Err(self.taken(problem, &user).into()),
            }
        }
        Err(AccountError::contended().into())
    }

    /// Deletes a user and its keys.
    pub async fn delete_user(
        &self,
        uid: u64,
        expected: Option<Sequence>,
    ) -> Result<(), AccountError> {
        for _ in 0..TRIES {
            let before = self.user(uid)?.ok_or_else(|| AccountError::not_found("user", uid))?;
            if expected.is_some_and(|revision| revision != before.revision) {
                let current = before.revision;
                return Err(AccountError::Stale { current });
            }
            let batch = self.farewell(&before)?;
            let act = Act::delete("user", uid, &before.record);
            match self.commit(batch, act).await {
                Ok(_) => return self.sweep_keys(uid).await,
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    /// Deletes the keys that were made for a user while it was being deleted. No more can follow: a key is only made for a user that is there.
    async fn sweep_keys(&self, uid: u64) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        self.delete_keys(uid, &mut batch)?;
        if batch.writes.is_empty() {
            return Ok(());
        }
        let known = json!({ "reason": "They were made while their user was being deleted." });
        let act = Act::other("key.delete", format!("user/{uid}"), known);
        match self.commit(batch, act).await {
            Ok(_) => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
            Err(_) => Err(AccountError::contended()),
        }
    }
}

pub(super) fn taken_name(user: &User) -> Violation {
    let said = format!("The username {} is already taken.", user.name);
    Violation::new("name", said, "Choose another name.")
}

pub(super) fn taken_mail(user: &User) -> Violation {
    let mail = user.mail.as_deref().unwrap_or_default();
    let said = format!("The email address {mail} is already taken.");
    Violation::new("mail", said, "Give another address.")
}

/// Takes the name and the mail address for a user, and gives back those it had.
pub(super) fn claim(batch: &mut Batch, user: &User, before: Option<&User>) {
    let values = |user: &User| (fold(&user.name), user.mail.as_deref().map(fold));
    let (name, mail) = values(user);
    let (old_name, old_mail) = before.map_or((None, None), |before| {
        let (name, mail) = values(before);
        (Some(name), mail)
    });
    let moves = [(Table::Names, Some(name), old_name), (Table::Mails, mail, old_mail)];
    for (table, new, old) in moves.into_iter().filter(|(_, new, old)| new != old) {
        if let Some(old) = old {
            batch.delete(table, old);
        }
        if let Some(new) = new {
            batch.expect(table, new.clone(), State::Missing);
            batch.put(table, new, encode(&user.uid));
        }
    }
}

/// Each role once, in the order in which they came. `authenticated` goes without saying.
pub(super) fn dedup(roles: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    roles.retain(|role| role != crate::model::AUTHENTICATED && seen.insert(role.clone()));
}

/// What is wrong with a new password, or nothing.
pub fn password_problem(password: &Secret) -> Option<Violation> {
    let is_fit = (1..=1024).contains(&password.expose().len());
    (!is_fit).then(|| {
        Violation::new("password", "A password has 1 to 1,024 bytes.", "Choose another one.")
    })
}

/// Where a user lies.
pub(super) fn uid_key(uid: u64) -> [u8; 8] {
    uid.to_be_bytes()
}

/// A version 7 UUID (RFC 9562) from the clock and randomness that were handed in.
pub(super) fn new_uuid(accounts: &Accounts) -> Uuid {
    let millis = accounts.0.clock.now().0.unsigned_abs() * 1000;
    uuid::Builder::from_unix_timestamp_millis(millis, &accounts.0.entropy.bytes()).into_uuid()
}
