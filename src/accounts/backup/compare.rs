//! Compares a backup with the present store: finds all that a restore would bring back or make
//! wider.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::BufReader,
    path::Path,
};

use serde::Serialize;

use super::narrow::Narrow;
use crate::{
    model::{Act, Application, BackupKey, Key, Resource, Role, Timestamp, User},
    store::{
        Store, StoreError, Table,
        archive::{self, ArchiveError},
        decode, encode, table,
    },
};

/// A record that a restore would bring back, or make wider than it is now.
#[derive(Debug, Clone, Serialize)]
pub struct Revival {
    /// The kind: `user`, `key`, `role`, `application` or `resource`.
    pub kind: &'static str,
    /// The record's id.
    pub id: String,
    /// The record's name for people; for a key, the name of its user.
    pub name: String,
    /// The changes since the backup, each as a clause.
    pub changes: Vec<String>,
    #[serde(skip)]
    pub(super) later: LaterChange,
}

/// The later change of one record, as it is applied to the restored store.
#[derive(Debug, Clone)]
pub(super) enum LaterChange {
    /// The narrower record.
    Put {
        table: Table,
        key: Vec<u8>,
        json: Vec<u8>,
        act: Act,
    },
    /// The record was deleted.
    Delete {
        table: Table,
        key: Vec<u8>,
        act: Act,
    },
    DeleteKey(Box<Key>),
    DeleteUser(Box<User>),
}

/// The differences between a backup and the present store.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub revivals: Vec<Revival>,
    /// The number of users in the backup.
    pub users: u64,
    /// The number of users in the backup who are still there, blocked or not.
    pub present_users: u64,
    /// The largest uid that the present store has ever had.
    pub last_uid: u64,
}

/// Why the comparison failed.
pub(super) enum CompareError {
    /// The backup cannot be read.
    Archive(ArchiveError),
    /// The present store cannot be read.
    Present(StoreError),
}

/// Compares a backup with the present store.
pub(super) fn compare(
    file: &Path,
    key: &BackupKey,
    present: &dyn Store,
    now: Timestamp,
) -> Result<Comparison, CompareError> {
    let opened = File::open(file).map_err(|problem| CompareError::Archive(problem.into()))?;
    let mut comparer = Comparer {
        present,
        now,
        found: Comparison::default(),
        owners: HashSet::new(),
        names: HashMap::new(),
        problem: None,
    };
    let read = archive::read(BufReader::new(opened), Some(key), |table, key, json| {
        comparer.add(table, &key, &json)
    });
    if let Some(problem) = comparer.problem {
        return Err(CompareError::Present(problem));
    }
    read.map_err(CompareError::Archive)?;
    let Comparer { mut found, names, .. } = comparer;
    for revival in &mut found.revivals {
        if let Some(name) = revival.owner().and_then(|uid| names.get(&uid)) {
            revival.name.clone_from(name);
        }
    }
    found.last_uid = last_uid(present).map_err(CompareError::Present)?;
    Ok(found)
}

/// The largest uid that a store has ever had.
fn last_uid(store: &dyn Store) -> Result<u64, StoreError> {
    let users = store.snapshot()?.last_key(Table::Users)?;
    let last = users.as_deref().and_then(table::parse_number).unwrap_or(0);
    let deleted = match store.get(Table::Meta, table::LAST_UID)? {
        Some(stored) => stored.read(Table::Meta, table::LAST_UID)?,
        None => 0,
    };
    Ok(last.max(deleted))
}

struct Comparer<'a> {
    present: &'a dyn Store,
    now: Timestamp,
    found: Comparison,
    /// The users of the keys that were found.
    owners: HashSet<u64>,
    /// The names of those users.
    names: HashMap<u64, String>,
    /// The error of the present store that has ended the comparison.
    problem: Option<StoreError>,
}

impl Comparer<'_> {
    fn add(&mut self, table: Table, key: &[u8], json: &[u8]) -> Result<(), ArchiveError> {
        match table {
            Table::Applications => self.compare::<Application>(key, json, put_or_delete),
            Table::Roles => self.compare::<Role>(key, json, put_or_delete),
            Table::Resources => self.compare::<Resource>(key, json, put_or_delete),
            Table::Keys => {
                let record: Key = decode(table, key, json)?;
                let count = self.found.revivals.len();
                self.compare::<Key>(key, json, |_, _, key| LaterChange::DeleteKey(Box::new(key)))?;
                if self.found.revivals.len() > count {
                    self.owners.insert(record.user);
                }
                Ok(())
            }
            Table::Users => {
                let user: User = decode(table, key, json)?;
                if self.owners.contains(&user.uid) {
                    self.names.insert(user.uid, user.name);
                }
                self.found.users += 1;
                self.compare::<User>(key, json, |_, _, user| {
                    LaterChange::DeleteUser(Box::new(user))
                })
            }
            _ => Ok(()),
        }
    }

    fn compare<T: Narrow>(
        &mut self,
        key: &[u8],
        json: &[u8],
        delete: impl FnOnce(&[u8], Act, T) -> LaterChange,
    ) -> Result<(), ArchiveError> {
        let record: T = decode(T::TABLE, key, json)?;
        let present = self.present.get(T::TABLE, key);
        let present = present
            .and_then(|stored| stored.map(|stored| stored.read::<T>(T::TABLE, key)).transpose());
        let present = present.inspect_err(|problem| {
            self.problem = Some(problem.clone());
        })?;
        let (id, name) = (record.id(), record.name());
        let (changes, later) = match present.filter(|present| !record.is_other(present)) {
            None if record.is_alive(self.now) => {
                let act = Act::delete(T::KIND, &id, &record);
                (vec!["it was deleted".to_owned()], delete(key, act, record))
            }
            None => return Ok(()),
            Some(present) => {
                self.found.present_users += u64::from(T::TABLE == Table::Users);
                let mut narrowed = record.clone();
                let changes = narrowed.narrow(&present, self.now);
                if changes.is_empty() {
                    return Ok(());
                }
                let act = Act::change(T::KIND, "change", &id, &record, &narrowed);
                let (key, json) = (key.to_vec(), encode(&narrowed));
                (changes, LaterChange::Put { table: T::TABLE, key, json, act })
            }
        };
        self.found.revivals.push(Revival { kind: T::KIND, id, name, changes, later });
        Ok(())
    }
}

fn put_or_delete<T: Narrow>(key: &[u8], act: Act, _: T) -> LaterChange {
    LaterChange::Delete { table: T::TABLE, key: key.to_vec(), act }
}

impl Revival {
    /// The user of a key. `None` means that the record is not a key.
    fn owner(&self) -> Option<u64> {
        match &self.later {
            LaterChange::DeleteKey(key) => Some(key.user),
            LaterChange::Put { table: Table::Keys, json, .. } => {
                decode::<Key>(Table::Keys, &[], json).ok().map(|key| key.user)
            }
            _ => None,
        }
    }
}
