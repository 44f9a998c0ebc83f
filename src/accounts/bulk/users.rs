//! Changes or deletes many users.

use super::{MOST_CHANGED, MOST_READ, MOST_WRITES, PartOfMany, UserSelection};
use crate::{
    accounts::{
        AccountError, Versioned, Writer,
        rules::{check_user, ensure_valid},
        users::normalize_roles,
        writer::{Attempt, PendingCommit},
    },
    model::{Act, Mode, Role, User, Violation},
    store::Batch,
};

/// A request for one part of a change of many users.
#[derive(Debug, Clone)]
pub struct ChangeMany {
    /// The users.
    pub selection: UserSelection,
    /// The change.
    pub change: ManyUsers,
    /// Whether the change is written.
    pub mode: Mode,
    /// The uid after which the part begins. `None` means that the part begins with the first user.
    pub after: Option<u64>,
}

/// A change of many users.
#[derive(Debug, Clone)]
pub enum ManyUsers {
    /// Each user is changed.
    Edit(UserEdit),
    /// Each user is deleted, with the user's keys.
    Delete,
}

/// A change that is the same for many users.
#[derive(Debug, Clone, Default)]
pub struct UserEdit {
    /// The roles that the users get.
    pub add_roles: Vec<String>,
    /// The roles that the users lose.
    pub remove_roles: Vec<String>,
    /// Whether the users are active or blocked. `None` means that this stays.
    pub active: Option<bool>,
}

/// A part while it is collected.
#[derive(Default)]
struct Draft {
    part: PartOfMany,
    batch: Batch,
    acts: Vec<Act>,
    /// The deleted users.
    deleted: Vec<u64>,
    /// The administrators. Each of them is changed in a commit of its own, because the rule that an
    /// administrator remains is about one change.
    administrators: Vec<User>,
}

impl Writer {
    /// Changes the selected users among the next users. Users whom the actor may not change are
    /// left out and counted.
    ///
    /// # Errors
    /// A role does not exist, or the store cannot write. Then nothing of this part is changed,
    /// except administrators, who are changed after the others.
    pub async fn change_many_users(&self, many: &ChangeMany) -> Result<PartOfMany, AccountError> {
        if let ManyUsers::Edit(edit) = &many.change {
            ensure_valid(self.unknown_roles(edit))?;
        }
        let attempt = || {
            let mut draft = self.draft_many(many)?;
            let Some(last) = draft.acts.pop() else { return Ok(Attempt::Unchanged(draft)) };
            let (batch, entries) = (std::mem::take(&mut draft.batch), draft.acts.split_off(0));
            let pending = PendingCommit::new(batch, last, move |_| draft);
            Ok::<_, AccountError>(pending.with_entries(entries).into())
        };
        let Draft { mut part, deleted, administrators, .. } = self.update(attempt).await?;
        for uid in deleted {
            self.delete_late_keys(uid).await?;
        }
        for user in administrators {
            self.cancel().check()?;
            match self.change_administrator(many, user.uid).await {
                Ok(true) => part.count_changed(user.uid, &user.name),
                Ok(false) => part.unchanged += 1,
                Err(problem) => part.leave_out(problem)?,
            }
        }
        Ok(part)
    }

    fn unknown_roles(&self, edit: &UserEdit) -> Vec<Violation> {
        let policy = self.directory().policy();
        let is_unknown = |id: &&String| policy.roles.role(id).is_none() || Role::is_locked(id);
        let unknown = edit.add_roles.iter().filter(is_unknown);
        let violation = |id: &String| {
            let message = format!("There is no role {id:?} that a user can get.");
            Violation::new("add_roles", message, "Name an existing role, or create the role first.")
        };
        unknown.map(violation).collect()
    }

