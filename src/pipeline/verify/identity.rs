//! An [`Identity`] is the result of the verify phase: the user, the user's roles, and the
//! restrictions of the credential.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use http::HeaderValue;

use crate::{
    directory::{CachedUser, CompiledApplication, Policy, RoleSet, RoleTable},
    limits::Bounds,
    model::{KeyId, Role},
    scripting::{IdentityView, PermissionCheck},
};

/// The result of the verify phase, and the input of the permit phase: the verified user, or an
/// anonymous request.
pub struct Identity<'a> {
    authenticated: Option<AuthenticatedUser<'a>>,
    roles: &'a RoleSet,
    role_table: &'a Arc<RoleTable>,
    /// The identity as scripts see it. The first script call creates this value.
    pub(in crate::pipeline) script_view: OnceLock<IdentityView>,
    /// The roles that a credential with scopes carries. The first use computes this value.
    carried_roles: OnceLock<Vec<String>>,
}

/// The verified user, with the application that accepted the credential.
struct AuthenticatedUser<'a> {
    user: VerifiedUser,
    application: &'a CompiledApplication,
}

/// A user, and the restrictions of the credential.
#[derive(Clone)]
pub(super) struct VerifiedUser {
    pub user: Arc<CachedUser>,
    pub key: Option<KeyId>,
    pub scopes: Option<Arc<[String]>>,
    /// The limits of the key.
    pub bounds: Option<Arc<Bounds>>,
    pub is_universal: bool,
    /// Whether the credential allows less than the user's roles allow.
    pub is_restricted: bool,
    /// Whether the key may be used from some networks only.
    pub is_bound_to_networks: bool,
}

impl VerifiedUser {
    /// A user whose credential has no restrictions.
    pub fn unrestricted(user: Arc<CachedUser>) -> Self {
        let (key, scopes, bounds) = (None, None, None);
        Self {
            user,
            key,
            scopes,
            bounds,
            is_universal: false,
            is_restricted: false,
            is_bound_to_networks: false,
        }
    }
}

/// An identity apart from its request, for the guards behind the guard that has decided.
pub(in crate::pipeline) struct KeptIdentity {
    /// The user and the id of the application. `None` means an anonymous request.
    authenticated: Option<(VerifiedUser, String)>,
    script_view: OnceLock<IdentityView>,
}

impl KeptIdentity {
    pub fn of(identity: &Identity<'_>) -> Self {
        let keep = |AuthenticatedUser { user, application }: &AuthenticatedUser<'_>| {
            (user.clone(), application.record.id.clone())
        };
        let authenticated = identity.authenticated.as_ref().map(keep);
        Self { authenticated, script_view: identity.script_view.clone() }
    }

    /// The identity in the policy of its request. `None` means that the policy is another one.
    pub fn restore<'a>(&self, policy: &'a Policy) -> Option<Identity<'a>> {
        let role_table = &policy.roles;
        let mut identity = match &self.authenticated {
            None => Identity::anonymous(role_table),
            Some((user, application)) => {
                let application = policy.applications.get(application)?;
                Identity::authenticated(user.clone(), application, role_table)
            }
        };
        identity.script_view = self.script_view.clone();
        Some(identity)
    }
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?}, key {:?})", self.uid(), self.key())
    }
}

impl<'a> Identity<'a> {
    /// The identity of an anonymous request.
    pub(in crate::pipeline) fn anonymous(role_table: &'a Arc<RoleTable>) -> Self {
        let (roles, script_view) = (role_table.anonymous(), OnceLock::new());
        let carried_roles = OnceLock::new();
        Self { authenticated: None, roles, role_table, script_view, carried_roles }
    }

    /// The identity of a user whose credential was verified for this application.
    pub(super) fn authenticated(
        user: VerifiedUser,
        application: &'a CompiledApplication,
        role_table: &'a Arc<RoleTable>,
    ) -> Self {
        let (roles, script_view) = (user.user.roles(role_table), OnceLock::new());
        let authenticated = Some(AuthenticatedUser { user, application });
        let carried_roles = OnceLock::new();
        Self { authenticated, roles, role_table, script_view, carried_roles }
    }

    fn verified(&self) -> Option<&VerifiedUser> {
        self.authenticated.as_ref().map(|authenticated| &authenticated.user)
    }

    /// Whether the client used a universal key. With a universal key the client chooses the user.
    pub fn uses_universal_key(&self) -> bool {
        self.verified().is_some_and(|verified| verified.is_universal)
    }

    /// Whether the credential allows less than the user's roles allow. This is the case for
    /// universal keys, and for keys that are restricted to scopes, an application, networks or
    /// limits. A client with a restricted credential must not create a credential that allows more.
    pub fn is_restricted(&self) -> bool {
        self.verified().is_some_and(|verified| verified.is_restricted)
    }

