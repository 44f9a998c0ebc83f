//! What other systems made slow to check is made anew at its first use, while its text is there: keys get a fast digest, passwords one of our own.

use super::{adopt::may_be_random, key_key};
use crate::{
    accounts::{
        AccountError, TRIES, Writer, is_race, passwords::digest_formats::is_all_of, users::uid_key,
    },
    model::{Act, KeyId, PasswordDigest, Scheme, Secret},
    store::{Batch, CommitError, State, Table, encode},
};

impl Writer {
    /// Gives a key that is slow to check, and whose text this is, a fast digest. What a person may have chosen stays slow, so that it stays hard to guess.
    ///
    /// # Errors
    /// The key is gone, or the store failed.
    pub async fn quicken_key(&self, id: KeyId, text: &Secret) -> Result<(), AccountError> {
        for _ in 0..TRIES {
            let before = self.key(id)?.ok_or_else(|| AccountError::not_found("key", id))?;
            let is_whole = |slow| is_all_of(slow, text.expose());
            let is_slow = before.record.slow.as_ref().is_some_and(is_whole);
            if before.record.scheme != Scheme::Slow || !is_slow || !may_be_random(text) {
                return Ok(());
            }
            let mut key = before.record.clone();
            key.scheme = Scheme::Text;
            key.slow = None;
            key.former_digest = Some(key.digest);
            key.digest = self.0.pepper.digest_kept(Scheme::Text, text.expose().as_bytes());
            let mut batch = Batch::new();
            batch.expect(Table::Keys, key_key(id), State::Revision(before.revision));
            batch.put(Table::Keys, key_key(id), encode(&key));
            batch.expect(Table::Foreign, *key.digest.as_bytes(), State::Missing);
            batch.put(Table::Foreign, *key.digest.as_bytes(), encode(&id));
            let act = Act::change("key", "quicken", id, &before.record, &key);
            match self.commit(batch, act).await {
                Ok(_) => return Ok(()),
                // Another key has this text, by which it is found: this one stays what it is.
                Err(CommitError::Conflict(on)) if on.table == Table::Foreign => return Ok(()),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }

    /// Makes a user's password digest anew, if it is still the one that this password has matched. The record's time of change stays: nothing that
    /// people see has changed.
    ///
    /// # Errors
    /// The user is gone, too many passwords are being worked on, or the store failed.
    pub async fn renew_password(
        &self,
        uid: u64,
        matched: &PasswordDigest,
        password: Secret,
    ) -> Result<(), AccountError> {
        if !is_all_of(matched, password.expose()) {
            return Ok(());
        }
        let entropy = self.0.entropy.clone();
        let hashed = self.0.passwords.hash(password, entropy).await;
        let hashed = hashed.map_err(|_| AccountError::Busy)?;
        for _ in 0..TRIES {
            let before = self.user(uid)?.ok_or_else(|| AccountError::not_found("user", uid))?;
            if before.record.password.as_ref() != Some(matched) {
                return Ok(());
            }
            let mut user = before.record.clone();
            user.password = Some(hashed.clone());
            let mut batch = Batch::new();
            batch.expect(Table::Users, uid_key(uid), State::Revision(before.revision));
            batch.put(Table::Users, uid_key(uid), encode(&user));
            let act = Act::change("user", "renew_password", uid, &before.record, &user);
            match self.commit(batch, act).await {
                Ok(_) => return Ok(()),
                Err(problem) if is_race(&problem) => {}
                Err(CommitError::Store(problem)) => return Err(problem.into()),
                Err(_) => return Err(AccountError::contended()),
            }
        }
        Err(AccountError::contended())
    }
}
