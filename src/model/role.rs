//! Roles: named sets of permissions.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Violation, check_id};

/// The role of requests without a credential.
pub const ANONYMOUS: &str = "anonymous";
/// The role that every authenticated user has in addition to the roles of the user's record.
pub const AUTHENTICATED: &str = "authenticated";
/// The shipped role with all permissions.
pub const ADMINISTRATOR: &str = "administrator";

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    /// The id, as listed in user records.
    pub id: String,
    /// The name that people see.
    pub label: String,
    /// The position in lists: a role with a smaller weight comes first.
    #[serde(default)]
    pub weight: i32,
    /// Whether the role has all permissions, including future ones.
    #[serde(default)]
    pub is_admin: bool,
    /// The permissions that the role grants.
    #[serde(default)]
    pub permissions: BTreeSet<String>,
}

impl Role {
    /// Whether the program relies on this role, so that it cannot be deleted.
    pub fn is_locked(id: &str) -> bool {
        id == ANONYMOUS || id == AUTHENTICATED
    }

    /// The UUID of the role, for other systems. The UUID is derived from the id, so every server
    /// computes the same UUID and does not store it.
    ///
    /// The UUID has version 8 (RFC 9562, section 5.8). It is computed as in version 5, but with
    /// BLAKE3 instead of SHA-1.
    pub fn uuid(id: &str) -> Uuid {
        let digest = blake3::derive_key("keyward 2026-11-24 role uuid", id.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Checks the record's fields.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(check_id("id", &self.id).err());
        if self.label.trim().is_empty() || self.label.len() > 255 {
            found.push(Violation::new(
                "label",
                "A role needs a label of 1 to 255 bytes.",
                "Say in a few words who has this role.",
            ));
        }
        if self.is_admin && Self::is_locked(&self.id) {
            found.push(Violation::new(
                "is_admin",
                format!("The role {} cannot be an administrator's role.", self.id),
                "Otherwise everybody would have every permission. Give another role with is_admin to the administrators.",
            ));
        }
        for permission in &self.permissions {
            if permission.trim() != permission || permission.is_empty() || permission.len() > 128 {
                found.push(Violation::new(
                    "permissions",
                    format!("{permission:?} cannot be a permission."),
                    "A permission is 1 to 128 bytes of text that neither begins nor ends with a space.",
                ));
            }
        }
        found
    }
}
