//! Users, keys, roles, resources, and the identity of the caller.

use std::collections::BTreeMap;

use rhai::{Array, Dynamic, INT, ImmutableString, Module, NativeCallContext, exported_module};

use super::{Checked, Map};
use crate::scripting::{
    runtime::context::CallContext,
    values::records::{IdentityView, KeyView, ResourceView, RoleView, UserView},
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

fn or_unit<T: Clone + Send + Sync + 'static>(found: Option<T>) -> Dynamic {
    found.map_or(Dynamic::UNIT, Dynamic::from)
}

fn text(text: Option<&str>) -> Dynamic {
    text.map_or(Dynamic::UNIT, Into::into)
}

fn number(number: u64) -> Dynamic {
    INT::try_from(number).unwrap_or(INT::MAX).into()
}

fn texts(texts: &[String]) -> Array {
    texts.iter().map(|one| one.as_str().into()).collect()
}

fn map(map: &BTreeMap<String, String>) -> Map {
    Dynamic::from_map(map.iter().map(|(key, value)| (key.into(), value.as_str().into())).collect())
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// The user with this name, ignoring case. `()` means there is no such user.
    ///
    /// Example: `let user = user_by_name(claims.sub);`
    #[rhai_fn(return_raw)]
    pub fn user_by_name(context: NativeCallContext, name: &str) -> Checked<Dynamic> {
        Ok(or_unit(CallContext::current(&context)?.host.records.user_by_name(name)))
    }

    /// The user with this number. `()` means there is no such user.
    ///
    /// Example: `user_by_id(1).name`
    #[rhai_fn(return_raw)]
    pub fn user_by_id(context: NativeCallContext, uid: INT) -> Checked<Dynamic> {
        let Ok(uid) = u64::try_from(uid) else { return Ok(Dynamic::UNIT) };
        Ok(or_unit(CallContext::current(&context)?.host.records.user_by_id(uid)))
    }

    /// The key with this public id (eight characters). `()` means there is no such key.
    ///
    /// Example: `key_by_id(identity.key_id).expires`
    #[rhai_fn(return_raw)]
    pub fn key_by_id(context: NativeCallContext, id: &str) -> Checked<Dynamic> {
        Ok(or_unit(CallContext::current(&context)?.host.records.key_by_id(id)))
    }

    /// The role with this id. `()` means there is no such role.
    ///
    /// Example: `role("editor").permissions`
    #[rhai_fn(return_raw)]
    pub fn role(context: NativeCallContext, id: &str) -> Checked<Dynamic> {
        Ok(or_unit(CallContext::current(&context)?.host.records.role(id)))
    }

    /// Whether the request is anonymous.
    ///
    /// Example: `if identity.is_anonymous { return; }`
    #[rhai_fn(get = "is_anonymous", pure)]
    pub fn identity_is_anonymous(identity: &mut IdentityView) -> bool {
        identity.0.uid.is_none()
    }

    /// The user's number. `()` means the request is anonymous.
    ///
    /// Example: `identity.uid == 1`
    #[rhai_fn(get = "uid", pure)]
    pub fn identity_uid(identity: &mut IdentityView) -> Dynamic {
        identity.0.uid.map_or(Dynamic::UNIT, number)
    }

    /// The user's name. Empty means the request is anonymous.
    ///
    /// Example: `identity.name`
    #[rhai_fn(get = "name", pure)]
    pub fn identity_name(identity: &mut IdentityView) -> ImmutableString {
        identity.0.engine_name()
    }

    /// The ids of the user's roles. A credential with scopes has only those roles whose permissions
    /// are all among its scopes.
    ///
    /// Example: `"editor" in identity.roles`
    #[rhai_fn(get = "roles", pure)]
    pub fn identity_roles(identity: &mut IdentityView) -> Array {
        texts(&identity.0.roles)
    }

    /// The permissions that the credential is restricted to, as far as the user has them, as an
    /// array. `()` means that the credential is not restricted to scopes.
    ///
    /// Example: `identity.scopes == () || "read orders" in identity.scopes`
    #[rhai_fn(get = "scopes", pure)]
    pub fn identity_scopes(identity: &mut IdentityView) -> Dynamic {
        identity.0.scopes.as_deref().map_or(Dynamic::UNIT, |scopes| texts(scopes).into())
    }

    /// The public id of the key that the request used. `()` means the request used no key.
    ///
    /// Example: `identity.key_id`
    #[rhai_fn(get = "key_id", pure)]
    pub fn identity_key_id(identity: &mut IdentityView) -> Dynamic {
        text(identity.0.key_id.as_deref())
    }

    /// The id of the application that accepted the credential. `()` means the request is anonymous.
    ///
    /// Example: `identity.application == "mobile"`
    #[rhai_fn(get = "application", pure)]
    pub fn identity_application(identity: &mut IdentityView) -> Dynamic {
        text(identity.0.application.as_deref())
    }

    /// The user's attributes, as a map of texts.
    ///
    /// Example: `identity.attributes.tenant`
    #[rhai_fn(get = "attributes", pure)]
    pub fn identity_attributes(identity: &mut IdentityView) -> Map {
        map(&identity.0.attributes)
    }

    /// Whether a role of the user grants this permission and the key's scopes include it.
    ///
    /// Example: `identity.has_permission("access user profiles")`
    #[rhai_fn(name = "has_permission", pure)]
    pub fn identity_has_permission(identity: &mut IdentityView, permission: &str) -> bool {
        (identity.0.allows)(permission)
    }

    /// Whether the user has this role.
    ///
    /// Example: `identity.has_role("editor")`
    #[rhai_fn(name = "has_role", pure)]
    pub fn identity_has_role(identity: &mut IdentityView, role: &str) -> bool {
        identity.0.roles.iter().any(|one| one == role)
    }

    /// The user's number.
    ///
    /// Example: `user.uid`
    #[rhai_fn(get = "uid", pure)]
    pub fn user_uid(user: &mut UserView) -> Dynamic {
        number(user.0.uid)
    }

    /// The user's name.
    ///
    /// Example: `user.name`
    #[rhai_fn(get = "name", pure)]
    pub fn user_name(user: &mut UserView) -> String {
        user.0.name.clone()
    }

    /// Whether the user is active. `false` means the user is blocked.
    ///
    /// Example: `if !user.is_active { deny(403, "USER_BLOCKED", "The user is blocked."); }`
    #[rhai_fn(get = "is_active", pure)]
    pub fn user_is_active(user: &mut UserView) -> bool {
        user.0.is_active
    }

    /// The ids of the user's roles.
    ///
    /// Example: `user.roles.len()`
    #[rhai_fn(get = "roles", pure)]
    pub fn user_roles(user: &mut UserView) -> Array {
        texts(&user.0.roles)
    }

    /// The user's attributes, as a map of texts.
    ///
    /// Example: `user.attributes.legacy_sha256`
    #[rhai_fn(get = "attributes", pure)]
    pub fn user_attributes(user: &mut UserView) -> Map {
        map(&user.0.attributes)
    }

    /// Whether one of the user's roles grants this permission.
    ///
    /// Example: `user.has_permission("administer users")`
    #[rhai_fn(name = "has_permission", pure)]
    pub fn user_has_permission(user: &mut UserView, permission: &str) -> bool {
        (user.0.allows)(permission)
    }

    /// Whether the user has this role.
    ///
    /// Example: `user.has_role("editor")`
    #[rhai_fn(name = "has_role", pure)]
    pub fn user_has_role(user: &mut UserView, role: &str) -> bool {
        user.0.roles.iter().any(|one| one == role)
    }

    /// The key's public id.
    ///
    /// Example: `key.id`
    #[rhai_fn(get = "id", pure)]
    pub fn key_id(key: &mut KeyView) -> String {
        key.0.id.clone()
    }

    /// The number of the key's user.
    ///
    /// Example: `key.user == identity.uid`
    #[rhai_fn(get = "user", pure)]
    pub fn key_user(key: &mut KeyView) -> Dynamic {
        number(key.0.user)
    }

    /// Whether the key is revoked.
    ///
    /// Example: `key.is_revoked`
    #[rhai_fn(get = "is_revoked", pure)]
    pub fn key_is_revoked(key: &mut KeyView) -> bool {
        key.0.is_revoked
    }

    /// The first second in which the key is refused. `()` means the key does not expire.
    ///
    /// Example: `key.expires != () && key.expires - now() < duration("7d")`
    #[rhai_fn(get = "expires", pure)]
    pub fn key_expires(key: &mut KeyView) -> Dynamic {
        key.0.expires.map_or(Dynamic::UNIT, |at| at.0.into())
    }

    /// The only application that accepts the key. `()` means any application accepts the key.
    ///
    /// Example: `key.application`
    #[rhai_fn(get = "application", pure)]
    pub fn key_application(key: &mut KeyView) -> Dynamic {
        text(key.0.application.as_deref())
    }

    /// The permissions to which the key is restricted, as an array. `()` means no restriction.
    ///
    /// Example: `key.scopes != ()`
    #[rhai_fn(get = "scopes", pure)]
    pub fn key_scopes(key: &mut KeyView) -> Dynamic {
        key.0.scopes.as_ref().map_or(Dynamic::UNIT, |scopes| texts(scopes).into())
    }

    /// The networks from which the key is accepted, as an array. An empty array means all networks.
    ///
    /// Example: `key.networks.is_empty() || in_network(req.client, key.networks)`
    #[rhai_fn(get = "networks", pure)]
    pub fn key_networks(key: &mut KeyView) -> Array {
        texts(&key.0.networks)
    }

    /// The role's id.
    ///
    /// Example: `role("editor").id`
    #[rhai_fn(get = "id", pure)]
    pub fn role_id(role: &mut RoleView) -> String {
        role.0.id.clone()
    }

    /// The role's label.
    ///
    /// Example: `role("editor").label`
    #[rhai_fn(get = "label", pure)]
    pub fn role_label(role: &mut RoleView) -> String {
        role.0.label.clone()
    }

    /// Whether the role has every permission.
    ///
    /// Example: `role("administrator").is_admin`
    #[rhai_fn(get = "is_admin", pure)]
    pub fn role_is_admin(role: &mut RoleView) -> bool {
        role.0.is_admin
    }

    /// The permissions that the role grants, as an array.
    ///
    /// Example: `"administer users" in role("editor").permissions`
    #[rhai_fn(get = "permissions", pure)]
    pub fn role_permissions(role: &mut RoleView) -> Array {
        texts(&role.0.permissions)
    }

    /// The resource's id.
    ///
    /// Example: `resource.id == "entity.user"`
    #[rhai_fn(get = "id", pure)]
    pub fn resource_id(resource: &mut ResourceView) -> String {
        resource.0.id.clone()
    }

    /// The resource's handler: `entity:user`, `proxy`, `script:NAME`, …
    ///
    /// Example: `resource.handler`
    #[rhai_fn(get = "handler", pure)]
    pub fn resource_handler(resource: &mut ResourceView) -> String {
        resource.0.handler.clone()
    }

    /// The resource's path pattern.
    ///
    /// Example: `resource.path`
    #[rhai_fn(get = "path", pure)]
    pub fn resource_path(resource: &mut ResourceView) -> String {
        resource.0.path.clone()
    }

    /// The resource's host. `()` means any host.
    ///
    /// Example: `resource.host`
    #[rhai_fn(get = "host", pure)]
    pub fn resource_host(resource: &mut ResourceView) -> Dynamic {
        text(resource.0.host.as_deref())
    }

    /// The method of the request.
    ///
    /// Example: `resource.method`
    #[rhai_fn(get = "method", pure)]
    pub fn resource_method(resource: &mut ResourceView) -> String {
        resource.0.method.clone()
    }
}