    /// Whether the client used a key that may be used from some networks only.
    pub(crate) fn is_bound_to_networks(&self) -> bool {
        self.verified().is_some_and(|verified| verified.is_bound_to_networks)
    }

    /// Whether the request is anonymous.
    pub fn is_anonymous(&self) -> bool {
        self.authenticated.is_none()
    }

    /// The user's number; `None` means an anonymous request.
    pub fn uid(&self) -> Option<u64> {
        self.verified().map(|verified| verified.user.uid)
    }

    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        self.verified().map(|verified| &*verified.user.name)
    }

    /// The key that authenticated the user. `None` means that the user authenticated without a key,
    /// or that the request is anonymous.
    pub fn key(&self) -> Option<KeyId> {
        self.verified()?.key
    }

    /// The application that accepted the credential.
    pub fn application(&self) -> Option<&'a CompiledApplication> {
        self.authenticated.as_ref().map(|authenticated| authenticated.application)
    }

    /// The limits of the key and the limits of the user, in this order.
    pub(in crate::pipeline) fn bounds(&self) -> [Option<&Arc<Bounds>>; 2] {
        let Some(verified) = self.verified() else { return [None, None] };
        [verified.bounds.as_ref(), verified.user.bounds()]
    }

    /// The permissions that the key is restricted to; `None` means all permissions of the roles.
    pub fn scopes(&self) -> Option<&[String]> {
        self.verified()?.scopes.as_deref()
    }

    /// The scopes that a role of the user grants; `None` means that the credential is not
    /// restricted to scopes. A scope that no role grants allows nothing, so nobody is told of it.
    pub fn granted_scopes(&self) -> Option<Vec<String>> {
        let is_granted = |scope: &&String| self.role_table.allows(self.roles, scope);
        Some(self.scopes()?.iter().filter(is_granted).cloned().collect())
    }

    /// The ids of the roles that the credential carries, sorted, without `authenticated`.
    ///
    /// A credential without scopes carries all roles of the user. A credential with scopes carries
    /// a role only if the scopes include all permissions of the role. It carries no administrator's
    /// role, and no role without permissions: such a role has a meaning only for a program that
    /// does not know the scopes.
    pub fn roles(&self) -> &[String] {
        if self.scopes().is_none() {
            return &self.roles.ids;
        }
        self.carried_roles.get_or_init(|| {
            let is_carried = |id: &&String| {
                let role = self.role_table.role(id);
                role.is_some_and(|role| !role.permissions.is_empty() && self.may_grant(role))
            };
            self.roles.ids.iter().filter(is_carried).cloned().collect()
        })
    }

    /// The ids of all roles of the user, sorted, without `authenticated`.
    pub fn user_roles(&self) -> &'a [String] {
        &self.roles.ids
    }

    /// [`Identity::user_roles`] as a header field's value, separated by commas; `None` means no
    /// roles.
    pub fn user_roles_field(&self) -> Option<&'a HeaderValue> {
        self.roles.field.as_ref()
    }

    /// Whether a role of the user grants this permission and the key's scopes include it.
    pub fn has(&self, permission: &str) -> bool {
        self.in_scope(permission) && self.role_table.allows(self.roles, permission)
    }

    /// Whether the user is an administrator and so has every permission. A user with a key that is
    /// restricted to scopes never counts as an administrator.
    pub fn is_admin(&self) -> bool {
        self.roles.is_admin && self.scopes().is_none()
    }

    /// The user's attributes, for scripts.
    pub(in crate::pipeline) fn attributes(&self) -> BTreeMap<String, String> {
        self.verified().map(|verified| verified.user.attributes().clone()).unwrap_or_default()
    }

    /// [`Identity::has`] as a function that can outlive the identity.
    pub(crate) fn allows(&self) -> PermissionCheck {
        let (table, roles) = (self.role_table.clone(), self.roles.clone());
        let scopes = self.verified().and_then(|verified| verified.scopes.clone());
        Arc::new(move |permission| {
            in_scope(scopes.as_deref(), permission) && table.allows(&roles, permission)
        })
    }

    /// Whether a client with this key may give this role to a user. A role must not grant
    /// permissions that the key's scopes do not include.
    pub fn may_grant(&self, role: &Role) -> bool {
        let is_in_scope = || role.permissions.iter().all(|permission| self.in_scope(permission));
        self.scopes().is_none() || !role.is_admin && is_in_scope()
    }

    fn in_scope(&self, permission: &str) -> bool {
        in_scope(self.scopes(), permission)
    }
}

fn in_scope(scopes: Option<&[String]>, permission: &str) -> bool {
    scopes.is_none_or(|scopes| scopes.iter().any(|scope| scope == permission))
}
