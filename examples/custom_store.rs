//! A custom store with Keyward's records in memory, and a journal of all changes as JSON lines. The
//! next start replays the journal.
//!
//! ```sh
//! cargo run --example custom_store -- /tmp/journal.jsonl
//! ```
//! The program creates a user and prints the number of users. The contract of a store is in the
//! documentation of [`Store`]. The store in memory fulfils most of this contract. With the journal,
//! confirmed commits also survive a power cut.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    accounts::{Accounts, NewUser, Passwords},
    model::Actor,
    store::{
        Batch, Commit, CommitError, CommitFuture, Lagged, MemoryStore, Sequence, Snapshot, Store,
        StoreError, Stored, Subscriber, Table, Write,
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).context("usage: custom_store FILE")?);
    let store = Arc::new(JournalStore::open(&file).await?);
    // At most one password is checked at a time.
    let accounts = Accounts::open(store, &file.with_extension("pepper"), Passwords::new(1))?;
    // Fills a new journal with the first records: roles, the default application, and the user
    // `admin` with a key. Later starts change nothing.
    accounts.first_start().await?;
    let count = accounts.users(None, usize::MAX)?.items.len();
    let new = NewUser { name: format!("guest-{count}"), status: true, ..NewUser::default() };
    let created = accounts.as_actor(Actor::Program).create_user(new).await?;
    writeln!(std::io::stdout(), "created {}; there are {} users", created.record.name, count + 1)?;
    Ok(())
}

/// Records in memory, with a journal of all changes in a file.
pub struct JournalStore {
    memory: MemoryStore,
    journal: Arc<Journal>,
}

/// The journal file, with one line for each commit. The journal subscribes to the store in memory,
/// which calls the journal for each commit before the commit completes.
struct Journal {
    file: Mutex<File>,
    failure: OnceLock<String>,
}

impl JournalStore {
    /// Replays the journal, or creates an empty one.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let memory = MemoryStore::new();
        let mut valid_bytes = 0;
        // Replay the lines in their order: each commit then gets the sequence number that it had
        // originally. The revision of a record is the sequence number of its last commit, so
        // revisions also stay the same.
        //
        // A crash can truncate the last line. The commit of a truncated line was never confirmed,
        // so the line is dropped.
        for line in text.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let position = || format!("{}, byte {valid_bytes}", path.display());
            memory.commit(parse_line(line).with_context(position)?).await?;
            valid_bytes += line.len();
        }
        file.set_len(valid_bytes as u64)?;
        file.seek(SeekFrom::End(0))?;
        let journal = Arc::new(Journal { file: Mutex::new(file), failure: OnceLock::new() });
        let sequence = memory.snapshot()?.sequence();
        // The journal is the first subscriber, so no other subscriber sees a change that is not in
        // the file.
        memory
            .subscribe(sequence, journal.clone())
            .map_err(|Lagged| anyhow::anyhow!("the journal missed a change of the store"))?;
        Ok(Self { memory, journal })
    }
}

/// Parses one line of the journal.
fn parse_line(line: &[u8]) -> anyhow::Result<Batch> {
    let mut batch = Batch::new();
    for write in serde_json::from_slice::<Vec<(u8, String, Option<Value>)>>(line)? {
        let (table, key, record) = write;
        let table = Table::from_byte(table).context("unknown table")?;
        let json = record.map(|record| record.to_string().into_bytes());
        batch.writes.push(Write { table, key: STANDARD.decode(key)?, json });
    }
    Ok(batch)
}

impl Journal {
    fn write(&self, commit: &Commit) -> anyhow::Result<()> {
        let lines = commit.writes.iter().map(|Write { table, key, json }| {
            let record = json.as_deref().map(serde_json::from_slice::<Value>).transpose()?;
            Ok(json!((*table as u8, STANDARD.encode(key), record)))
        });
        let lines: Vec<Value> = lines.collect::<anyhow::Result<_>>()?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{}\n", Value::from(lines)).as_bytes())?;
        Ok(file.sync_data()?)
    }
}

impl Subscriber for Journal {
    fn apply(&self, commit: &Commit) {
        if self.failure.get().is_none()
            && let Err(error) = self.write(commit)
        {
            let _ = self.failure.set(error.to_string());
        }
    }
}

impl Store for JournalStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        self.memory.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        self.memory.scan(table, prefix, after, limit)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.memory.snapshot()
    }

    fn commit(&self, batch: Batch) -> CommitFuture<'_> {
        Box::pin(async move {
            let failed = |problem| Err(CommitError::Store(StoreError::Failed(problem)));
            // After a failed write, all further commits fail.
            if let Some(problem) = self.fault() {
                return failed(problem);
            }
            let sequence = self.memory.commit(batch).await?;
            self.fault().map_or(Ok(sequence), failed)
        })
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.memory.subscribe(after, subscriber)
    }

    fn fault(&self) -> Option<String> {
        self.journal.failure.get().cloned()
    }
}
