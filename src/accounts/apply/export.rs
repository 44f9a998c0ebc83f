//! A store as a file: the same records are the same bytes.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::record::Kind;
use crate::{
    accounts::{AccountError, Accounts, AdminWriter},
    model::{Application, Key, Resource, Role, User},
    store::{Snapshot, StoreError, decode},
};

/// The version of the file's form.
pub const VERSION: u64 = 1;

/// What a file begins with.
const HEAD: &str = "\
# The state of a Keyward: roles, applications, resources, users and keys, as keyward export wrote them.
# Keys and passwords are here as digests. They are no secrets to type, and still nobody's business: keep this file to yourself.
# keyward apply makes a store what this file says; with --dry-run it only tells what it would do.
";

#[derive(Serialize)]
struct Document {
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

impl AdminWriter<'_> {
    /// All that decisions are made from, as it is at this moment. Writers wait meanwhile.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn export(&self) -> Result<String, AccountError> {
        let accounts = Accounts::clone(self);
        let writing = tokio::task::spawn_blocking(move || {
            let document = Document::of(&accounts)?;
            let text = toml::to_string(&document).map_err(|problem| {
                let fix = "Change the record that holds it.";
                AccountError::refused(format!("The records cannot be written: {problem}."), fix)
            })?;
            Ok(format!("{HEAD}\n{text}"))
        });
        let gave_up = |_| AccountError::refused("The records could not be read.", "Try again.");
        writing.await.map_err(gave_up)?
    }
}

impl Document {
    fn of(accounts: &Accounts) -> Result<Self, AccountError> {
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
            roles: all::<Role>(&*snapshot, |one| Some(one.view(&name)))?,
            applications: all::<Application>(&*snapshot, |one| Some(one.view(&name)))?,
            resources: all::<Resource>(&*snapshot, |one| Some(one.view(&name)))?,
            users,
            // One of a user who has just gone is on its way out.
            keys: all::<Key>(&*snapshot, |key| name(key.user).map(|_| key.view(&name)))?,
        })
    }
}

fn all<T: Kind>(
    snapshot: &dyn Snapshot,
    mut view: impl FnMut(&T) -> Option<Map<String, Value>>,
) -> Result<Vec<Map<String, Value>>, StoreError> {
    let mut found = Vec::new();
    snapshot.each(T::TABLE, &mut |key, record| {
        found.extend(view(&decode(T::TABLE, key, record.json)?));
        Ok(())
    })?;
    Ok(found)
}
