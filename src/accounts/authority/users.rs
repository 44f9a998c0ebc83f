//! Accounts of users: their roles, passwords and other credentials.

use super::{Authority, BOUND, forbidden};
use crate::{
    accounts::{AccountError, Accounts},
    model::{Act, SECRET_PLACEHOLDER, User},
};

impl Authority {
    /// Refuses the change or deletion of an administrator's account, unless the actor is an
    /// administrator, or the owner with a credential without scopes.
    pub fn require_change_of(
        &self,
        account: &User,
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        let is_unscoped_owner =
            self.is_owner(account.uid) && self.scopes().is_none() && !self.uses_universal_key();
        self.admin_only_if(!is_unscoped_owner && accounts.has_admin_role(&account.roles))
    }

    /// Checks a new or changed account. `before` is `None` for a new account.
    pub fn check_user(
        &self,
        before: Option<&User>,
        after: &User,
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        let was_admin = match before {
            Some(before) => {
                self.require_change_of(before, accounts)?;
                accounts.has_admin_role(&before.roles)
            }
            None => false,
        };
        self.admin_only_if(!was_admin && accounts.has_admin_role(&after.roles))?;
        let old_roles = before.map_or(&[][..], |before| &before.roles);
        self.check_granted_roles(after.uid, old_roles, &after.roles, accounts)?;
        self.check_credentials(before, after, accounts)
    }

    /// Refuses an added role if it has a permission that the scopes of the credential do not
    /// contain, and every role that a bound credential would add to its own user.
    pub fn check_granted_roles(
        &self,
        uid: u64,
        before: &[String],
        after: &[String],
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        let policy = accounts.directory().policy();
        let mut added = after.iter().filter(|id| !before.contains(id)).peekable();
        if added.peek().is_some() && self.is_bound() && self.is_owner(uid) {
            return Err(forbidden(format!("{BOUND} cannot add roles to its own user.")));
        }
        let mut added = added.filter_map(|id| policy.roles.role(id));
        let is_in_scope = |role: &crate::model::Role| {
            self.scopes().is_none()
                || !role.is_admin && role.permissions.iter().all(|name| self.is_in_scope(name))
        };
        if added.all(is_in_scope) {
            return Ok(());
        }
        Err(forbidden(
            "A key with scopes can only grant a role if the scopes contain all permissions of the \
             role.",
        ))
    }

    /// Refuses a new password, or a changed attribute that an authentication script takes for a
    /// credential, if the credential in use is bound. Such a credential has no bounds, so the actor
    /// could escape from them. Owners who prove their current password may change it.
    fn check_credentials(
        &self,
        before: Option<&User>,
        after: &User,
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        let old_password = before.and_then(|before| before.password.as_ref());
        if after.password.as_ref() != old_password {
            let has_proof = self.user().is_some_and(|user| user.has_proved_password);
            if !(has_proof && self.is_owner(after.uid)) || self.uses_universal_key() {
                self.check_may_set_passwords()?;
            }
        }
        match accounts.changed_credential_attribute(before, after) {
            Some(name) if self.is_bound() => Err(forbidden(format!(
                "{BOUND} cannot change the attribute {name}, which an authentication type takes \
                 for a credential, and neither can a universal key."
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses new passwords if the credential in use is bound. Authentication with a password has
    /// no bounds.
    pub fn check_may_set_passwords(&self) -> Result<(), AccountError> {
        if !self.is_bound() {
            return Ok(());
        }
        Err(forbidden(format!("{BOUND} cannot set passwords, and neither can a universal key.")))
    }
}

impl Accounts {
    /// The name of an attribute that an authentication script takes for a credential and that
    /// differs between two versions of an account. `None` means that no such attribute differs.
    pub(in crate::accounts) fn changed_credential_attribute(
        &self,
        before: Option<&User>,
        after: &User,
    ) -> Option<String> {
        let names = self.credential_attributes();
        let old = |name: &str| before.and_then(|before| before.attributes.get(name));
        names.into_iter().find(|name| old(name) != after.attributes.get(name))
    }

    /// Whether a change replaces the value of an attribute that an authentication script takes for
    /// a credential. Keys that were adopted because of the old value must end. The removal of the
    /// attribute ends a migration, after which adopted keys work on.
    pub(in crate::accounts) fn replaces_credential_attribute(
        &self,
        before: &User,
        after: &User,
    ) -> bool {
        self.credential_attributes().iter().any(|name| {
            let (old, new) = (before.attributes.get(name), after.attributes.get(name));
            old.is_some() && new.is_some() && old != new
        })
    }

    /// Replaces the values of attributes that authentication scripts take for credentials, because
    /// the audit trail contains no credential.
    pub(in crate::accounts) fn hide_credentials(&self, mut act: Act) -> Act {
        let names = self.credential_attributes();
        for side in [&mut act.before, &mut act.after] {
            let attributes = side.as_mut().and_then(|side| side.get_mut("attributes"));
            let Some(attributes) = attributes.and_then(|value| value.as_object_mut()) else {
                continue;
            };
            for (name, value) in attributes {
                // Scripts that are not loaded may take any attribute for a credential.
                if names.contains(name) || !self.has_all_scripts() {
                    *value = SECRET_PLACEHOLDER.into();
                }
            }
        }
        act
    }
}
