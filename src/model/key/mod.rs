//! The key record: everything of a key but its text.

pub(super) mod scan;
pub(super) mod scheme;
pub(super) mod text;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Credits, Digest, KeyId, PasswordDigest, RateLimit, Scheme, Timestamp};

/// The most keys in force of a user that are slow to check: all of them are checked when one is presented.
pub const MOST_SLOW_KEYS: usize = 4;

/// A key that was handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The public id, part of the key's text.
    pub id: KeyId,
    /// The user whom the key acts as, or who answers for it if it is universal.
    pub user: u64,
    /// The one application that the key may be used with; none: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// What a person calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// The text's prefix.
    pub prefix: String,
    /// The text's last four characters.
    pub last_four: String,
    /// What the text is checked against.
    pub digest: Digest,
    /// What the digest is made of.
    #[serde(default, skip_serializing_if = "Scheme::is_own")]
    pub scheme: Scheme,
    /// What another system kept of the text, where that is slow to check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<PasswordDigest>,
    /// What [`Key::digest`] was when the key was brought over, where it is another by now. Whoever brings the key over again finds it by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_digest: Option<Digest>,
    /// Whether it acts as any user whom its client names, where its application takes such keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub universal: bool,
    /// The permissions that the key may use, of those its user has; none: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// When it was made.
    pub created: Timestamp,
    /// The first second in which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Timestamp>,
    /// The key that replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Rotation>,
    /// The networks that it may be used from; none: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpNet>,
    /// How fast it may be used; none: as fast as they come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// How often it may be used in a day, a week or a month; none: without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
}

/// The replacement of a key, and until when both work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The new key.
    pub to: KeyId,
    /// The first second in which the old key is refused.
    pub until: Timestamp,
}

impl Key {
    /// Whether it can be used at `now`, as far as it alone goes.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked.is_none() && self.ends().is_none_or(|end| end > now)
    }

    /// The digests by which a key of another system is found.
    pub fn foreign_digests(&self) -> impl Iterator<Item = [u8; 32]> {
        let current = (!self.scheme.is_own()).then_some(self.digest);
        current.into_iter().chain(self.former_digest).map(|digest| *digest.as_bytes())
    }

    /// The first second in which the key is refused.
    pub fn ends(&self) -> Option<Timestamp> {
        ends(self.expires, self.rotated.as_ref())
    }
}

/// The first second in which a key is refused: it expires, or its rotation's overlap ends.
pub(crate) fn ends(expires: Option<Timestamp>, rotated: Option<&Rotation>) -> Option<Timestamp> {
    match (expires, rotated.map(|rotation| rotation.until)) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
