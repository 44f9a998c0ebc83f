//! What a request is decided by, as it stands at one moment. What changes while it is being decided concerns the next one.

use std::sync::Arc;

use crate::store::Policy;

/// Roles, applications and resources at one moment: one request is decided by one scene, from its route to its answer.
pub struct Scene {
    /// Roles, applications and resources.
    pub policy: Arc<Policy>,
}
