//! The header fields that pass the user's identity to the application behind Keyward.
//!
//! Only Keyward writes these fields: a client's fields with the same name or a similar name are
//! removed.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::pipeline::Identity;

/// The number of header fields for which a map reserves space: the identity fields and a few other
/// fields. Without the reservation, the map would grow and rehash all its fields.
const CAPACITY: usize = 10;
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// The prefix of Keyward's header fields. A client must not set a field with this prefix.
const KEYWARD_PREFIX: &str = "x-keyward-";

/// The names of the identity header fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFields {
    /// The user's name.
    pub user: HeaderName,
    /// The user's number.
    pub user_id: HeaderName,
    /// The ids of the user's roles, separated by commas.
    pub roles: HeaderName,
    /// The public id of the key.
    pub key_id: HeaderName,
    /// The id of the application that accepted the credential.
    pub application: HeaderName,
}

/// The content of an identity header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentityHeader {
    User,
    UserId,
    Roles,
    KeyId,
    Application,
}

impl IdentityHeader {
    /// The value for this identity; `None` means that the identity has no such value.
    ///
    /// Each value is a copy with a separate reference count, because all cores would write to the
    /// reference count of a shared value.
    pub fn value(self, identity: &Identity<'_>) -> Option<HeaderValue> {
        let copy = |field: &HeaderValue| HeaderValue::from_bytes(field.as_bytes()).ok();
        match self {
            // If a user's name has characters that a header field cannot contain, the name is left
            // out.
            Self::User => HeaderValue::from_str(identity.name()?).ok(),
            Self::UserId => HeaderValue::from_str(itoa::Buffer::new().format(identity.uid()?)).ok(),
            Self::Roles if identity.is_anonymous() => None,
            Self::Roles => identity.roles_field().map_or(Some(EMPTY), copy),
            Self::KeyId => HeaderValue::from_bytes(&identity.key()?.digits()).ok(),
            Self::Application => copy(&identity.application()?.field),
        }
    }
}

impl Default for IdentityFields {
    fn default() -> Self {
        Self {
            user: HeaderName::from_static("x-keyward-user"),
            user_id: HeaderName::from_static("x-keyward-user-id"),
            roles: HeaderName::from_static("x-keyward-roles"),
            key_id: HeaderName::from_static("x-keyward-key-id"),
            application: HeaderName::from_static("x-keyward-application"),
        }
    }
}

impl IdentityFields {
    /// Whether an application could confuse a field of this name with an identity field.
    pub fn covers(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        has_similar_prefix(name, KEYWARD_PREFIX)
            || self.all().into_iter().any(|(known, _)| is_similar(name, known.as_str()))
    }

    /// The names with the content of each field.
    pub(crate) fn all(&self) -> [(&HeaderName, IdentityHeader); 5] {
        [
            (&self.user, IdentityHeader::User),
            (&self.user_id, IdentityHeader::UserId),
            (&self.roles, IdentityHeader::Roles),
            (&self.key_id, IdentityHeader::KeyId),
            (&self.application, IdentityHeader::Application),
        ]
    }

    /// Writes the fields of an identity, and removes the fields for which the identity has no
    /// value.
    pub fn write(&self, identity: &Identity<'_>, headers: &mut HeaderMap) {
        headers.reserve(CAPACITY);
        for (name, header) in self.all() {
            match header.value(identity) {
                Some(value) => drop(headers.insert(name.clone(), value)),
                None => drop(headers.remove(name)),
            }
        }
    }
}

/// Whether an application could confuse two header field names: CGI and its successors replace
/// every character that is not a letter or a digit by an underscore.
///
/// `known` is in lower case, as header names are.
pub(super) fn is_similar(name: &str, known: &str) -> bool {
    let is_same =
        |(a, b): (u8, u8)| a == b || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(is_same)
}

/// Whether an application could confuse the beginning of a header field name with this prefix.
pub(super) fn has_similar_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| is_similar(start, prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_an_identity_field_is_covered() {
        let fields = IdentityFields {
            user: HeaderName::from_static("remote-user"),
            ..IdentityFields::default()
        };
        for spelling in [
            "x-keyward-user",
            "x_keyward_user",
            "x-keyward_roles",
            "x.keyward.key.id",
            "x-keyward-anything",
            "remote-user",
            "remote_user",
        ] {
            assert!(fields.covers(&HeaderName::from_static(spelling)), "{spelling}");
        }
        for other in ["x-keywar", "x-keyword-user", "remote-users", "user", "x-user"] {
            assert!(!fields.covers(&HeaderName::from_static(other)), "{other}");
        }
    }
}
