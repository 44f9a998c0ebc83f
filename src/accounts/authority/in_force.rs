//! Changes on behalf of a caller: the permission is checked at the time of the change, and not only
//! at the time of the request.

use super::{Authority, Credential, forbidden};
use crate::{
    accounts::{AccountError, Accounts, Writer},
    model::Actor,
};

impl Authority {
    /// Refuses an actor whose account or key is not in force any more.
    fn require_in_force(&self, accounts: &Accounts) -> Result<(), AccountError> {
        let Some(user) = self.user() else { return Ok(()) };
        let account = accounts.directory().user(user.uid);
        if account.is_none_or(|account| !account.is_active) {
            return Err(forbidden("The account of the caller was blocked or deleted."));
        }
        // The key is read again, because a change may come long after its request.
        let key = match &user.credential {
            Credential::Unbound => return Ok(()),
            Credential::DeletedKey => None,
            Credential::Key(_) => user.key.and_then(|id| accounts.directory().key(id)),
        };
        let now = accounts.clock().now();
        if key.is_none_or(|key| key.is_revoked || key.is_expired(now)) {
            return Err(forbidden("The key of the caller was revoked or has expired."));
        }
        Ok(())
    }
}

impl Writer {
    /// Refuses an actor who does not have this permission now, or whose account or key is not in
    /// force any more. The program and the operator have every permission.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`].
    pub fn require_permission(&self, permission: &str) -> Result<(), AccountError> {
        self.authority().require_in_force(self)?;
        if self.authority().has(permission, self) {
            return Ok(());
        }
        Err(forbidden(format!("The '{permission}' permission is required.")))
    }
}

impl Accounts {
    /// A writer of the program itself: it may change everything, and no permission narrows it. For
    /// changes that a caller asks for, use
    /// [`Keyward::on_behalf_of`](crate::Keyward::on_behalf_of).
    pub fn unbounded(&self) -> Writer {
        self.as_actor(Actor::Program)
    }
}
