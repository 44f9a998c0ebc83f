//! The rule that an active administrator always remains.
//!
//! A change that removes an administrator is allowed only if another active administrator remains.
//! The commit of the change expects that the remaining user and that user's role are unchanged. So
//! of two simultaneous changes, neither can rely on an administrator whom the other change removes.

use crate::{
    accounts::{AccountError, Accounts, Versioned},
    model::{Role, User},
    store::{Batch, Expected, Table, table},
};

impl Accounts {
    /// Refuses a change of a user that would leave no active administrator. `after` is `None` for a
    /// deletion.
    pub(in crate::accounts) fn require_remaining_admin(
        &self,
        before: &User,
        after: Option<&User>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        if self.admin_role(before, None)?.is_none() {
            return Ok(());
        }
        if let Some(after) = after
            && let Some(role) = self.admin_role(after, None)?
        {
            expect_role(batch, &role);
            return Ok(());
        }
        if self.expect_other_admin(Some(before.uid), None, batch)? {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("{} is the last active administrator.", before.name),
            "Give another active user an administrator's role first.",
        ))
    }

    /// Refuses a change of a role that would leave no active administrator. `after` is `None` for a
    /// deletion.
    pub(in crate::accounts) fn require_remaining_admin_role(
        &self,
        before: &Role,
        after: Option<&Role>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let stays_admin = after.is_some_and(|role| role.is_admin);
        if !before.is_admin
            || stays_admin
            || self.expect_other_admin(None, Some(&before.id), batch)?
        {
            return Ok(());
        }
        if self.directory().administrators().is_empty() {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("All active administrators get their rights from the role {}.", before.id),
            "Give one of them another administrator's role first.",
        ))
    }

    /// Looks for an active administrator other than `without_user`, whose rights come from a role
    /// other than `without_role`. If one is found, adds the expectation that the user and the role
    /// are unchanged until the commit, and returns `true`.
    fn expect_other_admin(
        &self,
        without_user: Option<u64>,
        without_role: Option<&str>,
        batch: &mut Batch,
    ) -> Result<bool, AccountError> {
        for uid in self.directory().administrators() {
            if without_user == Some(uid) {
                continue;
            }
            let Some(user) = self.user(uid)? else { continue };
            if let Some(role) = self.admin_role(&user.record, without_role)? {
                batch.expect(Table::Users, table::user(uid), Expected::Revision(user.revision));
                expect_role(batch, &role);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads from the store the first role that makes an active user an administrator, other than
    /// the role `without`. `None` means that the user is blocked or has no such role.
    fn admin_role(
        &self,
        user: &User,
        without: Option<&str>,
    ) -> Result<Option<Versioned<Role>>, AccountError> {
        if !user.status {
            return Ok(None);
        }
        for id in user.roles.iter().filter(|id| without != Some(id)) {
            if let Some(role) = self.get::<Role>(id)?.filter(|role| role.record.is_admin) {
                return Ok(Some(role));
            }
        }
        Ok(None)
    }
}

fn expect_role(batch: &mut Batch, role: &Versioned<Role>) {
    batch.expect(Table::Roles, role.record.id.as_str(), Expected::Revision(role.revision));
}
