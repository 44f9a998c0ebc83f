//! Checking a store record by record, and converting it to another engine. Both need a store that
//! no server has open.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Batch, CommitError, EngineKind, RecordDigest, RecordRef, Sequence, Store, StoreError, Table,
    open,
};
use crate::{
    files::exchange::{FORMER, exchange, folder_of, with_suffix},
    model::Clock,
};

/// The most commits that are queued in the new store at a time.
const QUEUED_COMMITS: usize = 1024;

/// The records of one table.
#[derive(Debug, Clone)]
pub struct TableReport {
    /// The table.
    pub table: Table,
    /// How many records were read.
    pub records: u64,
    /// Why reading stopped. `None` means that every record was read.
    pub finding: Option<StoreError>,
}

/// Reads every record of a store, which verifies its checksum, and reports each table.
///
/// # Errors
/// The store cannot be read at all.
pub fn check(store: &dyn Store) -> Result<Vec<TableReport>, StoreError> {
    let snapshot = store.snapshot()?;
    let report = |table| {
        let mut records = 0;
        let result = snapshot.each(table, &mut |key, record| {
            super::decode::<serde::de::IgnoredAny>(table, key, record.json)?;
            records += 1;
            Ok(())
        });
        TableReport { table, records, finding: result.err() }
    };
    Ok(Table::ALL.into_iter().map(report).collect())
}

/// Why a store was not converted. The store is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// There is no store.
    #[error("there is no store at {path}", path = .0.display())]
    Missing(PathBuf),
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new store's records are not equal to those of the old one.
    #[error("the new store differs from the old one ({0}). The old store is in use as before")]
    Differs(String),
    /// A folder cannot be changed.
    #[error("{path}: {problem}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The error.
        problem: io::Error,
    },
}

/// The result of a conversion.
#[derive(Debug, PartialEq, Eq)]
pub enum Conversion {
    /// The store has the other engine now.
    Done {
        /// How many records it has.
        records: u64,
        /// The number of its last commit.
        sequence: Sequence,
        /// Where the former store is now.
        former: Option<PathBuf>,
    },
    /// The store had the other engine already.
    AlreadyDone,
}

/// Converts the store in `path`. The new store is built next to it, compared with the old one, and
/// takes its name in one step. The former store is kept under another name.
///
/// All records keep their revisions, and the store the number of its last commit, because clients
/// of the admin API hold revisions as `ETag`. A conversion that was interrupted can be repeated.
///
/// # Errors
/// [`StoreError::Locked`] if a server has the store open. After each error the old store is
/// complete and in its place.
pub async fn convert(
    path: &Path,
    to: EngineKind,
    cache_mib: u64,
) -> Result<Conversion, ConvertError> {
    let draft = with_suffix(path, ".converting");
    let in_folder = |path: &Path| {
        let path = path.to_owned();
        move |problem| ConvertError::Folder { path, problem }
    };
    put_former_back(path, &draft, cache_mib)?;
    let Some(from) = EngineKind::of_folder(path) else {
        return Err(ConvertError::Missing(path.to_owned()));
    };
    if from == to {
        // A conversion was interrupted after its last step. The store is opened to check it.
        open(to, path, cache_mib)?;
        remove(&draft).map_err(in_folder(&draft))?;
        return Ok(Conversion::AlreadyDone);
    }
    let source = open(from, path, cache_mib)?;
    // A store whose records are not those of its last commit must not get a right digest.
    source.verify(&AtomicBool::new(false))?;
    remove(&draft).map_err(in_folder(&draft))?;
    let built = build(&*source, &draft, to, cache_mib).await;
    if built.is_err() {
        let _ = remove(&draft);
    }
    let sum = built?;
    let former = exchange(&draft, path, Clock::system().now().0).map_err(in_folder(path))?;
    // Released last: until here no server can write to the old store.
    drop(source);
    Ok(Conversion::Done { records: sum.records(), sequence: sum.sequence, former })
}

