//! A plan as one batch, and as what is told of it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    Applied, Difference, Done,
    plan::{Change, Plan},
    record::{Kind, differing},
};
use crate::{
    accounts::{
        AccountError, Accounts, Writer,
        keys::put_new_key,
        rules::ensure_valid,
        setup::PEPPER,
        usage::{delete_key_usage, delete_user_usage},
    },
    model::{Key, User},
    store::{Batch, Expected, Table, encode, table},
};

/// A plan that is in order.
pub(super) struct Finished {
    /// What is done.
    pub applied: Applied,
    /// What is to be written.
    pub batch: Batch,
    /// What events tell of.
    pub news: News,
}

/// The users and keys that come, and the keys that are taken back.
#[derive(Default)]
pub(super) struct News {
    pub users: Vec<User>,
    /// Each with its user's name.
    pub keys: Vec<(Key, String)>,
    pub revoked: Vec<Key>,
}

impl Plan {
    /// What is done, and the batch that does it.
    pub fn finish(mut self, acting: &Writer) -> Result<Finished, AccountError> {
        let faults = std::mem::take(&mut self.found);
        ensure_valid(faults)?;
        let applied = self.differences(acting);
        if applied.changes.is_empty() && !self.is_new {
            return Ok(Finished { applied, batch: Batch::new(), news: News::default() });
        }
        let world = self.world(acting, acting.actor())?;
        self.check(acting, &world)?;
        ensure_valid(std::mem::take(&mut self.found))?;
        let witness = self.keep_an_administrator(acting, &world)?;
        self.keep_the_caller(acting, &world, acting.actor())?;
        let mut batch = Batch::new();
        self.rest_on(acting, witness, &mut batch)?;
        self.take_away(acting, &mut batch)?;
        self.put(acting, &mut batch)?;
        let news = self.news(acting);
        Ok(Finished { applied, batch, news })
    }

    /// What events tell of.
    fn news(self, accounts: &Accounts) -> News {
        let names: HashMap<u64, String> = self
            .users
            .iter()
            .filter_map(|one| one.after.as_ref())
            .map(|user| (user.uid, user.name.clone()))
            .collect();
        let name = |uid: u64| names.get(&uid).cloned().unwrap_or_else(|| accounts.user_name(uid));
        let mut news = News::default();
        for one in self.keys {
            let was_revoked = one.before.as_ref().map(|before| before.record.revoked.is_some());
            let Some(key) = one.after else { continue };
            match (was_revoked, key.revoked.is_some()) {
                (None, false) => {
                    let owner = name(key.user);
                    news.keys.push((key, owner));
                }
                (Some(false), true) => news.revoked.push(key),
                _ => {}
            }
        }
        let new = self.users.into_iter().filter(|one| one.before.is_none());
        news.users.extend(new.filter_map(|one| one.after));
        news
    }

    /// What the rules were asked of stays as it was until the commit.
    fn rest_on(
        &self,
        accounts: &Accounts,
        witness: Option<u64>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        unmoved(&self.roles, batch);
        unmoved(&self.applications, batch);
        unmoved(&self.resources, batch);
        if let Some(uid) = witness
            && let Some(user) = accounts.user(uid)?
        {
            batch.expect(Table::Users, table::user(uid), Expected::Revision(user.revision));
        }
        if self.is_new {
            batch.expect(Table::Meta, PEPPER, Expected::Missing);
            batch.put(Table::Meta, PEPPER, encode(&accounts.pepper().fingerprint()));
        }
        Ok(())
    }

    fn take_away(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        for one in self.keys.iter().filter(|one| one.after.is_none()) {
            let Some(before) = &one.before else { continue };
            let (key, at) = (&before.record, before.record.key());
            batch.expect(Table::Keys, at.clone(), Expected::Revision(before.revision));
            batch.delete(Table::Keys, at);
            batch.delete(Table::Owners, table::owner(key.user, key.id));
            for digest in key.foreign_digests() {
                batch.delete(Table::Foreign, digest);
            }
            delete_key_usage(batch, key.id);
        }
        let mut has_gone = false;
        for one in self.users.iter().filter(|one| one.after.is_none()) {
            let Some(before) = &one.before else { continue };
            let at = table::user(before.record.uid);
            batch.expect(Table::Users, at, Expected::Revision(before.revision));
            batch.delete(Table::Users, at);
            // A key that has come since would be nobody's.
            let newest = accounts.keys_in_force(before.record.uid)?.1;
            batch.expect(Table::Owners, at, Expected::Newest(newest));
            delete_user_usage(batch, before.record.uid);
            has_gone = true;
        }
        if has_gone {
            let last = accounts.store().get(Table::Meta, table::LAST_UID)?;
            let state = last.map_or(Expected::Missing, |stored| Expected::Revision(stored.revision));
            batch.expect(Table::Meta, table::LAST_UID, state);
            batch.put(Table::Meta, table::LAST_UID, encode(&accounts.directory().last_uid()));
        }
        remove(&self.resources, batch);
        remove(&self.applications, batch);
        remove(&self.roles, batch);
        Ok(())
    }

