//! The key record: everything about a key except its text.

pub(super) mod scan;
pub(super) mod scheme;
pub(super) mod text;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Credits, Digest, KeyId, PasswordDigest, RateLimit, Scheme, Timestamp};

/// The maximum number of a user's active keys with slow digests. All of them are checked when the
/// user presents a key.
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
    /// The text's prefix.
    pub prefix: String,
    /// The text's last four characters.
    pub last_four: String,
    /// The digest that a presented text is compared with.
    pub digest: Digest,
    /// The input of the digest.
    #[serde(default, skip_serializing_if = "Scheme::is_own")]
    pub scheme: Scheme,
    /// The other system's digest, if it is slow to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<PasswordDigest>,
    /// The digest at the import, if [`Key::digest`] has changed since. A repeated import finds the
    /// key by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_digest: Option<Digest>,
    /// Whether the key authenticates any user that the client names, if its application accepts
    /// universal keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub universal: bool,
    /// Restricts the user's permissions to these. `None` means no restriction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The time of creation.
    pub created: Timestamp,
    /// The first second in which the key is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// The time of revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The key that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotation>,
    /// The networks from which the key is accepted. Empty means any.
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
    /// Whether the key itself is valid at `now`.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.ends().is_none_or(|end| end > now)
    }

    /// The digests by which an imported key is looked up.
    pub fn foreign_digests(&self) -> impl Iterator<Item = [u8; 32]> {
        let current = (!self.scheme.is_own()).then_some(self.digest);
        current.into_iter().chain(self.former_digest).map(|digest| *digest.as_bytes())
    }

    /// The first second in which the key is refused.
    pub fn ends(&self) -> Option<Timestamp> {
        ends(self.expires, self.rotated.as_ref())
    }
}

/// The first second in which a key is refused, because it expires or its rotation's overlap ends.
pub(crate) fn ends(expires: Option<Timestamp>, rotated: Option<&Rotation>) -> Option<Timestamp> {
    match (expires, rotated.map(|rotation| rotation.until)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
