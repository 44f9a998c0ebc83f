//! Somebody can always administer, and nobody shuts the door on itself.

use super::plan::Plan;
use crate::{
    accounts::{AccountError, Accounts},
    directory::Policy,
    model::{Actor, AuthType, KeyId},
};

const SHUT_OUT: &str =
    "Have another administrator apply it, or the operator at the machine with keyward apply.";

impl Plan {
    /// Refuses a plan after which nobody may administer. Returns who may.
    pub fn keep_an_administrator(
        &self,
        accounts: &Accounts,
        world: &Accounts,
    ) -> Result<Option<u64>, AccountError> {
        let after = world.directory().administrators();
        if let Some(uid) = after.first() {
            return Ok(Some(*uid));
        }
        if self.is_new {
            return Err(AccountError::refused(
                "There would be no active administrator in the new store.",
                "Give the file an active user with an administrator's role, or run keyward init first.",
            ));
        }
        match accounts.directory().administrators().as_slice() {
            [] => Ok(None),
            _ => Err(AccountError::refused(
                "There would be no active administrator any more.",
                "Keep an active user with an administrator's role in the file.",
            )),
        }
    }

    /// Refuses a plan after which whoever carries it out could not take it back.
    pub fn keep_the_caller(
        &self,
        accounts: &Accounts,
        world: &Accounts,
        actor: &Actor,
    ) -> Result<(), AccountError> {
        let Actor::User { uid, name, key, application, client } = actor else { return Ok(()) };
        let shut = |what: String| Err(AccountError::refused(what, SHUT_OUT));
        let directory = world.directory();
        let policy = directory.policy();
        let Some(member) = directory.user(*uid).filter(|member| member.is_active) else {
            return shut(format!("You would shut yourself out: the user {name} is you."));
        };
        if !member.roles(&policy.roles).is_admin {
            return shut(format!(
                "You would shut yourself out: {name} would be no administrator any more."
            ));
        }
        if !policy.applications.get(application).is_some_and(|one| one.record.enabled) {
            return shut(format!(
                "You would shut yourself out: you came through the application {application}."
            ));
        }
        let now = accounts.directory().policy();
        let read = |policy: &Policy| {
            let record = &policy.applications.get(application)?.record;
            Some((record.auth_type.clone(), record.key_source, record.header.clone()))
        };
        if read(&now) != read(&policy) {
            return shut(format!(
                "You would shut yourself out: you came through the application {application}, which would read another credential."
            ));
        }
        let by_password = read(&policy).is_some_and(|(kind, ..)| kind == AuthType::Basic);
        if by_password && member.password().is_none() {
            return shut(format!("You would shut yourself out: {name} would have no password."));
        }
        let Some(id) = key else { return Ok(()) };
        let now = accounts.clock().now();
        let opens = world.key(*id)?.is_some_and(|key| {
            let key = key.record;
            let networks = &key.networks;
            key.is_in_force(now)
                && key.scopes.is_none()
                && key.application.as_ref().is_none_or(|bound| bound == application)
                && (networks.is_empty() || networks.iter().any(|one| one.contains(client)))
        });
        match opens {
            true => Ok(()),
            false => shut(closed(*id)),
        }
    }
}

fn closed(id: KeyId) -> String {
    format!("You would shut yourself out: you use the key {id}, which would not open any more.")
}
