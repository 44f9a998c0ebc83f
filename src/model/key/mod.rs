//! The key record: everything about a key except its text.

pub(super) mod forms;
pub(super) mod redact;
pub(super) mod scan;
pub(super) mod scheme;
pub(super) mod text;
mod views;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Credits, Digest, KeyId, PasswordDigest, RateLimit, Scheme, Timestamp};

/// The maximum number of active keys with slow digests for each user. When a user presents a key,
/// Keyward checks all slow digests of this user.
pub const MOST_SLOW_KEYS: usize = 4;

/// The record of an API key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The public id, part of the key's text.
    pub id: KeyId,
    /// The user that the key authenticates or, for a universal key, the user that is responsible
    /// for it.
    pub user: u64,
    /// The only application that accepts the key. `None` means any application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// A label for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The prefix of the key's text.
    pub prefix: String,
    /// The last four characters of the key's text.
    pub last_four: String,
    /// The digest that the text of a presented key must have.
    pub digest: Digest,
    /// How [`Key::digest`] is computed from the key's text.
    #[serde(default, skip_serializing_if = "Scheme::is_own")]
    pub scheme: Scheme,
    /// The digest of an imported key, if that digest is slow to check, such as bcrypt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<PasswordDigest>,
    /// The digest with which the key was imported, if [`Key::digest`] has changed since the import.
    /// A repeated import finds the key by this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_digest: Option<Digest>,
    /// Whether the key is universal: with an application that accepts universal keys, the key
    /// authenticates any user that the client names.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub universal: bool,
    /// The user's permissions that the key may use. `None` means all of the user's permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The time of creation.
    pub created: Timestamp,
    /// The first second in which the key is refused. `None` means that the key never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The time of revocation. `None` means that the key is not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The replacement of this key. `None` means that the key was never rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotation>,
    /// The networks from which the key is accepted. Empty means any network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// The rate limit. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Credits per day, week or month. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
}

/// The replacement of a key, and the end of the overlap during which both are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The new key.
    pub to: KeyId,
    /// The first second in which the old key is refused.
    pub until: Timestamp,
}

impl Key {
    /// Whether the key is neither revoked nor past its end at `now`. The user of the
    /// key may still be blocked.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.ends().is_none_or(|end| end > now)
    }

    /// The digests by which an imported key is looked up.
    pub fn foreign_digests(&self) -> impl Iterator<Item = [u8; 32]> {
        let current = (!self.scheme.is_own()).then_some(self.digest);
        current.into_iter().chain(self.former_digest).map(|digest| *digest.as_bytes())
    }

    /// The first second in which the key is refused, because the key expires or the overlap of its
    /// rotation ends. `None` means that the key never ends.
    pub fn ends(&self) -> Option<Timestamp> {
        ends(self.expires, self.rotated.as_ref())
    }
}

/// The key's expiry or the end of its rotation's overlap, whichever is earlier. See [`Key::ends`].
pub(crate) fn ends(expires: Option<Timestamp>, rotated: Option<&Rotation>) -> Option<Timestamp> {
    match (expires, rotated.map(|rotation| rotation.until)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
