//! A store of one's own: Keyward's records in memory, and each change in a journal of JSON lines that is read again at the next start.
//!
//! ```sh
//! cargo run --example custom_store -- /tmp/journal.jsonl
//! ```
//! It makes a user and says how many there are by now. What a [`Store`] has to hold to is written at the trait; here the engine in memory holds
//! to most of it, and the journal adds that what was answered is there after a power cut.

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
        Batch, Change, CommitError, Committing, MemoryStore, Missed, Sequence, Sink, Snapshot,
        Store, StoreError, Stored, Table, Write,
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).context("say which file to use")?);
    let store = Arc::new(JournalStore::open(&file).await?);
    let accounts = Accounts::open(store, &file.with_extension("pepper"), Passwords::new(1))?;
    accounts.first_start().await?;
    let count = accounts.users(None, usize::MAX)?.items.len();
    let new = NewUser { name: format!("guest-{count}"), status: true, ..NewUser::default() };
    let made = accounts.acting(Actor::Program).create_user(new).await?;
    writeln!(std::io::stdout(), "made {}; there are {} users", made.record.name, count + 1)?;
    Ok(())
}

/// Records in memory, whose changes are kept in a file.
pub struct JournalStore {
    memory: MemoryStore,
    journal: Arc<Journal>,
}

/// A line a change. It follows the engine, which tells it of each change before the writer is answered.
struct Journal {
    file: Mutex<File>,
    failure: OnceLock<String>,
}

impl JournalStore {
    /// Reads the journal, or begins one.
    pub async fn open(path: &Path) -> anyhow::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).open(path)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let memory = MemoryStore::new();
        let mut read = 0;
        // A line without an end was cut off by a crash: nobody was answered, and it goes.
        for line in text.split_inclusive(|b| *b == b'\n').filter(|line| line.ends_with(b"\n")) {
            let at = || format!("{}, byte {read}", path.display());
            memory.commit(batch(line).with_context(at)?).await?;
            read += line.len();
        }
        file.set_len(read as u64)?;
        file.seek(SeekFrom::End(0))?;
        let journal = Arc::new(Journal { file: Mutex::new(file), failure: OnceLock::new() });
        let sequence = memory.snapshot()?.sequence();
        // It follows before anybody else does, so that nothing is in force that is not in the file.
        memory
            .changes(sequence, journal.clone())
            .map_err(|Missed| anyhow::anyhow!("a change was missed"))?;
        Ok(Self { memory, journal })
    }
}

/// The writes of a line. Written again in their order they get the same sequence, and so the same revisions.
fn batch(line: &[u8]) -> anyhow::Result<Batch> {
    let mut batch = Batch::new();
    for write in serde_json::from_slice::<Vec<(u8, String, Option<Value>)>>(line)? {
        let (table, key, record) = write;
        let table = Table::of(table).context("a table that nobody knows")?;
        let json = record.map(|record| record.to_string().into_bytes());
        batch.writes.push(Write { table, key: STANDARD.decode(key)?, json });
    }
    Ok(batch)
}

impl Journal {
    fn write(&self, change: &Change) -> anyhow::Result<()> {
        let lines = change.writes.iter().map(|Write { table, key, json }| {
            let record = json.as_deref().map(serde_json::from_slice::<Value>).transpose()?;
            Ok(json!((*table as u8, STANDARD.encode(key), record)))
        });
        let lines: Vec<Value> = lines.collect::<anyhow::Result<_>>()?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{}\n", Value::from(lines)).as_bytes())?;
        Ok(file.sync_data()?)
    }
}

impl Sink for Journal {
    fn apply(&self, change: &Change) {
        if self.failure.get().is_none()
            && let Err(problem) = self.write(change)
        {
            let _ = self.failure.set(problem.to_string());
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

    fn commit(&self, batch: Batch) -> Committing<'_> {
        Box::pin(async move {
            let failed = |problem| Err(CommitError::Store(StoreError::Failed(problem)));
            // After a failure nothing is written any more, and nobody is told that something was.
            if let Some(problem) = self.fault() {
                return failed(problem);
            }
            let sequence = self.memory.commit(batch).await?;
            self.fault().map_or(Ok(sequence), failed)
        })
    }

    fn changes(&self, after: Sequence, sink: Arc<dyn Sink>) -> Result<(), Missed> {
        self.memory.changes(after, sink)
    }

    fn fault(&self) -> Option<String> {
        self.journal.failure.get().cloned()
    }
}
