//! Connects scripts with accounts: the lookups that scripts may use, and the check that every
//! script named by a record exists.

use std::{path::Path, sync::Arc};

use super::Accounts;
use crate::{
    directory::{CachedUser, Directory},
    model::{KeyId, Timestamp},
    scripting::{
        FindMissing, KeyParts, KeyView, Records, RoleParts, RoleView, ScriptError, ScriptHost,
        ScriptKind, ScriptLimits, ScriptSet, ScriptTestGate, Scripts, Secrets, UserParts, UserView,
    },
};

impl Accounts {
    /// Loads the scripts of a folder for these accounts. Call this method once:
    /// [`Scripts::reload`] loads the scripts again.
    ///
    /// # Errors
    /// All faults of the scripts. If there is a fault, no script is in force. An error without a
    /// line if the accounts have scripts already: these stay in force.
    pub fn load_scripts(
        &self,
        folder: &Path,
        limits: ScriptLimits,
        secrets: Secrets,
        gate: Option<Arc<dyn ScriptTestGate>>,
    ) -> Result<(), Vec<ScriptError>> {
        if let Some(loaded) = self.0.scripts.get() {
            return Err(vec![already_loaded(loaded)]);
        }
        let records = Arc::new(DirectoryRecords(self.directory().clone()));
        let directory = self.directory().clone();
        let find_missing: FindMissing = Arc::new(move |set| missing_scripts(&directory, set));
        let clock = self.clock().clone();
        let webhooks = self.0.webhooks.names.clone();
        let host = ScriptHost {
            records,
            clock,
            secrets,
            webhooks,
            gate,
            find_missing: Some(find_missing),
        };
        let scripts = Scripts::load(folder, limits, host)?;
        // If two tasks load the scripts simultaneously, the first result stays in force.
        self.0.scripts.set(scripts).map_err(|_| vec![already_loaded(self.scripts())])
    }
}

fn already_loaded(loaded: &Scripts) -> ScriptError {
    let folder = loaded.folder().map(|folder| folder.display().to_string()).unwrap_or_default();
    ScriptError::of_folder(
        folder,
        "the scripts of this folder are in force for these accounts already. Call \
         accounts.scripts().reload() to load them again",
    )
}

/// The scripts that applications and resources name, but that are not in the set. A missing script
/// is an error: without it the server would skip a check.
fn missing_scripts(directory: &Directory, set: &ScriptSet) -> Vec<ScriptError> {
    let policy = directory.policy();
    let applications = policy.applications.all().filter_map(|application| {
        let name = application.auth_type.script()?;
        let owner = format!("the application {}", application.id);
        set.auth(name).is_none().then(|| ScriptError::missing(ScriptKind::Auth.file(name), &owner))
    });
    let resources = policy.routes.resources().filter_map(|resource| {
        let name = resource.handler.script()?;
        let owner = format!("the resource {}", resource.id);
        set.handler(name)
            .is_none()
            .then(|| ScriptError::missing(ScriptKind::Handler.file(name), &owner))
    });
    let mut missing: Vec<ScriptError> = applications.chain(resources).collect();
    missing.sort_by(|a, b| a.file.cmp(&b.file));
    missing
}

/// The lookups that scripts may make in the Directory, the copy of the records in memory.
struct DirectoryRecords(Arc<Directory>);

impl DirectoryRecords {
    fn view(&self, user: &CachedUser) -> UserView {
        let table = self.0.policy().roles.clone();
        let roles = user.roles(&table).clone();
        UserView::new(UserParts {
            uid: user.uid,
            name: user.name.to_string(),
            is_active: user.is_active,
            roles: roles.ids.to_vec(),
            attributes: user.attributes().clone(),
            allows: Arc::new(move |permission| table.allows(&roles, permission)),
        })
    }
}

impl Records for DirectoryRecords {
    fn user_by_name(&self, name: &str) -> Option<UserView> {
        self.0.user_by_name(name).map(|user| self.view(&user))
    }

    fn user_by_id(&self, uid: u64) -> Option<UserView> {
        // Scripts do not see the operator, who is in the Directory but is not a user.
        self.0.user(uid).filter(|user| !user.is_operator()).map(|user| self.view(&user))
    }

    fn key_by_id(&self, id: &str) -> Option<KeyView> {
        let key = self.0.key(KeyId::parse(id)?)?;
        Some(KeyView::new(KeyParts {
            id: id.to_owned(),
            user: key.user,
            is_revoked: key.is_revoked,
            expires: key.expiry().map(Timestamp),
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
