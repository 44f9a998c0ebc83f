//! The authority of an actor: the rules that keep everybody from making more of themselves than
//! they are.
//!
//! The rules are here, below every face, so that the admin API, the user entity, the command line
//! and a program that embeds Keyward cannot differ. A [`Writer`](super::Writer) applies them.

mod applications;
mod in_force;
mod keys;
mod resources;
mod roles;
mod users;

use std::sync::Arc;

pub(super) use keys::RequestedBounds;
pub(super) use resources::delete_resource_owner;

use super::{AccountError, Accounts};
use crate::{
    directory::CachedKey,
    model::{Actor, KeyId, Timestamp},
};

/// The words for a bound credential in messages.
const BOUND: &str = "A key that is bound to scopes, an application, networks, limits or an end";

/// The limits of an actor beyond the permission for a change, which the caller has checked.
#[derive(Clone)]
pub(super) struct Authority(Arc<Kind>);

enum Kind {
    /// The program or the operator.
    Unlimited,
    /// A user, with the credential of the request.
    User(UserAuthority),
    /// Nobody is authenticated.
    Anonymous,
}

struct UserAuthority {
    uid: u64,
    application: String,
    /// Whether the request was verified to be an administrator's.
    is_admin: bool,
    credential: Credential,
    /// The id of the key. `None` means a credential without a key.
    key: Option<KeyId>,
    /// The permissions that a script restricted the credential to.
    scopes: Option<Vec<String>>,
    /// Whether the request proved the user's current password.
    has_proved_password: bool,
}

enum Credential {
    /// A credential without bounds, such as a password.
    Unbound,
    Key(CachedKey),
    /// A key that was deleted after the request began. Its bounds are not known, so it may do
    /// nothing that a bound key may not do.
    DeletedKey,
}

impl Authority {
    /// The authority of an actor. The bounds of the actor's key come from the Directory.
    pub fn of(actor: &Actor, is_admin: bool, accounts: &Accounts) -> Self {
        Self(Arc::new(match actor {
            Actor::Program | Actor::Operator { .. } => Kind::Unlimited,
            Actor::Anonymous { .. } => Kind::Anonymous,
            Actor::User { uid, key, application, .. } => {
                let credential = match key {
                    None => Credential::Unbound,
                    Some(id) => match accounts.directory().key(*id) {
                        Some(key) => Credential::Key(key),
                        None => Credential::DeletedKey,
                    },
                };
                Kind::User(UserAuthority {
                    uid: *uid,
                    application: application.clone(),
                    is_admin,
                    credential,
                    key: *key,
                    scopes: None,
                    has_proved_password: false,
                })
            }
        }))
    }

    /// This authority, restricted to these permissions. `None` changes nothing.
    pub fn with_scopes(self, scopes: Option<&[String]>) -> Self {
        match (Arc::try_unwrap(self.0), scopes) {
            (Ok(Kind::User(user)), Some(scopes)) => {
                let scopes = Some(scopes.to_vec());
                Self(Arc::new(Kind::User(UserAuthority { scopes, ..user })))
            }
            (Ok(kind), _) => Self(Arc::new(kind)),
            (Err(shared), _) => Self(shared),
        }
    }

    /// The authority of the same user, who has proved the current password.
    pub fn with_proved_password(&self) -> Self {
        let Some(user) = self.user() else { return self.clone() };
        Self(Arc::new(Kind::User(UserAuthority {
            uid: user.uid,
            application: user.application.clone(),
            is_admin: user.is_admin,
            credential: match &user.credential {
                Credential::Unbound => Credential::Unbound,
                Credential::Key(key) => Credential::Key(key.clone()),
                Credential::DeletedKey => Credential::DeletedKey,
            },
            key: user.key,
            scopes: user.scopes.clone(),
            has_proved_password: true,
        })))
    }

    /// Whether the actor is an administrator whose credential has no bounds. With a bound
    /// credential, an administrator could make a credential or an administrator without bounds.
    pub fn is_admin(&self) -> bool {
        match &*self.0 {
            Kind::Unlimited => true,
            Kind::User(user) => user.is_admin && !self.is_bound(),
            Kind::Anonymous => false,
        }
    }

    /// Whether the actor is an administrator whose credential has no scopes.
    pub fn may_read_as_admin(&self) -> bool {
        self.is_admin() || self.user().is_some_and(|user| user.is_admin && self.scopes().is_none())
    }

    /// Refuses a change that concerns administrators unless the actor is one.
    pub fn admin_only_if(&self, concerns_admin: bool) -> Result<(), AccountError> {
        if !concerns_admin || self.is_admin() {
            return Ok(());
        }
        let is_bound_admin = self.user().is_some_and(|user| user.is_admin);
        Err(if is_bound_admin {
            forbidden(format!("{} {BOUND} is not an administrator's.", AccountError::AdminOnly))
        } else {
            AccountError::AdminOnly
        })
    }

    /// Whether the credential allows less than its user's roles allow, or ends before they do.
    fn is_bound(&self) -> bool {
        self.user().is_some_and(|user| {
            user.scopes.is_some()
                || match &user.credential {
                    Credential::Unbound => false,
                    Credential::Key(key) => key.is_restricted() || key.expiry().is_some(),
                    Credential::DeletedKey => true,
                }
        })
    }

    fn user(&self) -> Option<&UserAuthority> {
        match &*self.0 {
            Kind::User(user) => Some(user),
            Kind::Unlimited | Kind::Anonymous => None,
        }
    }

    /// The key of the request. `None` means a credential without a key.
    fn key(&self) -> Option<&CachedKey> {
        match &self.user()?.credential {
            Credential::Key(key) => Some(key),
            Credential::Unbound | Credential::DeletedKey => None,
        }
    }

    fn is_owner(&self, uid: u64) -> bool {
        self.user().is_some_and(|user| user.uid == uid && uid != 0)
    }

    fn uses_universal_key(&self) -> bool {
        self.key().is_some_and(CachedKey::is_universal)
    }

    /// The permissions that the credential is restricted to. `None` means those of the roles.
    fn scopes(&self) -> Option<&[String]> {
        let user = self.user()?;
        user.scopes.as_deref().or_else(|| match &user.credential {
            Credential::Unbound => None,
            Credential::Key(key) => key.scopes().map(|scopes| &**scopes),
            Credential::DeletedKey => Some(&[]),
        })
    }

    /// The first second in which the credential is rejected. `None` means never.
    fn end(&self) -> Option<Timestamp> {
        self.key()?.expiry().map(Timestamp)
    }

    fn is_in_scope(&self, permission: &str) -> bool {
        self.scopes().is_none_or(|scopes| scopes.iter().any(|scope| scope == permission))
    }

    /// Whether the actor has a permission now.
    fn has(&self, permission: &str, accounts: &Accounts) -> bool {
        let policy = accounts.directory().policy();
        let is_granted = match &*self.0 {
            Kind::Unlimited => true,
            Kind::Anonymous => policy.roles.allows(policy.roles.anonymous(), permission),
            Kind::User(user) => accounts
                .directory()
                .user(user.uid)
                .is_some_and(|user| policy.roles.allows(user.roles(&policy.roles), permission)),
        };
        is_granted && self.is_in_scope(permission)
    }
}

/// The error for a change that a rule of this module refuses.
fn forbidden(rule: impl Into<String>) -> AccountError {
    AccountError::Forbidden { rule: rule.into() }
}
