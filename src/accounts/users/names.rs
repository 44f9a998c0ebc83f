//! The indexes of names and mail addresses. Each maps the folded text of a user to the uid.
//!
//! In an old store, two users may have names or addresses that are equal now. The index has the one
//! with the lowest uid ([`crate::directory`] finds the others by their exact names).

use std::collections::BTreeMap;

use serde_json::json;

use crate::{
    accounts::{AccountError, Accounts},
    model::{Act, Actor, User, fold},
    store::{Batch, CommitError, Expected, StoreError, Table, encode},
};

/// The record in `meta` with the number of the form in which names and addresses are compared. The
/// form before number 1 was lower case.
pub(in crate::accounts) const NAME_FORM: &[u8] = b"name-form";
/// The number of the form [`fold`].
pub(in crate::accounts) const CURRENT_FORM: u8 = 1;
/// The number of index entries that are read at once.
const PAGE: usize = 1000;

/// Adds the writes that reserve the name and the mail address of a new user.
pub(in crate::accounts) fn claim_name_and_mail(batch: &mut Batch, user: &User) {
    claim(batch, Table::Names, fold(&user.name), user.uid);
    if let Some(mail) = &user.mail {
        claim(batch, Table::Mails, fold(mail), user.uid);
    }
}

fn claim(batch: &mut Batch, table: Table, key: String, uid: u64) {
    batch.expect(table, key.clone(), Expected::Missing);
    batch.put(table, key, encode(&uid));
}

impl Accounts {
    /// Adds the writes for a changed user: they reserve the new name and mail address, and release
    /// the old ones.
    pub(in crate::accounts) fn move_name_and_mail(
        &self,
        batch: &mut Batch,
        user: &User,
        before: &User,
    ) -> Result<(), StoreError> {
        self.move_entry(batch, Table::Names, user.uid, Some(&user.name), Some(&before.name))?;
        let (mail, old_mail) = (user.mail.as_deref(), before.mail.as_deref());
        self.move_entry(batch, Table::Mails, user.uid, mail, old_mail)
    }

    fn move_entry(
        &self,
        batch: &mut Batch,
        table: Table,
        uid: u64,
        new: Option<&str>,
        old: Option<&str>,
    ) -> Result<(), StoreError> {
        if new == old {
            return Ok(());
        }
        let (new_key, old_key) = (new.map(fold), old.map(fold));
        if new_key == old_key {
            // Another spelling of the user's own name. It is refused if another user has the entry.
            if let Some(key) = new_key
                && self.entry_owner(table, &key)? != Some(uid)
            {
                batch.expect(table, key, Expected::Missing);
            }
            return Ok(());
        }
        if let Some(old) = old {
            self.release(batch, table, old, uid)?;
        }
        if let Some(key) = new_key {
            claim(batch, table, key, uid);
        }
        Ok(())
    }

    /// Adds the writes that release the name and the mail address of a user.
    pub(in crate::accounts) fn release_name_and_mail(
        &self,
        batch: &mut Batch,
        user: &User,
    ) -> Result<(), StoreError> {
        self.release(batch, Table::Names, &user.name, user.uid)?;
        match &user.mail {
            Some(mail) => self.release(batch, Table::Mails, mail, user.uid),
            None => Ok(()),
        }
    }

    /// Adds the deletion of a user's entry. The entry of another user with an equal text stays. If
    /// a user of an old store has an equal name, that user gets the entry.
    fn release(
        &self,
        batch: &mut Batch,
        table: Table,
        text: &str,
        uid: u64,
    ) -> Result<(), StoreError> {
        let key = fold(text);
        if self.entry_owner(table, &key)?.is_some_and(|owner| owner != uid) {
            return Ok(());
        }
        let heir = match table {
            Table::Names => self.directory().first_colliding(text),
            _ => None,
        };
        match heir.filter(|heir| heir.uid != uid) {
            Some(heir) => batch.put(table, key, encode(&heir.uid)),
            None => batch.delete(table, key),
        };
        Ok(())
    }

    /// The uid of the user who has an entry.
    fn entry_owner(&self, table: Table, key: &str) -> Result<Option<u64>, StoreError> {
        let stored = self.store().get(table, key.as_bytes())?;
        stored.map(|stored| stored.read(table, key.as_bytes())).transpose()
    }

    /// Whether another user has a name or a mail address. A user of an old store keeps a text that
    /// equals the text of another user.
    pub(super) fn is_taken(
        &self,
        table: Table,
        user: &User,
        text: fn(&User) -> Option<&str>,
    ) -> Result<bool, AccountError> {
        let Some(wanted) = text(user) else { return Ok(false) };
        if self.entry_owner(table, &fold(wanted))?.is_none_or(|owner| owner == user.uid) {
            return Ok(false);
        }
        let before = self.user(user.uid)?;
        Ok(before.is_none_or(|before| text(&before.record) != Some(wanted)))
    }

    /// Brings the indexes of a store into the form in which names and addresses are compared now,
    /// once in the life of the store.
    ///
    /// # Errors
    /// The store failed.
    pub async fn refresh_name_index(&self) -> Result<(), AccountError> {
        if !self.is_filled()? || self.store().get(Table::Meta, NAME_FORM)?.is_some() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.expect(Table::Meta, NAME_FORM, Expected::Missing);
        batch.put(Table::Meta, NAME_FORM, encode(&CURRENT_FORM));
        let mut count = 0;
        for table in [Table::Names, Table::Mails] {
            count += self.refresh_index(table, &mut batch)?;
        }
        let act = Act::other("store.name-form", "store", json!({ "changed_entries": count }));
        match self.as_actor(Actor::Program).commit(batch, act, Vec::new()).await {
            // In a conflict, another process has done it.
            Ok(_) | Err(CommitError::Conflict(_)) => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
        }
    }

    /// Adds the writes for one index, and returns the number of entries that change.
    fn refresh_index(&self, table: Table, batch: &mut Batch) -> Result<usize, StoreError> {
        let mut moved: BTreeMap<String, u64> = BTreeMap::new();
        let mut count = 0;
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store().scan(table, &[], after.as_deref(), PAGE)?;
            for (key, stored) in &page {
                let Ok(text) = std::str::from_utf8(key) else { continue };
                let folded = fold(text);
                if folded == text {
                    continue;
                }
                let uid: u64 = stored.read(table, key)?;
                let lowest = match moved.get(&folded) {
                    Some(other) => Some(*other),
                    None => self.entry_owner(table, &folded)?,
                };
                moved.insert(folded, lowest.map_or(uid, |other| other.min(uid)));
                batch.delete(table, key.clone());
                count += 1;
            }
            match page.into_iter().next_back() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        for (key, uid) in moved {
            batch.put(table, key, encode(&uid));
        }
        Ok(count)
    }
}
