//! Who makes a request, as the service behind the layer finds them.

use std::{fmt, sync::Arc};

use crate::{model::KeyId, pipeline, scripting::Allows};

/// Who makes a request: an extension of each request that was let through. As they were when the request was decided about. A cheap handle.
#[derive(Clone)]
pub struct Identity(Arc<Facts>);

struct Facts {
    known: Option<Known>,
    roles: Vec<String>,
    allows: Allows,
}

struct Known {
    uid: u64,
    name: String,
    key: Option<KeyId>,
    application: Option<String>,
}

impl Identity {
    pub(super) fn of(identity: &pipeline::Identity<'_>) -> Self {
        let known = identity.uid().map(|uid| Known {
            uid,
            name: identity.name().unwrap_or_default().to_owned(),
            key: identity.key(),
            application: identity.application().map(|one| one.record.id.clone()),
        });
        Self(Arc::new(Facts { known, roles: identity.roles().to_vec(), allows: identity.allows() }))
    }

    /// Whether nobody stands behind the request.
    pub fn is_anonymous(&self) -> bool {
        self.0.known.is_none()
    }

    /// The user's number; none: anonymous.
    pub fn uid(&self) -> Option<u64> {
        self.0.known.as_ref().map(|known| known.uid)
    }

    /// The user's name; none: anonymous.
    pub fn name(&self) -> Option<&str> {
        self.0.known.as_ref().map(|known| known.name.as_str())
    }

    /// The ids of its roles, sorted, without `authenticated`.
    pub fn roles(&self) -> &[String] {
        &self.0.roles
    }

    /// The public id of the key that was used; none: another credential.
    pub fn key(&self) -> Option<KeyId> {
        self.0.known.as_ref()?.key
    }

    /// The id of the application that it came through; none: anonymous.
    pub fn application(&self) -> Option<&str> {
        self.0.known.as_ref()?.application.as_deref()
    }

    /// Whether it has this permission: from a role, and within its key's scopes.
    pub fn has(&self, permission: &str) -> bool {
        (self.0.allows)(permission)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?}, key {:?})", self.uid(), self.key())
    }
}
