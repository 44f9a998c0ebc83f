//! Roles: nobody adds a permission that they do not have.

use super::{Authority, forbidden};
use crate::{
    accounts::{AccountError, Accounts},
    model::Role,
};

impl Authority {
    /// Checks a new, changed or deleted role. `before` is `None` for a new role, `after` is `None`
    /// for a deletion.
    pub fn check_role(
        &self,
        before: Option<&Role>,
        after: Option<&Role>,
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        let is_admin_role = |role: Option<&Role>| role.is_some_and(|role| role.is_admin);
        self.admin_only_if(is_admin_role(before) || is_admin_role(after))?;
        let old = before.map(|role| &role.permissions);
        let permissions = after.iter().flat_map(|role| &role.permissions);
        let mut added = permissions.filter(|name| old.is_none_or(|old| !old.contains(*name)));
        if added.any(|permission| !self.has(permission, accounts)) {
            return Err(forbidden("You can only grant permissions that you have."));
        }
        Ok(())
    }
}
