//! Who and what scripts can ask about: users, keys, roles, and who is asking. Small views, and the trait that looks them up.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use rhai::ImmutableString;

use crate::model::Timestamp;

/// Answers whether somebody has a permission.
pub type Allows = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The look-ups that scripts may make. Read-only and from memory: a script waits for nothing.
pub trait Records: Send + Sync {
    /// The user of this name, without regard to case.
    fn user_by_name(&self, name: &str) -> Option<UserView>;
    /// The user of this number.
    fn user_by_id(&self, uid: u64) -> Option<UserView>;
    /// The key of this public id.
    fn key_by_id(&self, id: &str) -> Option<KeyView>;
    /// The role of this id.
    fn role(&self, id: &str) -> Option<RoleView>;
}

/// No records at all.
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

/// A user, for scripts.
#[derive(Clone)]
pub struct UserView(pub(in crate::scripting) Arc<UserParts>);

/// What a [`UserView`] is made of.
pub struct UserParts {
    /// The number.
    pub uid: u64,
    /// The name.
    pub name: String,
    /// Active, or blocked.
    pub is_active: bool,
    /// The ids of its roles.
    pub roles: Vec<String>,
    /// Its small facts.
    pub attributes: BTreeMap<String, String>,
    /// What its roles give.
    pub allows: Allows,
}

impl UserView {
    /// Takes the parts in.
    pub fn new(parts: UserParts) -> Self {
        Self(Arc::new(parts))
    }

    /// What it was made of.
    pub fn parts(&self) -> &UserParts {
        &self.0
    }
}

impl fmt::Debug for UserView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserView({} {})", self.0.uid, self.0.name)
    }
}

/// A key, for scripts: nothing that could be checked against a guess.
#[derive(Debug, Clone)]
pub struct KeyView(pub(in crate::scripting) Arc<KeyParts>);

/// What a [`KeyView`] is made of.
#[derive(Debug)]
pub struct KeyParts {
    /// The public id.
    pub id: String,
    /// The user whom it acts as.
    pub user: u64,
    /// Whether it was taken back.
    pub is_revoked: bool,
    /// The first second in which it is refused.
    pub expires: Option<Timestamp>,
    /// The one application that it may be used with.
    pub application: Option<String>,
    /// The permissions that it is bound to; none: all of its user's.
    pub scopes: Option<Vec<String>>,
    /// The networks that it may be used from; none: all.
    pub networks: Vec<String>,
}

impl KeyView {
    /// Takes the parts in.
    pub fn new(parts: KeyParts) -> Self {
        Self(Arc::new(parts))
    }
}

/// A role, for scripts.
#[derive(Debug, Clone)]
pub struct RoleView(pub(in crate::scripting) Arc<RoleParts>);

/// What a [`RoleView`] is made of.
#[derive(Debug)]
pub struct RoleParts {
    /// The id.
    pub id: String,
    /// What people read.
    pub label: String,
    /// Whether it has every permission.
    pub is_admin: bool,
    /// The permissions that it gives.
    pub permissions: Vec<String>,
}

impl RoleView {
    /// Takes the parts in.
    pub fn new(parts: RoleParts) -> Self {
        Self(Arc::new(parts))
    }
}

/// `identity`: who is asking, for scripts.
#[derive(Clone)]
pub struct Person(pub(in crate::scripting) Arc<HeldPerson>);

/// Somebody, with what scripts ask for most in the engine's own form, made when one asks.
pub(in crate::scripting) struct HeldPerson {
    parts: PersonParts,
    shown_name: OnceLock<ImmutableString>,
}

impl HeldPerson {
    pub fn shown_name(&self) -> ImmutableString {
        self.shown_name.get_or_init(|| (&self.parts.name).into()).clone()
    }
}

impl Deref for HeldPerson {
    type Target = PersonParts;

    fn deref(&self) -> &PersonParts {
        &self.parts
    }
}

/// What a [`Person`] is made of.
pub struct PersonParts {
    /// The user's number; none: anonymous.
    pub uid: Option<u64>,
    /// The user's name; empty: anonymous.
    pub name: String,
    /// The ids of its roles.
    pub roles: Vec<String>,
    /// The public id of the key that was used.
    pub key_id: Option<String>,
    /// The application that it came through.
    pub application: Option<String>,
    /// The user's small facts.
    pub attributes: BTreeMap<String, String>,
    /// What it may: from its roles, and within its key's scopes.
    pub allows: Allows,
}

impl Person {
    /// Takes the parts in.
    pub fn new(parts: PersonParts) -> Self {
        Self(Arc::new(HeldPerson { parts, shown_name: OnceLock::new() }))
    }

    /// Nobody, who may what the role `anonymous` may.
    pub fn anonymous(allows: Allows) -> Self {
        Self::new(PersonParts {
            uid: None,
            name: String::new(),
            roles: Vec::new(),
            key_id: None,
            application: None,
            attributes: BTreeMap::new(),
            allows,
        })
    }
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Person({:?} {})", self.0.uid, self.0.name)
    }
}

/// `resource`: what is asked for, for scripts.
#[derive(Debug, Clone)]
pub struct ResourceView(pub(in crate::scripting) Arc<ResourceParts>);

/// What a [`ResourceView`] is made of.
#[derive(Debug)]
pub struct ResourceParts {
    /// The id.
    pub id: String,
    /// What answers it: `entity:user`, `script:NAME`, …
    pub handler: String,
    /// The path pattern.
    pub path: String,
    /// The host that it is for, where it is for one.
    pub host: Option<String>,
    /// The method that was matched.
    pub method: String,
}

impl ResourceView {
    /// Takes the parts in.
    pub fn new(parts: ResourceParts) -> Self {
        Self(Arc::new(parts))
    }
}
