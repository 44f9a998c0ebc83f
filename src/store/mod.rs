//! Where records are kept. One small trait, [`Store`], with an engine behind it; the [`Directory`] in front of it.
//!
//! A decision reads the Directory alone. The store is for writers, for listings, and for the next start.

pub mod archive;
pub mod audit_log;
mod codec;
#[cfg(test)]
mod contract;
mod memory;
mod sled;
mod subscribers;

use std::{future::Future, pin::Pin, sync::Arc};

pub use codec::{Stored, decode, encode};
pub use memory::MemoryStore;
pub use sled::SledStore;

/// The number of a commit. The first is 1; each is one more than the one before it.
pub type Sequence = u64;

/// A kind of record, or an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Facts about the store itself, by name.
    Meta = b'0',
    /// Applications by id.
    Applications = b'a',
    /// The audit trail by number.
    Audit = b'e',
    /// Index: the digest of a key of another system → its id.
    Foreign = b'f',
    /// Keys by id.
    Keys = b'k',
    /// Index: the folded mail address → uid.
    Mails = b'm',
    /// Index: the folded name → uid.
    Names = b'n',
    /// Index: uid and key id → nothing.
    Owners = b'o',
    /// Roles by id.
    Roles = b'r',
    /// Resources by id.
    Resources = b's',
    /// What was spent of credits, by [`spent_key`].
    Spent = b't',
    /// Users by uid.
    Users = b'u',
    /// The use of keys by id.
    Usage = b'v',
    /// Of which days before its end somebody was told, by the key's id.
    Warned = b'w',
    /// Webhooks that are not delivered yet, by their ids.
    Webhooks = b'h',
}

impl Table {
    /// All of them, in the order in which a backup has them.
    pub const ALL: [Self; 15] = [
        Self::Meta,
        Self::Applications,
        Self::Audit,
        Self::Foreign,
        Self::Keys,
        Self::Mails,
        Self::Names,
        Self::Owners,
        Self::Roles,
        Self::Resources,
        Self::Spent,
        Self::Users,
        Self::Usage,
        Self::Warned,
        Self::Webhooks,
    ];

    /// The table with this byte.
    pub fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| *table as u8 == byte)
    }

    /// The name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Applications => "applications",
            Self::Audit => "audit",
            Self::Foreign => "foreign",
            Self::Keys => "keys",
            Self::Mails => "mails",
            Self::Names => "names",
            Self::Owners => "owners",
            Self::Roles => "roles",
            Self::Resources => "resources",
            Self::Spent => "spent",
            Self::Users => "users",
            Self::Usage => "usage",
            Self::Warned => "warned",
            Self::Webhooks => "webhooks",
        }
    }
}

/// Where it lies what was spent of the credits of a user or key.
pub fn spent_key(of: Table, number: u64) -> [u8; 9] {
    let mut key = [of as u8; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// What a commit changes in one place.
#[derive(Debug, Clone)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Which record.
    pub key: Vec<u8>,
    /// The record's JSON; none: the record goes.
    pub json: Option<Vec<u8>>,
}

/// What must hold for a commit to happen.
#[derive(Debug, Clone)]
pub struct Expect {
    /// Where.
    pub table: Table,
    /// Which record.
    pub key: Vec<u8>,
    /// In what state.
    pub state: State,
}

/// The state that a record is expected in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not there.
    Missing,
    /// It is there.
    Present,
    /// It was last written by this commit.
    Revision(Sequence),
    /// Of all records whose keys begin with this one, the newest was written by this commit; 0: there is none. So nothing has come to them
    /// since somebody looked.
    Newest(Sequence),
}

/// Writes that happen together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What must hold before.
    pub expects: Vec<Expect>,
    /// What is written.
    pub writes: Vec<Write>,
    /// What it leaves in the audit trail; none: nothing.
    pub trace: Option<audit_log::AuditAppend>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for `state` of a record.
    pub fn expect(&mut self, table: Table, key: impl Into<Vec<u8>>, state: State) -> &mut Self {
        self.expects.push(Expect { table, key: key.into(), state });
        self
    }

    /// Writes a record.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, json: Vec<u8>) -> &mut Self {
        self.writes.push(Write { table, key: key.into(), json: Some(json) });
        self
    }

    /// Takes a record away.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) -> &mut Self {
        self.writes.push(Write { table, key: key.into(), json: None });
        self
    }
}

