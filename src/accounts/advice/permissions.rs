//! Permissions that no other record knows: often they are mistyped.

use std::collections::BTreeSet;

use crate::{
    accounts::Accounts,
    model::{PermissionSource, Resource, Role, SHIPPED, suggest},
};

impl Accounts {
    /// Sentences about permissions that a change adds to a resource, and that no role grants.
    pub(super) fn unknown_permissions_of_resource(
        &self,
        before: Option<&Resource>,
        after: &Resource,
    ) -> Vec<String> {
        if after.permission == PermissionSource::Script {
            return Vec::new();
        }
        let policy = self.directory().policy();
        let granted = policy.roles.roles().flat_map(|role| &role.permissions);
        let known: BTreeSet<&str> =
            granted.map(String::as_str).chain(SHIPPED.iter().copied()).collect();
        let old = before.map(required_permissions).unwrap_or_default();
        let new = required_permissions(after);
        unknown(&new, &old, &known, |name| {
            format!("No role grants the permission {name:?}: only administrators have it.")
        })
    }

    /// Sentences about permissions that a change adds to a role, and that neither a resource nor
    /// another role knows.
    pub(super) fn unknown_permissions_of_role(
        &self,
        before: Option<&Role>,
        after: &Role,
    ) -> Vec<String> {
        let policy = self.directory().policy();
        let mut known: BTreeSet<String> =
            policy.routes.resources().flat_map(|resource| required_permissions(resource)).collect();
        let others = policy.roles.roles().filter(|role| role.id != after.id);
        known.extend(others.flat_map(|role| role.permissions.iter().cloned()));
        known.extend(SHIPPED.iter().map(|name| (*name).to_owned()));
        let known = known.iter().map(String::as_str).collect();
        let old = before.map(|role| role.permissions.clone()).unwrap_or_default();
        unknown(&after.permissions, &old, &known, |name| {
            format!("No resource requires the permission {name:?}, and no other role has it.")
        })
    }
}

/// All permissions that a resource requires for some method.
fn required_permissions(resource: &Resource) -> BTreeSet<String> {
    resource.rules.each().flat_map(|rules| rules.permissions).collect()
}

/// A sentence about each new permission that is not known, with the most similar known one.
fn unknown(
    new: &BTreeSet<String>,
    old: &BTreeSet<String>,
    known: &BTreeSet<&str>,
    sentence: impl Fn(&str) -> String,
) -> Vec<String> {
    let added = new.difference(old).filter(|name| !known.contains(name.as_str()));
    // Two permissions can begin alike and mean different things, so a suggestion must differ in few
    // characters.
    let is_close =
        |name: &str, similar: &&str| strsim::levenshtein(name, similar) * 4 <= name.len();
    let advice = |name: &String| match suggest(name, known.iter().copied())
        .filter(|similar| is_close(name, similar))
    {
        Some(similar) => format!("{} Did you mean {similar:?}?", sentence(name)),
        None => sentence(name),
    };
    added.map(advice).collect()
}
