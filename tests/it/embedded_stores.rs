//! Stores of programs: the contract as tests, and stores that break it are found.

use std::{io, path::PathBuf, sync::Arc};

use keyward::{
    Accounts, Clock, Entropy, MemoryStore, NewUser, Passwords, Pepper, RedbStore, SledStore, Store,
    StoreError, Timestamp, User,
    accounts::AccountError,
    store::{
        Batch, CommitFuture, Lagged, Sequence, Snapshot, Stored, Subscriber, Table,
        audit_log::AuditVerdict,
    },
    testing::contract,
};

use crate::embedded::custom_store::{Journal, JournalStore};

mod on_memory {
    use super::*;
    async fn open(_: PathBuf) -> Arc<dyn Store> {
        Arc::new(MemoryStore::new())
    }
    keyward::store_contract!(open);
}

mod on_sled {
    use super::*;
    async fn open(folder: PathBuf) -> Arc<dyn Store> {
        Arc::new(SledStore::open(&folder.join("store"), 16).unwrap())
    }
    keyward::store_contract!(open);
}

mod on_redb {
    use super::*;
    async fn open(folder: PathBuf) -> Arc<dyn Store> {
        Arc::new(RedbStore::open(&folder.join("store"), 16).unwrap())
    }
    keyward::store_contract!(open);
}

mod on_the_example {
    use super::*;
    async fn open(folder: PathBuf) -> Arc<dyn Store> {
        Arc::new(JournalStore::open(&folder.join("journal")).await.unwrap())
    }
    keyward::store_contract!(open);
}

/// The way in which a store breaks the contract.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    DropsTheTrail,
    IgnoresExpectations,
    ForgetsAtReopening,
}

struct BrokenStore(MemoryStore, Fault);

impl Store for BrokenStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Stored>, StoreError> {
        self.0.get(table, key)
    }
    fn scan(
        &self,
        table: Table,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Stored)>, StoreError> {
        self.0.scan(table, prefix, after, limit)
    }
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.0.snapshot()
    }
    fn commit(&self, mut batch: Batch) -> CommitFuture<'_> {
        match self.1 {
            Fault::DropsTheTrail => batch.audit = None,
            Fault::IgnoresExpectations => batch.expects.clear(),
            Fault::ForgetsAtReopening => {}
        }
        self.0.commit(batch)
    }
    fn subscribe(&self, after: Sequence, subscriber: Arc<dyn Subscriber>) -> Result<(), Lagged> {
        self.0.subscribe(after, subscriber)
    }
    fn fault(&self) -> Option<String> {
        None
    }
    fn keeps_records(&self) -> bool {
        self.1 == Fault::ForgetsAtReopening
    }
}

fn broken(fault: Fault) -> Arc<dyn Store> {
    Arc::new(BrokenStore(MemoryStore::new(), fault))
}

async fn without_trail(_: PathBuf) -> Arc<dyn Store> {
    broken(Fault::DropsTheTrail)
}

async fn without_expectations(_: PathBuf) -> Arc<dyn Store> {
    broken(Fault::IgnoresExpectations)
}

async fn forgetful(_: PathBuf) -> Arc<dyn Store> {
    broken(Fault::ForgetsAtReopening)
}

/// Whether a check fails.
async fn fails(check: impl Future<Output = ()> + 'static) -> bool {
    tokio::task::spawn_local(check).await.is_err_and(|problem| problem.is_panic())
}

#[tokio::test]
async fn store_that_breaks_the_contract_fails_its_check() {
    let checks = async {
        assert!(fails(contract::audit_trail_is_kept(without_trail)).await);
        let received = contract::subscribers_get_every_commit_before_its_writer(without_trail);
        assert!(fails(received).await);
        assert!(fails(contract::expectations_are_checked(without_expectations)).await);
        let atomic = contract::batch_is_written_completely_or_not_at_all(without_expectations);
        assert!(fails(atomic).await);
        assert!(fails(contract::records_survive_reopening(forgetful)).await);
        assert!(fails(contract::bytes_of_a_record_are_kept(forgetful)).await);
    };
    tokio::task::LocalSet::new().run_until(checks).await;
}

fn accounts(store: Arc<dyn Store>) -> Accounts {
    let (pepper, clock) = (Pepper::from_bytes([7; 32]), Clock::fixed(Timestamp(1_800_000_000)));
    Accounts::with(store, pepper, Passwords::new(1), clock, Entropy::system()).unwrap()
}

#[tokio::test]
async fn trail_that_a_store_has_dropped_is_not_intact() {
    let store = Arc::new(BrokenStore(MemoryStore::new(), Fault::DropsTheTrail));
    let accounts = accounts(store);
    accounts.first_start().await.unwrap();
    let verdict = accounts.verify_audit().await.unwrap();
    assert!(matches!(verdict, AuditVerdict::Tampered { .. }), "{verdict:?}");
}

/// A journal on a disk that is full after some lines.
struct FullDisk {
    inner: Box<dyn Journal>,
    lines_left: usize,
}

impl Journal for FullDisk {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        match self.lines_left.checked_sub(1) {
            Some(left) => {
                self.lines_left = left;
                self.inner.append(line)
            }
            None => {
                // Half of the line is in the file.
                self.inner.append(&line[..line.len() / 2])?;
                Err(io::Error::other("no space left"))
            }
        }
    }
    fn take_back(&mut self) -> io::Result<()> {
        self.inner.take_back()
    }
}

#[tokio::test]
async fn change_that_the_example_store_could_not_write_is_not_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal");
    let store = JournalStore::open(&file).await.unwrap();
    let wrap = |inner| Box::new(FullDisk { inner, lines_left: 2 }) as Box<dyn Journal>;
    let now = accounts(Arc::new(store.with_journal(wrap)));
    now.first_start().await.unwrap();
    let new = NewUser { name: "eve".into(), status: true, ..NewUser::default() };
    let uid = now.unbounded().create_user(new).await.unwrap().record.uid;
    let promote = |user: &mut User| {
        user.roles = vec!["administrator".into()];
        Ok::<_, AccountError>(())
    };
    let changed = now.unbounded().change_user(uid, None, promote).await;
    assert!(changed.unwrap_err().to_string().contains("no space left"));
    // Neither decisions nor readers see the change.
    let is_admin = |accounts: &Accounts| {
        let policy = accounts.directory().policy();
        accounts.directory().user(uid).unwrap().roles(&policy.roles).is_admin
    };
    assert!(!is_admin(&now), "the role is in force");
    assert!(now.user(uid).unwrap().unwrap().record.roles.is_empty(), "the role is in the store");
    assert!(now.fault().is_some_and(|fault| fault.contains("no space left")));
    let revoked = now.unbounded().delete_user(uid, None).await;
    assert!(revoked.is_err(), "a store that has failed accepts a write");
    // After a restart, the records are those that were confirmed.
    drop(now);
    let reopened = accounts(Arc::new(JournalStore::open(&file).await.unwrap()));
    assert!(!is_admin(&reopened));
    assert!(matches!(reopened.verify_audit().await.unwrap(), AuditVerdict::Intact { .. }));
}
