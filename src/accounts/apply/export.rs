//! Exports the records as a state document. Stores with equal records export equal bytes.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::record::StateRecord;
use crate::{
    accounts::{AccountError, Accounts, AdminReader},
    model::{Application, Key, Resource, Role, User},
    store::{Snapshot, StoreError, decode},
};

/// The version of the format of state documents.
pub const VERSION: u64 = 1;

/// The comment at the beginning of a document.
const HEADER: &str = "\
# Roles, applications, resources, users and keys of a Keyward, written by keyward export.
# Keep this file secret: it has digests of keys and passwords.
# keyward apply changes a store to match this file; with --dry-run it only shows the changes.
";

#[derive(Serialize)]
struct ExportedDocument {
    version: u64,
    pepper: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    applications: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    users: Vec<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keys: Vec<Map<String, Value>>,
}

impl AdminReader<'_> {
    /// Exports all records that decisions depend on, from one snapshot of the store. Writers wait
    /// until the export ends.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn export(&self) -> Result<String, AccountError> {
        let accounts = Accounts::clone(self);
        let export = tokio::task::spawn_blocking(move || {
            let document = ExportedDocument::read(&accounts)?;
            let text = toml::to_string(&document).map_err(|problem| {
                let fix = "Change the record that contains this value.";
                let message = format!("The records cannot be written as TOML: {problem}.");
                AccountError::refused(message, fix)
            })?;
            Ok(format!("{HEADER}\n{text}"))
        });
        let aborted = |_| AccountError::refused("The records could not be read.", "Try again.");
        export.await.map_err(aborted)?
    }
}

impl ExportedDocument {
    fn read(accounts: &Accounts) -> Result<Self, AccountError> {
        let snapshot = accounts.store().snapshot()?;
        let mut names = HashMap::new();
        let users = all::<User>(&*snapshot, |user| {
            names.insert(user.uid, user.name.clone());
            Some(user.view(&|_| None))
        })?;
        let name = |uid: u64| names.get(&uid).cloned();
        Ok(Self {
            version: VERSION,
            pepper: accounts.pepper().fingerprint().to_hex(),
            roles: all::<Role>(&*snapshot, |record| Some(record.view(&name)))?,
            applications: all::<Application>(&*snapshot, |record| Some(record.view(&name)))?,
            resources: all::<Resource>(&*snapshot, |record| Some(record.view(&name)))?,
            users,
            // The keys of a user who was just deleted are left out, because the other writer is
            // about to delete them.
            keys: all::<Key>(&*snapshot, |key| name(key.user).map(|_| key.view(&name)))?,
        })
    }
}

/// The fields of all records of a kind. `view` returns `None` for a record that is left out.
fn all<T: StateRecord>(
    snapshot: &dyn Snapshot,
    mut view: impl FnMut(&T) -> Option<Map<String, Value>>,
) -> Result<Vec<Map<String, Value>>, StoreError> {
    let mut views = Vec::new();
    snapshot.each(T::TABLE, &mut |key, record| {
        views.extend(view(&decode(T::TABLE, key, record.json)?));
        Ok(())
    })?;
    Ok(views)
}
