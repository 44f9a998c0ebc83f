//! The header fields that tell whoever is behind us who asks. Only ours get there: a client's copy in any spelling is taken away.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{model::KeyId, pipeline::Identity};

/// Room for these fields, and a few more: to grow a map means to hash all of it once more.
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

/// What is written where there is nothing to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// No field.
    Nothing,
    /// An empty field, for a proxy that lets a client's copy stand where we send none.
    Empty,
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
        let all = [&self.user, &self.user_id, &self.roles, &self.key_id, &self.application];
        has_our_beginning || all.into_iter().any(|one| is_like(name, one.as_str()))
    }

    /// Writes who asks over whatever is there.
    pub fn write(&self, identity: &Identity<'_>, absent: Absent, headers: &mut HeaderMap) {
        headers.reserve(FIELDS);
        let mut put = |name: &HeaderName, value: Option<HeaderValue>| match (value, absent) {
            (Some(value), _) => drop(headers.insert(name.clone(), value)),
            (None, Absent::Nothing) => drop(headers.remove(name)),
            (None, Absent::Empty) => drop(headers.insert(name.clone(), EMPTY)),
        };
        // A user's name may hold any character; what no field can hold is left out.
        put(&self.user, identity.name().and_then(|name| HeaderValue::from_str(name).ok()));
        put(&self.user_id, identity.uid().map(HeaderValue::from));
        let roles = || identity.roles_field().cloned().unwrap_or(EMPTY);
        put(&self.roles, (!identity.is_anonymous()).then(roles));
        let key_id = |id: KeyId| HeaderValue::from_bytes(&id.digits()).ok();
        put(&self.key_id, identity.key().and_then(key_id));
        put(&self.application, identity.application().map(|one| one.field.clone()));
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