/// Where a file system cannot exchange two folders, an interrupted exchange leaves no folder at
/// `path`. Puts the former store back, and the conversion begins anew. The former store is the one
/// that equals the new one.
fn put_former_back(path: &Path, draft: &Path, cache_mib: u64) -> Result<(), ConvertError> {
    let in_folder = |problem| ConvertError::Folder { path: path.to_owned(), problem };
    let name = path.file_name().and_then(|name| name.to_str());
    let (false, Some(name), Some(new)) = (path.exists(), name, EngineKind::of_folder(draft)) else {
        return Ok(());
    };
    let mut formers = Vec::new();
    for entry in fs::read_dir(folder_of(path)).map_err(in_folder)? {
        let entry = entry.map_err(in_folder)?;
        let found = entry.file_name();
        if found.to_str().is_some_and(|found| found.starts_with(&format!("{name}{FORMER}"))) {
            formers.push(entry.path());
        }
    }
    // The time in the name has ten digits until the year 2286.
    let Some(newest) = formers.into_iter().max() else { return Ok(()) };
    let Some(old) = EngineKind::of_folder(&newest) else { return Ok(()) };
    let empty = RecordDigest::random();
    let sum = |engine, path: &Path| StoreSum::of(&*open(engine, path, cache_mib)?, &empty);
    if sum(new, draft)? == sum(old, &newest)? {
        fs::rename(newest, path).map_err(in_folder)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Builds the new store, opens it anew, and compares it with the old one.
async fn build(
    source: &dyn Store,
    draft: &Path,
    to: EngineKind,
    cache_mib: u64,
) -> Result<StoreSum, ConvertError> {
    let target = open(to, draft, cache_mib)?;
    copy(source, &target).await?;
    drop(target);
    let target = open(to, draft, cache_mib)?;
    let empty = RecordDigest::random();
    let (old, new) = (StoreSum::of(source, &empty)?, StoreSum::of(&*target, &empty)?);
    if old != new {
        let text = format!(
            "{} records instead of {}, last commit {} instead of {}",
            new.records(),
            old.records(),
            new.sequence,
            old.sequence
        );
        return Err(ConvertError::Differs(text));
    }
    Ok(new)
}

/// Repeats the commits of `source` as far as their records still exist: commit 1, then 2, up to the
/// last one. So each record gets the revision that it has. Commits without records are empty.
async fn copy(source: &dyn Store, target: &Arc<dyn Store>) -> Result<(), ConvertError> {
    let mut keys: Vec<(Sequence, Table, Box<[u8]>)> = Vec::new();
    let snapshot = source.snapshot()?;
    for table in Table::ALL {
        snapshot.each(table, &mut |key, record: RecordRef<'_>| {
            keys.push((record.revision, table, key.into()));
            Ok(())
        })?;
    }
    let last = snapshot.sequence();
    drop(snapshot);
    keys.sort_unstable();
    if let Some((revision, table, _)) = keys.last().filter(|(revision, ..)| *revision > last) {
        let text = format!(
            "a record in {} has revision {revision}, but the last commit is {last}",
            table.name()
        );
        return Err(ConvertError::Differs(text));
    }
    let mut keys = keys.into_iter().peekable();
    let mut queued = VecDeque::new();
    for sequence in 1..=last {
        let mut batch = Batch::new();
        while let Some((_, table, key)) = keys.next_if(|(revision, ..)| *revision == sequence) {
            if let Some(stored) = source.get(table, &key)? {
                batch.put(table, key, stored.json);
            }
        }
        queued.push_back((sequence, target.commit(batch)));
        if queued.len() == QUEUED_COMMITS {
            finish(queued.pop_front()).await?;
        }
    }
    while !queued.is_empty() {
        finish(queued.pop_front()).await?;
    }
    Ok(())
}

async fn finish(commit: Option<(Sequence, super::CommitFuture<'_>)>) -> Result<(), ConvertError> {
    let Some((expected, commit)) = commit else { return Ok(()) };
    match commit.await {
        Ok(sequence) if sequence == expected => Ok(()),
        Ok(sequence) => {
            Err(ConvertError::Differs(format!("commit {sequence} instead of {expected}")))
        }
        Err(CommitError::Store(problem)) => Err(problem.into()),
        Err(conflict) => Err(ConvertError::Differs(conflict.to_string())),
    }
}

/// The number of the last commit of a store, and the digest over all records.
#[derive(Debug, PartialEq, Eq)]
struct StoreSum {
    sequence: Sequence,
    digest: RecordDigest,
}

impl StoreSum {
    /// Reads all records of a store. Sums can be compared if they begin with equal digests.
    fn of(store: &dyn Store, empty: &RecordDigest) -> Result<Self, StoreError> {
        let snapshot = store.snapshot()?;
        let mut digest = empty.clone();
        for table in Table::ALL {
            snapshot.each(table, &mut |key, record| {
                digest.add(table, key, record.revision, record.json);
                Ok(())
            })?;
        }
        Ok(Self { sequence: snapshot.sequence(), digest })
    }

    fn records(&self) -> u64 {
        self.digest.records()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::encode;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn put(table: Table, key: &[u8], value: &str) -> Batch {
        let mut batch = Batch::new();
        batch.put(table, key, encode(&value));
        batch
    }

    /// Fills a store with records of several revisions. The last commits have left no records.
    async fn fill(path: &Path, engine: EngineKind) {
        let store = open(engine, path, 16).unwrap();
        for number in 0..300_u64 {
            let mut batch = put(Table::Users, &(number % 90).to_be_bytes(), &"u".repeat(300));
            batch.put(Table::Names, format!("name {number}"), encode(&number));
            store.commit(batch).await.unwrap();
        }
        let mut batch = Batch::new();
        batch.delete(Table::Names, "name 299").delete(Table::Users, 3_u64.to_be_bytes());
        store.commit(batch).await.unwrap();
        store.commit(Batch::new()).await.unwrap();
    }

    type Dump = Vec<(Table, Vec<u8>, Sequence, Vec<u8>)>;

    fn dump(path: &Path, engine: EngineKind) -> (Sequence, Dump) {
        let store = open(engine, path, 16).unwrap();
        let mut all = Dump::new();
        for table in Table::ALL {
            for (key, stored) in store.scan(table, &[], None, usize::MAX).unwrap() {
                all.push((table, key, stored.revision, stored.json));
            }
        }
        (store.snapshot().unwrap().sequence(), all)
    }

    const SLED: EngineKind = EngineKind::Sled;
    const REDB: EngineKind = EngineKind::Redb;

    #[test]
    fn converted_store_has_equal_records_and_revisions_and_the_former_one_is_kept() {
        for (from, to) in [(SLED, REDB), (REDB, SLED)] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store");
            block_on(fill(&path, from));
            let before = dump(&path, from);
            let Conversion::Done { records, sequence, former } =
                block_on(convert(&path, to, 16)).unwrap()
            else {
                panic!("it was not done")
            };
            assert_eq!((sequence, before.0), (302, 302));
            assert_eq!(records, before.1.len() as u64);
            assert!(dump(&path, to) == before);
            assert!(dump(&former.unwrap(), from) == before);
            assert_eq!(block_on(convert(&path, to, 16)).unwrap(), Conversion::AlreadyDone);
            // Further commits continue the sequence.
            let store = open(to, &path, 16).unwrap();
            assert_eq!(block_on(store.commit(Batch::new())).unwrap(), 303);
        }
    }

    #[test]
    fn store_in_use_or_missing_is_not_converted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let problem = block_on(convert(&path, REDB, 16)).unwrap_err();
        assert!(matches!(problem, ConvertError::Missing(_)), "{problem}");
        for (from, to) in [(SLED, REDB), (REDB, SLED)] {
            let path = folder.path().join(from.name());
            let in_use = open(from, &path, 16).unwrap();
            for engine in [to, from] {
                let problem = block_on(convert(&path, engine, 16)).unwrap_err();
                assert!(
                    matches!(&problem, ConvertError::Store(StoreError::Locked { .. })),
                    "{problem}"
                );
            }
            drop(in_use);
            assert_eq!(EngineKind::of_folder(&path), Some(from));
        }
    }

    #[test]
    fn interrupted_conversion_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        let draft = folder.path().join("store.converting");
        block_on(fill(&path, SLED));
        let before = dump(&path, SLED);
        // Killed while the new store was built.
        fs::create_dir(&draft).unwrap();
        fs::write(draft.join("store.redb"), "half").unwrap();
        assert!(matches!(block_on(convert(&path, REDB, 16)), Ok(Conversion::Done { .. })));
        assert!(dump(&path, REDB) == before);
        assert!(!draft.exists());
        // Killed within an exchange that takes two steps.
        let kept = fs::read_dir(folder.path()).unwrap().count();
        fs::rename(&path, &draft).unwrap();
        assert!(matches!(block_on(convert(&path, REDB, 16)), Ok(Conversion::Done { .. })));
        assert!(dump(&path, REDB) == before);
        assert!(!draft.exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), kept);
        // Without a former store that equals it, a draft is not believed.
        fs::rename(&path, &draft).unwrap();
        let store = open(REDB, &draft, 16).unwrap();
        block_on(store.commit(put(Table::Roles, b"other", "x"))).unwrap();
        drop(store);
        let problem = block_on(convert(&path, REDB, 16)).unwrap_err();
        assert!(matches!(problem, ConvertError::Missing(_)), "{problem}");
    }

    /// A store that returns another text for one record.
    struct Liar(Arc<dyn Store>);

    impl Store for Liar {
        fn get(
            &self,
            table: Table,
            key: &[u8],
        ) -> Result<Option<super::super::Stored>, StoreError> {
            let mut stored = self.0.get(table, key)?;
            if let Some(stored) = stored.as_mut().filter(|_| key == 7_u64.to_be_bytes()) {
                stored.json = encode(&"other");
            }
            Ok(stored)
        }

        fn scan(
            &self,
            table: Table,
            prefix: &[u8],
            after: Option<&[u8]>,
            limit: usize,
        ) -> Result<Vec<(Vec<u8>, super::super::Stored)>, StoreError> {
            self.0.scan(table, prefix, after, limit)
        }

        fn snapshot(&self) -> Result<Box<dyn super::super::Snapshot + '_>, StoreError> {
            self.0.snapshot()
        }

        fn commit(&self, batch: Batch) -> super::super::CommitFuture<'_> {
            self.0.commit(batch)
        }

        fn subscribe(
            &self,
            after: Sequence,
            subscriber: Arc<dyn super::super::Subscriber>,
        ) -> Result<(), super::super::Lagged> {
            self.0.subscribe(after, subscriber)
        }

        fn fault(&self) -> Option<String> {
            self.0.fault()
        }
    }

    #[test]
    fn copy_that_differs_in_one_record_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        block_on(fill(&path, REDB));
        let source = Liar(open(REDB, &path, 16).unwrap());
        let built = block_on(build(&source, &folder.path().join("draft"), SLED, 16));
        assert!(matches!(built, Err(ConvertError::Differs(_))), "{built:?}");
    }

    #[test]
    fn check_counts_the_records_and_names_what_is_not_a_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store");
        block_on(fill(&path, REDB));
        let store = open(REDB, &path, 16).unwrap();
        let reports = check(&*store).unwrap();
        let count = |table| {
            let report = reports.iter().find(|report| report.table == table).unwrap();
            assert!(report.finding.is_none(), "{report:?}");
            report.records
        };
        assert_eq!((count(Table::Users), count(Table::Names), count(Table::Keys)), (89, 299, 0));
        let mut batch = Batch::new();
        batch.put(Table::Roles, "broken", b"{".to_vec());
        block_on(store.commit(batch)).unwrap();
        let reports = check(&*store).unwrap();
        let findings: Vec<_> =
            reports.iter().filter_map(|report| report.finding.as_ref()).collect();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].to_string().contains("the record broken in roles is damaged"));
    }
}
