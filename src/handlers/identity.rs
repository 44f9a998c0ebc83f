//! The header fields that pass the user's identity to the application behind Keyward.
//!
//! Only Keyward writes these fields: a client's fields with the same name or a similar name are
//! removed.

use std::borrow::Cow;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

pub(super) use crate::model::{has_similar_prefix, is_similar};
use crate::pipeline::Identity;

/// The number of header fields for which a map reserves space: the identity fields and a few other
/// fields. Without the reservation, the map would grow and rehash all its fields.
const CAPACITY: usize = 10;
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// The scopes of a credential that is restricted to no permission at all. An empty value would mean
/// a credential without restrictions, because proxies send an absent field as an empty field, and
/// drop an empty field. [`escape`] writes a scope with this name differently.
const NO_SCOPES: HeaderValue = HeaderValue::from_static("-");

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
    /// The permissions that the credential is restricted to, as far as the user has them, separated
    /// by commas.
    pub scopes: HeaderName,
}

/// The content of an identity header field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentityHeader {
    User,
    UserId,
    Roles,
    KeyId,
    Application,
    Scopes,
}

impl IdentityHeader {
    /// The value for this identity; `None` means that the identity has no such value.
    ///
    /// Each value is a copy with a separate reference count, because all cores would write to the
    /// reference count of a shared value.
    pub fn value(self, identity: &Identity<'_>) -> Option<HeaderValue> {
        let copy = |field: &HeaderValue| HeaderValue::from_bytes(field.as_bytes()).ok();
        match self {
            Self::User => HeaderValue::try_from(&*escape(identity.name()?)).ok(),
            Self::UserId => HeaderValue::from_str(itoa::Buffer::new().format(identity.uid()?)).ok(),
            Self::Roles if identity.is_anonymous() => None,
            Self::Roles if identity.scopes().is_some() => list(identity.roles()),
            Self::Roles => identity.user_roles_field().map_or(Some(EMPTY), copy),
            Self::KeyId => HeaderValue::from_bytes(&identity.key()?.digits()).ok(),
            Self::Application => copy(&identity.application()?.field),
            Self::Scopes => match identity.granted_scopes()?.as_slice() {
                [] => Some(NO_SCOPES),
                scopes => list(scopes),
            },
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
            scopes: HeaderName::from_static("x-keyward-scopes"),
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
    pub(crate) fn all(&self) -> [(&HeaderName, IdentityHeader); 6] {
        [
            (&self.user, IdentityHeader::User),
            (&self.user_id, IdentityHeader::UserId),
            (&self.roles, IdentityHeader::Roles),
            (&self.key_id, IdentityHeader::KeyId),
            (&self.application, IdentityHeader::Application),
            (&self.scopes, IdentityHeader::Scopes),
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

/// Names, escaped and separated by commas.
fn list(names: &[String]) -> Option<HeaderValue> {
    let names: Vec<_> = names.iter().map(|name| escape(name)).collect();
    HeaderValue::try_from(names.join(",")).ok()
}

/// A name as it is written into an identity field: every byte of its UTF-8 text that is not
/// printable ASCII is percent-encoded, and so are `%` and the comma, which separates names. Two
/// names never have the same text, and percent-decoding a text returns the name.
fn escape(name: &str) -> Cow<'_, str> {
    /// All characters that a name of a user can have stay as they are, if they are ASCII.
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b',');
    const WITH_SPACES: &AsciiSet = &ESCAPED.add(b' ');
    match name {
        "-" => Cow::Borrowed("%2D"),
        // White space around a value is not part of the value (RFC 9110, section 5.5).
        _ if name.starts_with(' ') || name.ends_with(' ') => {
            utf8_percent_encode(name, WITH_SPACES).into()
        }
        _ => utf8_percent_encode(name, ESCAPED).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_without_collisions() {
        let names = [
            "ada",
            "O'Neil +@_.-x",
            "Zoë",
            "Zo%C3%AB",
            "a,b",
            "a%2Cb",
            "-",
            "%2D",
            "名前",
            "a\nb",
            " a",
        ];
        let escaped = [
            "ada",
            "O'Neil +@_.-x",
            "Zo%C3%AB",
            "Zo%25C3%25AB",
            "a%2Cb",
            "a%252Cb",
            "%2D",
            "%252D",
            "%E5%90%8D%E5%89%8D",
            "a%0Ab",
            "%20a",
        ];
        for (name, escaped) in names.into_iter().zip(escaped) {
            assert_eq!(escape(name), escaped);
            let decoded = percent_encoding::percent_decode_str(escaped).decode_utf8().unwrap();
            assert_eq!(decoded, name);
            assert!(HeaderValue::from_str(escaped).is_ok());
        }
        assert_eq!(list(&["a,b".into(), "c".into()]).unwrap(), "a%2Cb,c");
    }

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
