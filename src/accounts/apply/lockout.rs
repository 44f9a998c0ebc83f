//! Refuses a plan that would leave no active administrator, or that would lock the caller out.

use super::plan::Plan;
use crate::{
    accounts::{AccountError, Accounts},
    directory::Policy,
    model::{Actor, AuthType},
};

const LOCKOUT_FIX: &str =
    "Ask another administrator to apply the file, or run keyward apply on the server's machine.";

impl Plan {
    /// Refuses a plan that would leave no active administrator. Returns the uid of an administrator
    /// who remains. `None` means that the store has no administrator, before or after the plan.
    pub fn keep_an_administrator(
        &self,
        accounts: &Accounts,
        planned: &Accounts,
    ) -> Result<Option<u64>, AccountError> {
        if let Some(uid) = planned.directory().administrators().first() {
            return Ok(Some(*uid));
        }
        if self.is_new {
            return Err(AccountError::refused(
                "There would be no active administrator in the new store.",
                "Add an active administrator to the file, or run keyward init first.",
            ));
        }
        if accounts.directory().administrators().is_empty() {
            return Ok(None);
        }
        Err(AccountError::refused(
            "There would be no active administrator any more.",
            "Keep at least one active user with an administrator's role in the file.",
        ))
    }

    /// Refuses a plan after which the caller could no longer administer the server. The caller
    /// could not undo such a plan.
    pub fn keep_the_caller(
        &self,
        accounts: &Accounts,
        planned: &Accounts,
        actor: &Actor,
    ) -> Result<(), AccountError> {
        let Actor::User { uid, name, key, application, client } = actor else { return Ok(()) };
        let lockout = |reason: String| {
            Err(AccountError::refused(
                format!("You would lock yourself out: {reason}."),
                LOCKOUT_FIX,
            ))
        };
        let directory = planned.directory();
        let policy = directory.policy();
        let Some(user) = directory.user(*uid).filter(|user| user.is_active) else {
            return lockout(format!("your user {name} would be removed or blocked"));
        };
        if !user.roles(&policy.roles).is_admin {
            return lockout(format!("{name} would no longer be an administrator"));
        }
        if !policy.applications.get(application).is_some_and(|found| found.record.enabled) {
            return lockout(format!(
                "the application {application}, which you use, would be removed or disabled"
            ));
        }
        let current = accounts.directory().policy();
        let credential = |policy: &Policy| {
            let record = &policy.applications.get(application)?.record;
            Some((record.auth_type.clone(), record.key_source, record.header.clone()))
        };
        if credential(&current) != credential(&policy) {
            return lockout(format!(
                "the application {application}, which you use, would read another credential"
            ));
        }
        let uses_password = credential(&policy).is_some_and(|(kind, ..)| kind == AuthType::Basic);
        if uses_password && user.password().is_none() {
            return lockout(format!("{name} would have no password"));
        }
        let Some(id) = key else { return Ok(()) };
        let now = accounts.clock().now();
        let is_accepted = planned.key(*id)?.is_some_and(|key| {
            let key = key.record;
            let networks = &key.networks;
            key.is_in_force(now)
                && key.scopes.is_none()
                && key.application.as_ref().is_none_or(|bound| bound == application)
                && (networks.is_empty() || networks.iter().any(|network| network.contains(client)))
        });
        if is_accepted {
            return Ok(());
        }
        lockout(format!("the key {id}, which you use, would no longer be accepted"))
    }
}
