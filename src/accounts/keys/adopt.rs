//! Adopting keys of other systems: when a script has verified such a key at its first use, the key
//! gets a record in the store, and later requests need no script.

use ipnet::IpNet;

use super::put_new_key;
use crate::{
    accounts::{AccountError, Accounts, Writer, events::NewRecord, writer::PendingCommit},
    directory::CachedKey,
    model::{Act, Credits, Key, KeyId, Mode, RateLimit, Scheme, Secret, Timestamp},
    store::{Batch, Expected, Table, encode, table},
};

/// The minimum length of an adopted key, in bytes. A fast digest is safe for random texts only, and
/// a shorter text may not be random.
const MIN_LENGTH: usize = 16;
/// The maximum length of an adopted key, in bytes.
const MAX_LENGTH: usize = 512;

/// The bounds of an adopted key: those of the credential with which it was presented.
#[derive(Debug, Clone, Default)]
pub struct AdoptedBounds {
    /// The permissions that the script granted, or the scopes of the key in use. `None` means all.
    pub scopes: Option<Vec<String>>,
    /// The networks of the key in use.
    pub networks: Vec<IpNet>,
    /// The end of the key in use.
    pub expires: Option<Timestamp>,
    /// The rate limit of the key in use.
    pub rate_limit: Option<RateLimit>,
    /// The credits of the key in use.
    pub credits: Option<Credits>,
}

impl AdoptedBounds {
    /// The narrowest bounds of a script's scopes and of the key in use. `None` means that there is
    /// no script scope, or no key.
    pub fn of(scopes: Option<&[String]>, key: Option<&CachedKey>) -> Self {
        let key_scopes = key.and_then(|key| key.scopes());
        let scopes = match (scopes, key_scopes) {
            (Some(script), Some(own)) => {
                Some(script.iter().filter(|scope| own.contains(scope)).cloned().collect())
            }
            (Some(script), None) => Some(script.to_vec()),
            (None, Some(own)) => Some(own.to_vec()),
            (None, None) => None,
        };
        let limits = key.and_then(|key| key.bounds());
        Self {
            scopes,
            networks: key.map_or_else(Vec::new, |key| key.networks().to_vec()),
            expires: key.and_then(|key| key.expiry()).map(Timestamp),
            rate_limit: limits.and_then(|limits| limits.rate()),
            credits: limits.and_then(|limits| limits.credits()),
        }
    }
}

impl Writer {
    /// Creates a record for a key of another system. The key belongs to this user and works for one
    /// application, within these bounds. Only a digest of its text is stored. A key that was
    /// adopted before stays unchanged, even if it was revoked.
    ///
    /// # Errors
    /// The user was deleted, the length or the characters of the text show that it is not a random
    /// key, or the store failed.
    pub async fn adopt_key(
        &self,
        uid: u64,
        application: &str,
        text: &Secret,
        bounds: &AdoptedBounds,
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
                scopes: bounds.scopes.clone(),
                created: self.0.clock.now(),
                expires: bounds.expires,
                revoked: None,
                rotated: None,
                networks: bounds.networks.clone(),
                rate_limit: bounds.rate_limit,
                credits: bounds.credits,
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

impl Accounts {
    /// Adds the revocation of all keys that were adopted for a user, because the credential from
    /// which they were adopted has changed. Returns the revoked keys.
    pub(in crate::accounts) fn revoke_adopted_keys(
        &self,
        uid: u64,
        batch: &mut Batch,
    ) -> Result<Vec<Key>, AccountError> {
        let mut revoked = Vec::new();
        for before in self.keys_of(uid, None, usize::MAX)?.items {
            if !is_adopted(&before.record) || before.record.revoked.is_some() {
                continue;
            }
            let key = Key { revoked: Some(self.0.clock.now()), ..before.record };
            let row = table::key(key.id);
            batch.expect(Table::Keys, row, Expected::Revision(before.revision));
            batch.put(Table::Keys, row, encode(&key));
            revoked.push(key);
        }
        Ok(revoked)
    }
}

/// Whether a key was adopted: only an adopted key has one application and a text that Keyward
/// neither made nor can show a part of.
pub(super) fn is_adopted(key: &Key) -> bool {
    key.scheme == Scheme::Text
        && key.application.is_some()
        && key.prefix.is_empty()
        && key.last_four.is_empty()
}

/// Whether a text can be a random key: it has a suitable length and no control characters.
pub(in crate::accounts) fn may_be_random(text: &Secret) -> bool {
    let text = text.expose();
    (MIN_LENGTH..=MAX_LENGTH).contains(&text.len()) && !text.chars().any(char::is_control)
}
