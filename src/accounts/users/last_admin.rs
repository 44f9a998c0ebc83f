//! Somebody can always administer.
//!
//! A change that takes an administrator's standing away names a witness: an active user who administers after it. The commit happens only if
//! the witness and its role are as they were seen, so two changes at one moment cannot each rely on the administrator that the other removes.

use super::uid_key;
use crate::{
    accounts::{AccountError, Accounts, Versioned},
    model::{Role, User},
    store::{Batch, State, Table},
};

impl Accounts {
    /// Refuses a change to a user, or its deletion, that would leave nobody who may administer.
    pub(in crate::accounts) fn keep_an_administrator(
        &self,
        before: &User,
        after: Option<&User>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        if self.administrators_role(before, None)?.is_none() {
            return Ok(());
        }
        if let Some(after) = after
            && let Some(role) = self.administrators_role(after, None)?
        {
            expect_role(batch, &role);
            return Ok(());
        }
        if self.find_witness(Some(before.uid), None, batch)? {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("{} is the last active administrator.", before.name),
            "Give another active user an administrator's role first.",
        ))
    }

    /// Refuses a change to a role, or its deletion, that would leave nobody who may administer.
    pub(in crate::accounts) fn keep_an_administrators_role(
        &self,
        before: &Role,
        after: Option<&Role>,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let stays = after.is_some_and(|role| role.is_admin);
        if !before.is_admin || stays || self.find_witness(None, Some(&before.id), batch)? {
            return Ok(());
        }
        if self.directory().administrators().is_empty() {
            return Ok(());
        }
        Err(AccountError::refused(
            format!("All active administrators have their standing from the role {}.", before.id),
            "Give one of them another administrator's role first.",
        ))
    }

    /// Finds somebody who administers, without this user and without this role, and asks that it stays so until the commit.
    fn find_witness(
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
            if let Some(role) = self.administrators_role(&user.record, without_role)? {
                batch.expect(Table::Users, uid_key(uid), State::Revision(user.revision));
                expect_role(batch, &role);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The role through which a user administers, as the store has it.
    fn administrators_role(
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
    batch.expect(Table::Roles, role.record.id.as_str(), State::Revision(role.revision));
}
