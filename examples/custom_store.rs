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
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    str,
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    ClientSource, Keyward, NewUser,
    limits::FailureLimits,
    store::{
        Batch, CommitError, CommitFuture, Expected, Lagged, MemoryStore, Sequence, Snapshot, Store,
        StoreError, Stored, Subscriber, Table, Write, audit_log,
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let file = PathBuf::from(std::env::args().nth(1).context("usage: custom_store FILE")?);
    let store = Arc::new(JournalStore::open(&file).await?);
    // A new journal gets its first records: roles, the default application, and the user `admin`
    // with a key.
    let keyward = Keyward::store(store, file.with_extension("pepper"))
        .client(ClientSource::unknown())
        .failures(FailureLimits::none())
        .start()
        .await?;
    let count = keyward.accounts().users(None, usize::MAX)?.items.len();
    let new = NewUser { name: format!("guest-{count}"), status: true, ..NewUser::default() };
    let created = keyward.unbounded().create_user(new).await?;
    writeln!(io::stdout(), "created {}; there are {} users", created.record.name, count + 1)?;
    keyward.stop().await;
    Ok(())
}

/// Records in memory, with a journal of all changes.
///
/// A batch is first written to the journal, and only then to the memory. So nobody reads a change
/// that is not in the journal, and nothing is in force that a restart would lose.
pub struct JournalStore {
    memory: MemoryStore,
    /// The lock is held from the check of a batch's expectations to its end, so that no other batch
    /// comes in between.
    journal: tokio::sync::Mutex<Box<dyn Journal>>,
    failure: OnceLock<String>,
}

/// A list of lines, one for each commit.
pub trait Journal: Send {
    /// Appends a line. When this method returns, the line survives a power cut.
    fn append(&mut self, line: &[u8]) -> io::Result<()>;

    /// Removes the last appended line.
    fn take_back(&mut self) -> io::Result<()>;
}

/// A journal in a file.
struct FileJournal {
    file: File,
    /// The length of the file before the last line, and with it.
    lengths: [u64; 2],
}

impl Journal for FileJournal {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.lengths[1];
        self.lengths = [before, before + line.len() as u64];
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    fn take_back(&mut self) -> io::Result<()> {
        let before = self.lengths[0];
        self.lengths = [before; 2];
        self.file.set_len(before)?;
        self.file.sync_data()
    }
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
            valid_bytes += line.len() as u64;
        }
        file.set_len(valid_bytes)?;
        let journal: Box<dyn Journal> = Box::new(FileJournal { file, lengths: [valid_bytes; 2] });
        Ok(Self { memory, journal: journal.into(), failure: OnceLock::new() })
    }

    /// This store with another journal around its own, for tests of writes that fail.
    pub fn with_journal(self, wrap: impl FnOnce(Box<dyn Journal>) -> Box<dyn Journal>) -> Self {
        Self { journal: wrap(self.journal.into_inner()).into(), ..self }
    }

    /// Checks the expectations of a batch, and returns all its writes.
    fn check(&self, batch: Batch) -> Result<Vec<Write>, CommitError> {
        for expect in &batch.expects {
            let revision = match expect.state {
                Expected::Newest(_) => {
                    let records = self.memory.scan(expect.table, &expect.key, None, usize::MAX)?;
                    records.into_iter().map(|(_, stored)| stored.revision).max()
                }
                _ => self.memory.get(expect.table, &expect.key)?.map(|stored| stored.revision),
            };
            if !expect.state.is_met_by(revision) {
                return Err(CommitError::Conflict(expect.clone()));
            }
        }
        let mut writes = batch.writes;
        // The entries of the audit trail belong to the batch.
        if let Some(append) = &batch.audit {
            writes.extend(audit_log::writes(append, |table, key| self.memory.get(table, key))?);
        }
        Ok(writes)
    }

    /// After a failed write, all further commits fail.
    fn fail(&self, problem: impl ToString) -> CommitError {
        let problem = self.failure.get_or_init(|| problem.to_string()).clone();
        CommitError::Store(StoreError::Failed(problem))
    }
}

/// Formats the writes of a commit as a line of the journal.
fn format_line(writes: &[Write]) -> Result<Vec<u8>, str::Utf8Error> {
    let lines = writes.iter().map(|Write { table, key, json }| {
        // The text of a record is kept as it is: the audit trail depends on each byte.
        let record = json.as_deref().map(str::from_utf8).transpose()?;
        Ok(json!((*table as u8, STANDARD.encode(key), record)))
    });
    let lines: Vec<Value> = lines.collect::<Result<_, str::Utf8Error>>()?;
    Ok(format!("{}\n", Value::from(lines)).into_bytes())
}

/// Parses one line of the journal.
fn parse_line(line: &[u8]) -> anyhow::Result<Batch> {
    let mut batch = Batch::new();
    for write in serde_json::from_slice::<Vec<(u8, String, Option<String>)>>(line)? {
        let (table, key, record) = write;
        let table = Table::from_byte(table).context("unknown table")?;
        let json = record.map(String::into_bytes);
        batch.writes.push(Write { table, key: STANDARD.decode(key)?, json });
    }
    Ok(batch)
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
            let mut journal = self.journal.lock().await;
            if let Some(problem) = self.fault() {
                return Err(CommitError::Store(StoreError::Failed(problem)));
            }
            let writes = self.check(batch)?;
            let line = format_line(&writes).map_err(|problem| self.fail(problem))?;
            if let Err(problem) = journal.append(&line) {
                // Nobody knows which part of the line is in the file.
                let _ = journal.take_back();
                return Err(self.fail(problem));
            }
            let committed = self.memory.commit(Batch { writes, ..Batch::new() }).await;
            if committed.is_err() {
                // For example, a record is too large. The batch must not come back at a restart.
                journal.take_back().map_err(|problem| self.fail(problem))?;
            }
            committed
        })
    }

    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.memory.subscribe(after, subscriber)
    }

    fn fault(&self) -> Option<String> {
        self.failure.get().cloned()
    }
}
