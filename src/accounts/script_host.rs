//! What scripts need of the accounts, and what the accounts need of the scripts.

use std::{path::Path, sync::Arc};

use super::Accounts;
use crate::{
    directory::{CachedUser, Directory},
    model::{KeyId, Timestamp},
    scripting::{
        Host, KeyParts, KeyView, Kind, Limits, Needs, Records, RoleParts, RoleView, ScriptError,
        ScriptTestGate, Scripts, Secrets, Set, UserParts, UserView,
    },
};

impl Accounts {
    /// Loads the scripts of a folder for these accounts. Once; they are loaded again through their handle.
    ///
    /// # Errors
    /// All that is wrong with them. None are in force then.
    pub fn load_scripts(
        &self,
        folder: &Path,
        limits: Limits,
        secrets: Secrets,
        gate: Option<Arc<dyn ScriptTestGate>>,
    ) -> Result<(), Vec<ScriptError>> {
        let records = Arc::new(LookUps(self.directory().clone()));
        let directory = self.directory().clone();
        let needs: Needs = Arc::new(move |set| missing(&directory, set));
        let clock = self.clock().clone();
        let webhooks = self.0.outbox.names.clone();
        let host = Host { records, clock, secrets, webhooks, gate, needs: Some(needs) };
        let scripts = Scripts::load(folder, limits, host)?;
        // Whoever comes second finds those that are there.
        let _ = self.0.scripts.set(scripts);
        Ok(())
    }
}

/// The scripts that the records name and a set does not have: a hook that is configured and missing must not be passed over.
fn missing(directory: &Directory, set: &Set) -> Vec<ScriptError> {
    let policy = directory.policy();
    let applications = policy.applications.all().filter_map(|application| {
        let name = application.auth_type.script()?;
        let owner = format!("the application {}", application.id);
        set.auth(name).is_none().then(|| ScriptError::missing(Kind::Auth.file(name), &owner))
    });
    let resources = policy.routes.resources().filter_map(|resource| {
        let name = resource.handler.script()?;
        let owner = format!("the resource {}", resource.id);
        set.handler(name).is_none().then(|| ScriptError::missing(Kind::Handler.file(name), &owner))
    });
    let mut missing: Vec<ScriptError> = applications.chain(resources).collect();
    missing.sort_by(|a, b| a.file.cmp(&b.file));
    missing
}

/// The Directory, as scripts may ask it.
struct LookUps(Arc<Directory>);

impl LookUps {
    fn view(&self, member: &CachedUser) -> UserView {
        let table = self.0.policy().roles.clone();
        let roles = member.roles(&table).clone();
        UserView::new(UserParts {
            uid: member.uid,
            name: member.name.to_string(),
            is_active: member.is_active,
            roles: roles.ids.to_vec(),
            attributes: member.attributes().clone(),
            allows: Arc::new(move |permission| table.allows(&roles, permission)),
        })
    }
}

impl Records for LookUps {
    fn user_by_name(&self, name: &str) -> Option<UserView> {
        self.0.user_by_name(name).map(|member| self.view(&member))
    }

    fn user_by_id(&self, uid: u64) -> Option<UserView> {
        // The person at the machine is no user.
        self.0.user(uid).filter(|member| !member.is_operator()).map(|member| self.view(&member))
    }

    fn key_by_id(&self, id: &str) -> Option<KeyView> {
        let key = self.0.key(KeyId::parse(id)?)?;
        Some(KeyView::new(KeyParts {
            id: id.to_owned(),
            user: key.user,
            is_revoked: key.is_revoked,
            expires: key.ends().map(Timestamp),
            application: key.application().map(str::to_owned),
            scopes: key.scopes().map(|scopes| scopes.to_vec()),
            networks: key.networks().iter().map(ToString::to_string).collect(),
        }))
    }

    fn role(&self, id: &str) -> Option<RoleView> {
        let policy = self.0.policy();
        let role = policy.roles.role(id)?;
        Some(RoleView::new(RoleParts {
            id: role.id.clone(),
            label: role.label.clone(),
            is_admin: role.is_admin,
            permissions: role.permissions.iter().cloned().collect(),
        }))
    }
}
