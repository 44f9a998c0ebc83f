//! Views of users, keys, roles, identities and resources for scripts, and the trait [`Records`],
//! which looks up records.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use rhai::ImmutableString;

use crate::model::Timestamp;

/// Returns whether a user or an identity has a permission.
pub type PermissionCheck = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The look-ups that scripts may make. Each look-up only reads memory, because a script must not
/// wait.
pub trait Records: Send + Sync {
    /// The user with this name, ignoring case.
    fn user_by_name(&self, name: &str) -> Option<UserView>;
    /// The user with this number.
    fn user_by_id(&self, uid: u64) -> Option<UserView>;
    /// The key with this public id.
    fn key_by_id(&self, id: &str) -> Option<KeyView>;
    /// The role with this id.
    fn role(&self, id: &str) -> Option<RoleView>;
}

/// An implementation of [`Records`] that contains no records.
#[derive(Debug, Clone, Copy)]
pub struct NoRecords;

impl Records for NoRecords {
    fn user_by_name(&self, _: &str) -> Option<UserView> {
        None
    }

    fn user_by_id(&self, _: u64) -> Option<UserView> {
        None
    }

    fn key_by_id(&self, _: &str) -> Option<KeyView> {
        None
    }

    fn role(&self, _: &str) -> Option<RoleView> {
        None
    }
}

/// A user as scripts see it.
#[derive(Clone)]
pub struct UserView(pub(in crate::scripting) Arc<UserParts>);

/// The contents of a [`UserView`].
pub struct UserParts {
    /// The user's number.
    pub uid: u64,
    /// The name.
    pub name: String,
    /// Whether the user is active; `false` means blocked.
    pub is_active: bool,
    /// The ids of the user's roles.
    pub roles: Vec<String>,
    /// The user's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Checks a permission against the user's roles.
    pub allows: PermissionCheck,
}

impl UserView {
    /// A view with these contents.
    pub fn new(parts: UserParts) -> Self {
        Self(Arc::new(parts))
    }

    /// The contents.
    pub fn parts(&self) -> &UserParts {
        &self.0
    }
}

impl fmt::Debug for UserView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserView({} {})", self.0.uid, self.0.name)
    }
}

/// A key as scripts see it. The view omits the digest, with which a script could check guesses of
/// the key's text.
#[derive(Debug, Clone)]
pub struct KeyView(pub(in crate::scripting) Arc<KeyParts>);

/// The contents of a [`KeyView`].
#[derive(Debug)]
pub struct KeyParts {
    /// The public id.
    pub id: String,
    /// The number of the key's user.
    pub user: u64,
    /// Whether the key is revoked.
    pub is_revoked: bool,
    /// The first second in which the key is rejected; `None` means that it never expires.
    pub expires: Option<Timestamp>,
    /// The only application that the key may be used with; `None` means any application.
    pub application: Option<String>,
    /// The permissions that the key is restricted to; `None` means all permissions of the user.
    pub scopes: Option<Vec<String>>,
    /// The networks that the key may be used from; empty means any network.
    pub networks: Vec<String>,
}

impl KeyView {
    /// A view with these contents.
    pub fn new(parts: KeyParts) -> Self {
        Self(Arc::new(parts))
    }
}

/// A role as scripts see it.
#[derive(Debug, Clone)]
pub struct RoleView(pub(in crate::scripting) Arc<RoleParts>);

/// The contents of a [`RoleView`].
#[derive(Debug)]
pub struct RoleParts {
    /// The id.
    pub id: String,
    /// The label for people.
    pub label: String,
    /// Whether the role grants every permission.
    pub is_admin: bool,
    /// The permissions that the role grants.
    pub permissions: Vec<String>,
}

impl RoleView {
    /// A view with these contents.
    pub fn new(parts: RoleParts) -> Self {
        Self(Arc::new(parts))
    }
}

/// `identity`: the authenticated or anonymous client as scripts see it.
#[derive(Clone)]
pub struct IdentityView(pub(in crate::scripting) Arc<IdentityInner>);

/// The contents of an [`IdentityView`], and the user's name in the engine's string type. The name
/// is converted on first use.
pub(in crate::scripting) struct IdentityInner {
    parts: IdentityParts,
    engine_name: OnceLock<ImmutableString>,
}

impl IdentityInner {
    pub fn engine_name(&self) -> ImmutableString {
        self.engine_name.get_or_init(|| (&self.parts.name).into()).clone()
    }
}

impl Deref for IdentityInner {
    type Target = IdentityParts;

    fn deref(&self) -> &IdentityParts {
        &self.parts
    }
}

/// The contents of an [`IdentityView`].
pub struct IdentityParts {
    /// The user's number; `None` means anonymous.
    pub uid: Option<u64>,
    /// The user's name; empty means anonymous.
    pub name: String,
    /// The ids of the roles that the credential carries.
    pub roles: Vec<String>,
    /// The permissions that the credential is restricted to, as far as the user has them; `None`
    /// means that it is not restricted.
    pub scopes: Option<Vec<String>>,
    /// The public id of the key that authenticated the request; `None` means that no key did.
    pub key_id: Option<String>,
    /// The application that accepted the credential.
    pub application: Option<String>,
    /// The user's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Checks a permission against the roles and the key's scopes.
    pub allows: PermissionCheck,
}

impl IdentityView {
    /// A view with these contents.
    pub fn new(parts: IdentityParts) -> Self {
        Self(Arc::new(IdentityInner { parts, engine_name: OnceLock::new() }))
    }

    /// The anonymous identity, with the permissions of the role `anonymous`.
    pub fn anonymous(allows: PermissionCheck) -> Self {
        Self::new(IdentityParts {
            uid: None,
            name: String::new(),
            roles: Vec::new(),
            scopes: None,
            key_id: None,
            application: None,
            attributes: BTreeMap::new(),
            allows,
        })
    }
}

impl fmt::Debug for IdentityView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityView({:?} {})", self.0.uid, self.0.name)
    }
}

/// `resource`: the matched resource as scripts see it.
#[derive(Debug, Clone)]
pub struct ResourceView(pub(in crate::scripting) Arc<ResourceParts>);

/// The contents of a [`ResourceView`].
#[derive(Debug)]
pub struct ResourceParts {
    /// The id.
    pub id: String,
    /// The handler: `entity:user`, `script:NAME`, …
    pub handler: String,
    /// The path pattern.
    pub path: String,
    /// The host of the resource; `None` means any host.
    pub host: Option<String>,
    /// The method of the request.
    pub method: String,
}

impl ResourceView {
    /// A view with these contents.
    pub fn new(parts: ResourceParts) -> Self {
        Self(Arc::new(parts))
    }
}
