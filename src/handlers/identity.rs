//! The header fields that tell whoever is behind us who asks. Only ours get there: a client's copy in any spelling is taken away.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::pipeline::Identity;

/// Phase for these fields, and a few more: to grow a map means to hash all of it once more.
const FIELDS: usize = 10;
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// What every field of ours begins with. A client has no business with any of them.
const OURS: &str = "x-keyward-";

/// The names of the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFields {
    /// The user's name.
    pub user: HeaderName,
    /// The user's number.
    pub user_id: HeaderName,
    /// The ids of the user's roles, with commas between them.
    pub roles: HeaderName,
    /// The public id of the key that was used.
    pub key_id: HeaderName,
    /// The id of the application that it came through.
    pub application: HeaderName,
}

/// What there is to tell of whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    User,
    UserId,
    Roles,
    KeyId,
    Application,
}

impl Told {
    /// What is told of somebody; none: there is nothing to tell.
    ///
    /// Each value is a copy of its own. Who shares one is counted, and all cores would write to that count.
    pub fn value(self, identity: &Identity<'_>) -> Option<HeaderValue> {
        let copy = |field: &HeaderValue| HeaderValue::from_bytes(field.as_bytes()).ok();
        match self {
            // A user's name may hold any character; what no field can hold is left out.
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
    /// Whether a field could be taken for one of these.
    pub fn covers(&self, name: &HeaderName) -> bool {
        let name = name.as_str();
        let has_our_beginning = name.get(..OURS.len()).is_some_and(|start| is_like(start, OURS));
        has_our_beginning || self.all().into_iter().any(|(one, _)| is_like(name, one.as_str()))
    }

    /// The names, and what each tells.
    pub(crate) fn all(&self) -> [(&HeaderName, Told); 5] {
        [
            (&self.user, Told::User),
            (&self.user_id, Told::UserId),
            (&self.roles, Told::Roles),
            (&self.key_id, Told::KeyId),
            (&self.application, Told::Application),
        ]
    }

    /// Writes who asks over whatever is there. Where there is nothing to tell there is no field.
    pub fn write(&self, identity: &Identity<'_>, headers: &mut HeaderMap) {
        headers.reserve(FIELDS);
        for (name, told) in self.all() {
            match told.value(identity) {
                Some(value) => drop(headers.insert(name.clone(), value)),
                None => drop(headers.remove(name)),
            }
        }
    }
}

/// Whether a program behind us could take one name for the other: CGI and its heirs turn what is no letter or digit into an underscore.
///
/// `known` is in lower case, as header names are.
pub(super) fn is_like(name: &str, known: &str) -> bool {
    let alike =
        |(a, b): (u8, u8)| a == b || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(alike)
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn no_spelling_of_a_field_of_ours_goes_through() {
        let fields = IdentityFields {
            user: HeaderName::from_static("remote-user"),
            ..IdentityFields::default()
        };
        for ours in [
            "x-keyward-user",
            "x_keyward_user",
            "x-keyward_roles",
            "x.keyward.key.id",
            "x-keyward-anything",
            "remote-user",
            "remote_user",
        ] {
            assert!(fields.covers(&HeaderName::from_static(ours)), "{ours}");
        }
        for other in ["x-keywar", "x-keyword-user", "remote-users", "user", "x-user"] {
            assert!(!fields.covers(&HeaderName::from_static(other)), "{other}");
        }
    }
}