    fn draft_many(&self, many: &ChangeMany) -> Result<Draft, AccountError> {
        let mut draft = Draft::default();
        let page = self.users(many.after, MOST_READ)?;
        let mut last = None;
        let mut is_full = false;
        for user in page.items {
            last = Some(user.record.uid);
            if many.selection.selects(&user.record) {
                draft.part.matched += 1;
                self.add_to_draft(many, &user, &mut draft)?;
            }
            is_full = draft.acts.len() + draft.administrators.len() >= MOST_CHANGED
                || draft.batch.writes.len() >= MOST_WRITES;
            if is_full {
                break;
            }
        }
        draft.part.next = last.filter(|_| is_full || page.has_more);
        Ok(draft)
    }

    fn add_to_draft(
        &self,
        many: &ChangeMany,
        before: &Versioned<User>,
        draft: &mut Draft,
    ) -> Result<(), AccountError> {
        let user = &before.record;
        if many.mode == Mode::Live && self.has_admin_role(&user.roles) {
            draft.administrators.push(user.clone());
            return Ok(());
        }
        let (batch, act) = match self.many_batch(many, before) {
            Ok(Some(change)) => change,
            Ok(None) => {
                draft.part.unchanged += 1;
                return Ok(());
            }
            Err(problem) => return draft.part.leave_out(problem),
        };
        draft.part.count_changed(user.uid, &user.name);
        if many.mode == Mode::Live {
            draft.batch.expects.extend(batch.expects);
            draft.batch.writes.extend(batch.writes);
            draft.acts.push(self.hide_credentials(act));
            if matches!(many.change, ManyUsers::Delete) {
                draft.deleted.push(user.uid);
            }
        }
        Ok(())
    }

    /// The change of one user. `None` means that the user stays unchanged.
    fn many_batch(
        &self,
        many: &ChangeMany,
        before: &Versioned<User>,
    ) -> Result<Option<(Batch, Act)>, AccountError> {
        let uid = before.record.uid;
        let ManyUsers::Edit(edit) = &many.change else {
            self.require_change_of(&before.record)?;
            let act = Act::delete("user", uid, &before.record);
            return Ok(Some((self.deletion_batch(before)?, act)));
        };
        let mut user = before.record.clone();
        edit.apply(&mut user);
        if user == before.record {
            return Ok(None);
        }
        self.authority().check_user(Some(&before.record), &user, self)?;
        ensure_valid(check_user(self, &user))?;
        user.changed = self.clock().now();
        let act = Act::change("user", "change", uid, &before.record, &user);
        Ok(Some((self.change_batch(before, &user)?, act)))
    }

    /// Changes an administrator. Returns whether anything was changed.
    async fn change_administrator(
        &self,
        many: &ChangeMany,
        uid: u64,
    ) -> Result<bool, AccountError> {
        let before = self.current_user(uid)?;
        if !many.selection.selects(&before.record) {
            return Ok(false);
        }
        match &many.change {
            ManyUsers::Delete => {
                self.delete_user(uid, Some(before.revision)).await?;
                Ok(true)
            }
            ManyUsers::Edit(edit) => {
                let change = |user: &mut User| {
                    edit.apply(user);
                    Ok::<_, AccountError>(())
                };
                let after = self.change_user(uid, None, change).await?;
                Ok(after.revision != before.revision)
            }
        }
    }
}

impl UserEdit {
    fn apply(&self, user: &mut User) {
        user.roles.retain(|role| !self.remove_roles.contains(role));
        user.roles.extend(self.add_roles.iter().cloned());
        normalize_roles(&mut user.roles);
        user.status = self.active.unwrap_or(user.status);
    }
}

impl PartOfMany {
    /// Counts a record that the actor may not change, or whose change breaks a rule.
    ///
    /// # Errors
    /// Any other problem.
    pub(super) fn leave_out(&mut self, problem: AccountError) -> Result<(), AccountError> {
        match problem {
            AccountError::AdminOnly | AccountError::Forbidden { .. } => {
                self.left_out.forbidden += 1
            }
            AccountError::Invalid(_)
            | AccountError::Refused { .. }
            | AccountError::Stale { .. }
            | AccountError::NotFound { .. } => self.left_out.refused += 1,
            other => return Err(other),
        }
        Ok(())
    }
}
