//! The identity of a caller, as an extension of the request for the service behind the layer.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::{
    model::{Actor, KeyId},
    pipeline,
    scripting::PermissionCheck,
};

/// The identity of the caller: an extension of each allowed request. The identity does not change
/// after the decision. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Facts>);

struct Facts {
    /// `None` means anonymous.
    user: Option<KnownUser>,
    roles: Vec<String>,
    scopes: Option<Vec<String>>,
    /// The permissions that the credential is restricted to, also those that the user lacks.
    all_scopes: Option<Vec<String>>,
    is_admin: bool,
    client: IpAddr,
    allows: PermissionCheck,
}

struct KnownUser {
    uid: u64,
    name: String,
    key: Option<KeyId>,
    application: Option<String>,
}

impl Identity {
    pub(super) fn new(identity: &pipeline::Identity<'_>, client: IpAddr) -> Self {
        let user = identity.uid().map(|uid| KnownUser {
            uid,
            name: identity.name().unwrap_or_default().to_owned(),
            key: identity.key(),
            application: identity.application().map(|application| application.record.id.clone()),
        });
        let roles = identity.roles().to_vec();
        let scopes = identity.granted_scopes();
        Self(Arc::new(Facts {
            user,
            roles,
            scopes,
            all_scopes: identity.scopes().map(<[String]>::to_vec),
            is_admin: identity.is_admin(),
            client: client.to_canonical(),
            allows: identity.allows(),
        }))
    }

    /// Whether the request is anonymous.
    pub fn is_anonymous(&self) -> bool {
        self.0.user.is_none()
    }

    /// The user's number. `None` means anonymous.
    pub fn uid(&self) -> Option<u64> {
        self.0.user.as_ref().map(|user| user.uid)
    }

    /// The user's name. `None` means anonymous.
    pub fn name(&self) -> Option<&str> {
        self.0.user.as_ref().map(|user| user.name.as_str())
    }

    /// The ids of the roles that the credential carries, sorted, without `authenticated`: all roles
    /// of the user, or, for a credential with scopes, those roles whose permissions are all among
    /// the scopes.
    pub fn roles(&self) -> &[String] {
        &self.0.roles
    }

    /// The permissions that the credential is restricted to, as far as the user has them. `None`
    /// means that the credential is not restricted to scopes.
    pub fn scopes(&self) -> Option<&[String]> {
        self.0.scopes.as_deref()
    }

    /// The public id of the key. `None` means another credential, or anonymous.
    pub fn key(&self) -> Option<KeyId> {
        self.0.user.as_ref()?.key
    }

    /// The id of the application that authenticated the request. `None` means anonymous.
    pub fn application(&self) -> Option<&str> {
        self.0.user.as_ref()?.application.as_deref()
    }

    /// The address of the client. Unspecified if the program does not know its clients.
    pub fn client(&self) -> IpAddr {
        self.0.client
    }

    pub(crate) fn all_scopes(&self) -> Option<&[String]> {
        self.0.all_scopes.as_deref()
    }

    /// Whether the user is an administrator, and the credential has no scopes.
    pub(crate) fn is_admin(&self) -> bool {
        self.0.is_admin
    }

    /// Whether a role grants this permission, and the scopes of the key include it.
    pub fn has(&self, permission: &str) -> bool {
        (self.0.allows)(permission)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, key {:?})", self.uid(), self.key())
    }
}

/// The actor of the audit trail for changes on behalf of the caller.
impl From<&Identity> for Actor {
    fn from(identity: &Identity) -> Self {
        let client = identity.client();
        let Some(user) = &identity.0.user else { return Self::Anonymous { client } };
        Self::User {
            uid: user.uid,
            name: user.name.clone(),
            key: user.key,
            application: user.application.clone().unwrap_or_default(),
            client,
        }
    }
}
