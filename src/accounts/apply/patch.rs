//! The current records that a partial document is merged into.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{change::PlannedChange, plan::Plan, record::StateRecord};
use crate::{
    accounts::{AccountError, Accounts, Versioned},
    model::{Application, Key, KeyId, Resource, Role, User, fold},
    store::{Sequence, Table},
};

/// The revisions of the records that a partial document was merged into, by list and index. `None`
/// as a revision means that there was no record. Records that are not in the map were not merged.
#[derive(Debug, Clone, Default)]
pub struct PatchBases(BTreeMap<(&'static str, usize), Option<Sequence>>);

impl PatchBases {
    /// Adds the revision of a record that was merged.
    pub fn insert(&mut self, list: &'static str, index: usize, revision: Option<Sequence>) {
        self.0.insert((list, index), revision);
    }
}

impl Accounts {
    /// The record that a record of a document stands for, in the form of a document, with its
    /// revision. `None` means that the record of the document is new, or does not say which record
    /// it is.
    ///
    /// # Errors
    /// The store failed.
    pub(crate) fn state_record(
        &self,
        list: &str,
        record: &Map<String, Value>,
    ) -> Result<Option<Versioned<Map<String, Value>>>, AccountError> {
        let id = record.get("id").and_then(Value::as_str).unwrap_or_default();
        match list {
            Role::LIST => self.state_fields(self.get::<Role>(id)?),
            Application::LIST => self.state_fields(self.get::<Application>(id)?),
            Resource::LIST => self.state_fields(self.get::<Resource>(id)?),
            User::LIST => {
                let name = record.get("name").and_then(Value::as_str);
                let uid = match (record.get("uid").and_then(Value::as_u64), name) {
                    (Some(uid), _) => Some(uid),
                    (None, Some(name)) => self.uid_by(Table::Names, &fold(name))?,
                    (None, None) => None,
                };
                let user = uid.map(|uid| self.user(uid)).transpose()?.flatten();
                self.state_fields(user)
            }
            Key::LIST => {
                let key = KeyId::parse(id).map(|id| self.key(id)).transpose()?.flatten();
                self.state_fields(key)
            }
            _ => Ok(None),
        }
    }

    fn state_fields<T: StateRecord>(
        &self,
        found: Option<Versioned<T>>,
    ) -> Result<Option<Versioned<Map<String, Value>>>, AccountError> {
        let name = |uid: u64| self.directory().user(uid).map(|user| user.name.to_string());
        Ok(found.map(|Versioned { revision, record }| Versioned {
            revision,
            record: record.view(&name),
        }))
    }
}

impl Plan {
    /// Refuses the plan if a record has changed since the document was merged into it.
    pub(super) fn check_bases(&self, bases: &PatchBases) -> Result<(), AccountError> {
        if bases.0.is_empty() {
            return Ok(());
        }
        check(&self.roles, bases)?;
        check(&self.applications, bases)?;
        check(&self.resources, bases)?;
        check(&self.users, bases)?;
        check(&self.keys, bases)
    }
}

fn check<T: StateRecord>(
    changes: &[PlannedChange<T>],
    bases: &PatchBases,
) -> Result<(), AccountError> {
    for change in changes {
        let Some(index) = change.at else { continue };
        match bases.0.get(&(T::LIST, index)) {
            Some(base) if *base != change.revision() => {
                return Err(AccountError::Stale { current: change.revision().unwrap_or_default() });
            }
            _ => {}
        }
    }
    Ok(())
}
