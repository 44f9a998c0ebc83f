//! Compares a store with the model, and sees that a refused start changes no file.

use std::{
    collections::BTreeMap,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use keyward::{
    AccountError, Accounts, Actor, NewUser, Store,
    accounts::AuditOrder,
    store::{Sequence, Table, archive, audit_log::AuditVerdict, table},
};

use crate::{
    engine,
    model::{self, Model, State, runtime},
};

/// The time after which a start counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(50);

/// The result of a start.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The records are those of the model after this commit.
    Equal(Sequence),
    /// The start or a read failed with this error.
    Refused(String),
    /// Anything else: a difference, a hang, a panic, or a file that a refused start has changed.
    Wrong(String),
}

/// Why a store is not equal to the model.
pub enum Difference {
    /// A read failed.
    Error(String),
    /// A read returned something else without an error.
    Silent(String),
}

impl<E: std::error::Error> From<E> for Difference {
    fn from(problem: E) -> Self {
        Self::Error(problem.to_string())
    }
}

/// Opens a store and compares everything with the model. The store's last commit must be in
/// `allowed`. If everything is equal and `then_write` is set, writes a user and reads it after
/// another start.
pub fn check(
    engine: &'static str,
    path: &Path,
    model: &Arc<Model>,
    allowed: RangeInclusive<Sequence>,
    then_write: bool,
) -> Outcome {
    let before = tree(path);
    let (sender, receiver) = mpsc::channel();
    let worker = thread::spawn({
        let (path, model) = (path.to_owned(), model.clone());
        move || {
            let found = open_and_compare(engine, &path, &model, allowed);
            let found = found.and_then(|sequence| {
                if then_write {
                    write_and_reopen(engine, &path)?
                };
                Ok(sequence)
            });
            let _ = sender.send(found);
        }
    });
    match receiver.recv_timeout(TIMEOUT) {
        Ok(Ok(sequence)) => Outcome::Equal(sequence),
        Ok(Err(Difference::Silent(what))) => Outcome::Wrong(what),
        Ok(Err(Difference::Error(problem))) => {
            let after = tree(path);
            let changed = before.iter().chain(&after).find(|(name, bytes)| {
                before.get(*name) != Some(bytes) || after.get(*name) != Some(bytes)
            });
            match changed {
                None => Outcome::Refused(problem),
                Some((name, _)) => Outcome::Wrong(format!(
                    "a refused start has changed {}: {problem}",
                    name.display()
                )),
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Outcome::Wrong("the start hangs".into()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = worker.join().unwrap_err();
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Outcome::Wrong(format!("the start panicked: {}", text.unwrap_or_default()))
        }
    }
}

fn open_and_compare(
    engine: &str,
    path: &Path,
    model: &Model,
    allowed: RangeInclusive<Sequence>,
) -> Result<Sequence, Difference> {
    let store = engine::open(engine, path)?;
    let accounts = model::accounts(store.clone(), model.seed, 0)?;
    compare(&store, &accounts, model, allowed)
}

fn write_and_reopen(engine: &str, path: &Path) -> Result<(), Difference> {
    let store = engine::open(engine, path)?;
    let accounts = model::accounts(store, 0, 0)?;
    let new = NewUser { name: "written later".into(), status: true, ..NewUser::default() };
    let created = runtime().block_on(accounts.as_actor(Actor::Program).create_user(new))?;
    drop(accounts);
    let accounts = model::accounts(engine::open(engine, path)?, 0, 0)?;
    match accounts.user(created.record.uid)? {
        Some(found) if found.record == created.record => Ok(()),
        _ => silent("a user who was written after the start is not there after the next start"),
    }
}

fn silent<T>(problem: impl Into<String>) -> Result<T, Difference> {
    Err(Difference::Silent(problem.into()))
}

/// Compares all reads of a store with the model. Returns the last commit of the store.
pub fn compare(
    store: &Arc<dyn Store>,
    accounts: &Accounts,
    model: &Model,
    allowed: RangeInclusive<Sequence>,
) -> Result<Sequence, Difference> {
    let mut found = State::new();
    let sequence = {
        let snapshot = store.snapshot()?;
        for table in Table::ALL {
            snapshot.each(table, &mut |key, record| {
                found.insert((table as u8, key.to_vec()), (record.revision, record.json.to_vec()));
                Ok(())
            })?;
        }
        snapshot.sequence()
    };
    if !allowed.contains(&sequence) {
        return silent(format!("the last commit is {sequence}, and must be in {allowed:?}"));
    }
    let expected = model.state(sequence);
    equal_states("the snapshot", &found, &expected)?;
    let mut scanned = State::new();
    for table in Table::ALL {
        for (key, stored) in store.scan(table, &[], None, usize::MAX)? {
            scanned.insert((table as u8, key), (stored.revision, stored.json));
        }
    }
    equal_states("the scan", &scanned, &expected)?;
    // The records of later states must not be found either.
    let later = model.state(model.after(usize::MAX));
    for (table, key) in expected.keys().chain(later.keys()) {
        let stored = store.get(Table::from_byte(*table).unwrap(), key)?;
        let stored = stored.map(|stored| (stored.revision, stored.json));
        if stored.as_ref() != expected.get(&(*table, key.clone())) {
            return silent(format!("get finds another record {}", name_of(*table, key)));
        }
    }
    compare_directory(accounts, &expected)?;
    compare_audit(accounts, &expected)?;
    Ok(sequence)
}

fn equal_states(what: &str, found: &State, expected: &State) -> Result<(), Difference> {
    let difference =
        found.iter().chain(expected).find(|(place, _)| found.get(*place) != expected.get(*place));
    let Some(((table, key), _)) = difference else { return Ok(()) };
    let revision = |state: &State| state.get(&(*table, key.clone())).map(|record| record.0);
    silent(format!(
        "{what} differs in {}: revision {:?} instead of {:?}",
        name_of(*table, key),
        revision(found),
        revision(expected)
    ))
}

fn name_of(table: u8, key: &[u8]) -> String {
    let table = Table::from_byte(table).map_or("?", Table::name);
    format!("{table} {}", key.escape_ascii())
}

/// Compares the data in memory that decisions read.
fn compare_directory(accounts: &Accounts, expected: &State) -> Result<(), Difference> {
    let directory = accounts.directory();
    for ((table, key), (_, json)) in expected {
        let record: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
        if *table == Table::Users as u8 {
            let user = directory.user(table::parse_number(key).unwrap());
            if user.map(|user| user.is_active) != record["status"].as_bool() {
                return silent(format!("the directory has another {}", name_of(*table, key)));
            }
        }
        if *table == Table::Keys as u8 {
            let id = keyward::KeyId::from_number(table::parse_number(key).unwrap());
            let is_revoked = record.get("revoked").is_some_and(|time| !time.is_null());
            if directory.key(id).map(|key| key.is_revoked) != Some(is_revoked) {
                return silent(format!("the directory has another {}", name_of(*table, key)));
            }
        }
    }
    let count = |table: Table| expected.keys().filter(|(of, _)| *of == table as u8).count();
    let (users, keys) = directory.counts();
    if (users, keys) != (count(Table::Users), count(Table::Keys)) {
        return silent(format!("the directory has {users} users and {keys} keys"));
    }
    Ok(())
}

fn compare_audit(accounts: &Accounts, expected: &State) -> Result<(), Difference> {
    let entries = expected.keys().filter(|(table, _)| *table == Table::Audit as u8);
    let numbers: Vec<_> = entries.map(|(_, key)| table::parse_number(key).unwrap()).collect();
    let listed = accounts.audit(AuditOrder::Oldest, None, usize::MAX)?.items;
    let listed: Vec<_> = listed.into_iter().map(|entry| entry.number).collect();
    if listed != numbers {
        return silent(format!("{} of {} audit entries are listed", listed.len(), numbers.len()));
    }
    match runtime().block_on(accounts.verify_audit())? {
        AuditVerdict::Intact { end, .. } if end.number == numbers.last().copied().unwrap_or(0) => {
            Ok(())
        }
        verdict => silent(format!("the audit trail is {verdict:?}")),
    }
}

/// Compares an export and a backup with the model after a commit.
pub fn compare_exports(
    accounts: &Accounts,
    model: &Model,
    sequence: Sequence,
    folder: &Path,
) -> Result<(), Difference> {
    let export = |accounts: &Accounts| {
        let writer = accounts.as_actor(Actor::Program);
        let text = runtime().block_on(async { writer.admin().unwrap().export().await })?;
        Ok::<_, AccountError>(text)
    };
    let expected = model::accounts(model.store(sequence), model.seed, 0)?;
    if export(accounts)? != export(&expected)? {
        return silent("the export differs");
    }
    let file = folder.join("exported.backup");
    let _ = fs::remove_file(&file);
    let writer = accounts.as_actor(Actor::Program);
    runtime().block_on(async { writer.operator().unwrap().backup(file.clone()).await })?;
    let mut found = BTreeMap::new();
    archive::read(fs::File::open(&file)?, None, |table, key, json| {
        found.insert((table as u8, key), json);
        Ok(())
    })?;
    let expected = model.state(sequence).into_iter();
    let expected: BTreeMap<_, _> = expected.map(|(place, (_, json))| (place, json)).collect();
    if found == expected { Ok(()) } else { silent("the backup differs") }
}

/// All files and folders below a folder. `None` means a folder.
pub fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, Some(bytes));
        }
    }
    found
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
