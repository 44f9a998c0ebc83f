//! Rehashing at the first use of a key or a password: an imported slow digest is replaced by a
//! digest in Keyward's format, because the request contains the plaintext.

use super::{adopt::may_be_random, replace_key};
use crate::{
    accounts::{
        AccountError, Writer,
        passwords::digest_formats::covers_whole_text,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, KeyId, PasswordDigest, Scheme, Secret},
    store::{Batch, Expected, Table, encode, table},
};

impl Writer {
    /// Replaces a key's slow digest, which `text` has matched, by a fast digest. A key whose text
    /// may have been chosen by a person keeps its slow digest, because such a text is easier to
    /// guess.
    ///
    /// # Errors
    /// The key was deleted, or the store failed.
    pub async fn rehash_key(&self, id: KeyId, text: &Secret) -> Result<(), AccountError> {
        let attempt = || {
            let before = self.current_key(id)?;
            let is_whole = |slow| covers_whole_text(slow, text.expose());
            let has_whole_digest = before.record.slow.as_ref().is_some_and(is_whole);
            let is_slow = before.record.scheme == Scheme::Slow && has_whole_digest;
            if !is_slow || !may_be_random(text) {
                return Ok(Attempt::Unchanged(()));
            }
            let mut key = before.record.clone();
            key.scheme = Scheme::Text;
            key.slow = None;
            key.former_digest = Some(key.digest);
            key.digest = self.0.pepper.digest_kept(Scheme::Text, text.expose().as_bytes());
            let mut batch = replace_key(&before, &key);
            batch.expect(Table::Foreign, *key.digest.as_bytes(), Expected::Missing);
            batch.put(Table::Foreign, *key.digest.as_bytes(), encode(&id));
            let act = Act::change("key", "quicken", id, &before.record, &key);
            Ok(PendingCommit::new(batch, act, |_| ())
                // Another key already has the digest of this text, so this key stays unchanged.
                .on_conflict(|conflict| (conflict.table == Table::Foreign).then_some(Ok(())))
                .into())
        };
        self.update(attempt).await
    }

    /// Replaces the password digest `matched` of a user by a new digest of the same password. If
    /// the user has another digest now, the record stays unchanged. The record keeps its time of
    /// change, because no field that a client can see changes.
    ///
    /// # Errors
    /// The user was deleted, too many passwords are being checked, or the store failed.
    pub async fn rehash_password(
        &self,
        uid: u64,
        matched: &PasswordDigest,
        password: Secret,
    ) -> Result<(), AccountError> {
        if !covers_whole_text(matched, password.expose()) {
            return Ok(());
        }
        let entropy = self.0.entropy.clone();
        let hashed = self.0.passwords.hash(password, entropy).await;
        let hashed = hashed.map_err(|_| AccountError::Busy)?;
        let attempt = || {
            let before = self.current_user(uid)?;
            if before.record.password.as_ref() != Some(matched) {
                return Ok(Attempt::Unchanged(()));
            }
            let mut user = before.record.clone();
            user.password = Some(hashed.clone());
            let mut batch = Batch::new();
            batch.expect(Table::Users, table::user(uid), Expected::Revision(before.revision));
            batch.put(Table::Users, table::user(uid), encode(&user));
            let act = Act::change("user", "renew_password", uid, &before.record, &user);
            Ok(PendingCommit::new(batch, act, |_| ()).into())
        };
        self.update(attempt).await
    }
}
