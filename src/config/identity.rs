//! The section `[identity]` of the configuration file: the header fields for upstreams.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[identity]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentitySection {
    /// The header field with the user's name. Fields with a name from this section are removed from
    /// a client's request.
    pub user: String,
    /// The header field with the user's number (uid).
    pub user_id: String,
    /// The header field with the ids of the user's roles.
    pub roles: String,
    /// The header field with the key's public id.
    pub key_id: String,
    /// The header field with the application's id.
    pub application: String,
    /// The header field with the scopes of a key that has scopes.
    pub scopes: String,
}

impl Default for IdentitySection {
    fn default() -> Self {
        Self {
            user: "X-Keyward-User".into(),
            user_id: "X-Keyward-User-Id".into(),
            roles: "X-Keyward-Roles".into(),
            key_id: "X-Keyward-Key-Id".into(),
            application: "X-Keyward-Application".into(),
            scopes: "X-Keyward-Scopes".into(),
        }
    }
}
