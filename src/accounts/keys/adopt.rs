//! Adopting keys of other systems: when a script has verified such a key at its first use, the key
//! gets a record in the store, and later requests need no script.

use super::put_new_key;
use crate::{
    accounts::{AccountError, Writer, events::NewRecord, writer::PendingCommit},
    model::{Act, Key, KeyId, Mode, Scheme, Secret},
    store::{Batch, Expected, Table, table},
};

/// The minimum length of an adopted key, in bytes. A fast digest is safe for random texts only, and
/// a shorter text may not be random.
const MIN_LENGTH: usize = 16;
/// The maximum length of an adopted key, in bytes.
const MAX_LENGTH: usize = 512;

impl Writer {
    /// Creates a record for a key of another system. The key belongs to this user and works for one
    /// application. Only a digest of its text is stored. A key that was adopted before stays
    /// unchanged, even if it was revoked.
    ///
    /// # Errors
    /// The user was deleted, the length or the characters of the text show that it is not a random
    /// key, or the store failed.
    pub async fn adopt_key(
        &self,
        uid: u64,
        application: &str,
        text: &Secret,
    ) -> Result<(), AccountError> {
        if !may_be_random(text) {
            let length = text.expose().len();
            return Err(AccountError::refused(
                format!(
                    "An adopted key has {MIN_LENGTH} to {MAX_LENGTH} bytes and no control \
                     characters. This text has {length} bytes."
                ),
                "Create a Keyward key for the user instead.",
            ));
        }
        let attempt = || async move {
            let key = Key {
                id: KeyId::from_number(u64::from_le_bytes(self.0.entropy.bytes())),
                user: uid,
                application: Some(application.to_owned()),
                label: "taken over".into(),
                prefix: String::new(),
                last_four: String::new(),
                digest: self.0.pepper.digest_kept(Scheme::Text, text.expose().as_bytes()),
                scheme: Scheme::Text,
                slow: None,
                former_digest: None,
                universal: false,
                scopes: None,
                created: self.0.clock.now(),
                expires: None,
                revoked: None,
                rotated: None,
                networks: Vec::new(),
                rate_limit: None,
                credits: None,
            };
            let mut batch = Batch::new();
            batch.expect(Table::Users, table::user(uid), Expected::Present);
            put_new_key(&mut batch, &key);
            let owner = self.user_name(uid);
            let webhooks = self.approve(&[NewRecord::Key(&key, &owner)], Mode::Live).await?;
            let act = Act::create("key", key.id, &key);
            Ok(PendingCommit::new(batch, act, |_| ())
                .with_webhooks(webhooks)
                .on_conflict(move |conflict| match conflict.table {
                    // The key was adopted before.
                    Table::Foreign => Some(Ok(())),
                    Table::Users => Some(Err(AccountError::not_found("user", uid))),
                    _ => None,
                })
                .into())
        };
        self.update_async(attempt).await
    }
}

/// Whether a text can be a random key: it has a suitable length and no control characters.
pub(in crate::accounts) fn may_be_random(text: &Secret) -> bool {
    let text = text.expose();
    (MIN_LENGTH..=MAX_LENGTH).contains(&text.len()) && !text.chars().any(char::is_control)
}
