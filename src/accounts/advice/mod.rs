//! Advice about valid changes that may not be what the person meant: a guard that goes away, and
//! permissions that nothing else knows. Advice never refuses a change.

mod guards;
mod permissions;

use super::Accounts;
use crate::model::{Resource, Role};

impl Accounts {
    /// Advice about a new or changed resource, as sentences. `before` is `None` for a new resource.
    pub(crate) fn advice_on_resource(
        &self,
        before: Option<&Resource>,
        after: &Resource,
    ) -> Vec<String> {
        let mut advice = before.map_or_else(Vec::new, |before| guards::lost(before, after));
        advice.extend(guards::unguarded_new_methods(before, after));
        advice.extend(self.unknown_permissions_of_resource(before, after));
        advice
    }

    /// Advice about a new or changed role, as sentences. `before` is `None` for a new role.
    pub(crate) fn advice_on_role(&self, before: Option<&Role>, after: &Role) -> Vec<String> {
        self.unknown_permissions_of_role(before, after)
    }
}