    fn put(&self, accounts: &Accounts, batch: &mut Batch) -> Result<(), AccountError> {
        write(&self.roles, batch);
        write(&self.applications, batch);
        write(&self.resources, batch);
        write(&self.users, batch);
        self.names.write(batch);
        self.mails.write(batch);
        let is_new = |one: &&Change<User>| one.before.is_none();
        let new = self.users.iter().filter(is_new).filter_map(|one| one.after.as_ref());
        let new: HashSet<u64> = new.map(|user| user.uid).collect();
        let mut growing = BTreeSet::new();
        for one in self.keys.iter().filter(|one| one.is_one()) {
            match (&one.before, &one.after) {
                (None, Some(key)) => {
                    put_new_key(batch, key);
                    growing.insert(key.user);
                }
                (Some(before), Some(key)) => {
                    batch.expect(Table::Keys, key.key(), Expected::Revision(before.revision));
                    batch.put(Table::Keys, key.key(), encode(key));
                }
                _ => {}
            }
        }
        for uid in growing {
            let newest = accounts.keys_in_force(uid)?.1;
            batch.expect(Table::Owners, table::user(uid), Expected::Newest(newest));
            if !new.contains(&uid) {
                batch.expect(Table::Users, table::user(uid), Expected::Present);
            }
        }
        Ok(())
    }

    fn differences(&self, accounts: &Accounts) -> Applied {
        let after = self.users.iter().filter_map(|one| one.after.as_ref());
        let names: HashMap<u64, &str> = after.map(|user| (user.uid, user.name.as_str())).collect();
        let name = |uid: u64| match names.get(&uid) {
            Some(name) => Some((*name).to_owned()),
            None => accounts.directory().user(uid).map(|member| member.name.to_string()),
        };
        let mut applied = Applied { changes: Vec::new(), unchanged: 0 };
        tell(&self.roles, &name, &mut applied);
        tell(&self.applications, &name, &mut applied);
        tell(&self.resources, &name, &mut applied);
        tell(&self.users, &name, &mut applied);
        tell(&self.keys, &name, &mut applied);
        applied
    }
}

/// No record of this kind is changed, made or taken away by others.
fn unmoved<T: Kind>(all: &[Change<T>], batch: &mut Batch) {
    let revisions = all.iter().filter_map(|one| Some((one.before.as_ref()?, one.revision()?)));
    let mut newest = 0;
    for (before, revision) in revisions {
        batch.expect(T::TABLE, before.record.key(), Expected::Revision(revision));
        newest = newest.max(revision);
    }
    batch.expect(T::TABLE, Vec::new(), Expected::Newest(newest));
}

fn remove<T: Kind>(all: &[Change<T>], batch: &mut Batch) {
    for before in all.iter().filter(|one| one.after.is_none()).filter_map(|one| one.before.as_ref())
    {
        batch.delete(T::TABLE, before.record.key());
    }
}

fn write<T: Kind>(all: &[Change<T>], batch: &mut Batch) {
    for one in all.iter().filter(|one| one.is_one()) {
        let Some(after) = &one.after else { continue };
        let state = one.revision().map_or(Expected::Missing, Expected::Revision);
        batch.expect(T::TABLE, after.key(), state);
        batch.put(T::TABLE, after.key(), encode(after));
    }
}

fn tell<T: Kind>(all: &[Change<T>], names: &dyn Fn(u64) -> Option<String>, applied: &mut Applied) {
    for one in all {
        let before = one.before.as_ref().map(|before| &before.record);
        let change = match (before, &one.after) {
            (None, Some(_)) => Done::Add,
            (Some(_), None) => Done::Remove,
            _ if one.is_one() => Done::Change,
            _ => {
                applied.unchanged += usize::from(one.at.is_some());
                continue;
            }
        };
        let named = before.or(one.after.as_ref());
        let id = named.map(Kind::title).unwrap_or_default();
        let view = |record: &T| record.view(names);
        let (before, after) = differing(before.map(view), one.after.as_ref().map(view));
        applied.changes.push(Difference { change, kind: T::WHAT, id, before, after });
    }
}