/// A commit that happened.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number, which is the new revision of each record that it wrote.
    pub sequence: Sequence,
    /// What it wrote.
    pub writes: Vec<Write>,
}

/// Somebody who follows the store.
pub trait Subscriber: Send + Sync {
    /// Takes one change in. Called in the order of the sequence, never twice for one.
    fn apply(&self, change: &Change);
}

/// Why the store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the store open.
    #[error("the store {path} is in use by another process")]
    Locked {
        /// The store's folder.
        path: String,
    },
    /// The folder holds something else, or what is left of a store.
    #[error("the store {path} cannot be opened: {problem}. It was left as it is")]
    Unusable {
        /// The store's folder.
        path: String,
        /// What is the matter.
        problem: String,
    },
    /// A record is not what was written.
    #[error("the record {key} in {table} is damaged: {problem}")]
    Damaged {
        /// The record's table.
        table: &'static str,
        /// The record's key, as far as it can be printed.
        key: String,
        /// What is the matter.
        problem: String,
    },
    /// A record is larger than the engine keeps safely.
    #[error("a record in {table} would take {size} bytes; at most {limit} are kept")]
    TooLarge {
        /// The record's table.
        table: &'static str,
        /// Its size.
        size: usize,
        /// The most there can be.
        limit: usize,
    },
    /// The disk failed. Nothing is written any more until the next start.
    #[error("the store stopped writing: {0}")]
    Failed(String),
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A record was not in the state that the batch expects. Nothing was written.
    #[error("a record in {} is not in the expected state", .0.table.name())]
    Conflict(Expect),
    /// The store could not write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store no longer knows all changes since the sequence that was asked for: take a new snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

/// What [`Store::commit`] returns.
pub type CommitFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Sequence, CommitError>> + Send + 'a>>;

/// A record that is passed by.
#[derive(Debug, Clone, Copy)]
pub struct RecordRef<'a> {
    /// The sequence of the commit that last wrote it.
    pub revision: Sequence,
    /// The record.
    pub json: &'a [u8],
}

/// What is called with each record of a table: its key and its value.
pub type Visit<'a> = dyn FnMut(&[u8], RecordRef<'_>) -> Result<(), StoreError> + 'a;

/// A view of the store at one moment. Commits may wait while it is held.
pub trait Snapshot: Sync {
    /// The last commit that it shows.
    fn sequence(&self) -> Sequence;

    /// Calls `each` with every record of a table, in the order of the keys.
    fn each(&self, table: Table, each: &mut Visit<'_>) -> Result<(), StoreError> {
        self.within(table, &[], None, each)
    }

    /// The same with the records alone whose keys do not stand before `from` and, if there is a `to`, stand before that. Several threads can share
    /// a table.
    fn within(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        each: &mut Visit<'_>,
    ) -> Result<(), StoreError>;

    /// The last key of a table; none: it is empty.
    fn last(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError>;
}

/// An engine.
///
/// The contract, which one test suite holds every engine to:
/// - a batch is written whole or not at all, and only if each expectation holds when it is written;
/// - batches are written one after another; the sequence grows by one with each;
/// - [`commit`](Store::commit) answers when the batch would survive a power cut *and* every sink has taken it in;
/// - each record carries the sequence of the commit that last wrote it.
pub trait Store: Send + Sync + 'static {
    /// One record.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError>;

    /// At most `limit` records of a table whose keys begin with `prefix` and stand after `after`, in the order of the keys.
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError>;

    /// Everything at one moment.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError>;

    /// Writes a batch.
    fn commit(&self, batch: Batch) -> CommitFuture<'_>;

    /// Hands `sink` every change after `after`: those that were, at once; those that come, before their writer is answered.
    fn changes(&self, after: Sequence, sink: Arc<dyn Subscriber>) -> Result<(), Lagged>;

    /// Why the store has stopped writing, if it has.
    fn fault(&self) -> Option<String>;
}
