//! The workload, and the model of the records that it must leave.
//!
//! The workload is repeatable: clock and random bytes are fixed. So the model is made by running it
//! on the store in memory, and each record of a disk store must be equal to the model's, byte for
//! byte: users, names, mail addresses, keys, owners, roles, usage and the audit trail.

use std::{collections::BTreeMap, ops::Range, path::Path, sync::Arc};

use keyward::{
    AccountError, Accounts, Actor, Clock, Entropy, MemoryStore, NewKey, NewUser, Passwords, Pepper,
    Role, Store, StoreError, Timestamp,
    model::{KeyId, RateLimit, User},
    store::{Batch, Commit, Sequence, Subscriber, Table},
};
use parking_lot::Mutex;

/// The maximum number of entries in the audit trail: small, so that old entries are removed too.
const AUDIT_ENTRIES: u64 = 120;
/// The attribute that changes of several users at once set.
const NOTE: &str = "note";

/// All records: the revision and the JSON by table and key.
pub type State = BTreeMap<(u8, Vec<u8>), (Sequence, Vec<u8>)>;

/// Repeatable numbers (splitmix64).
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len() as u64) as usize)
    }
}

/// Loads the accounts of a store. A session begins with the step `first`: the accounts of two
/// sessions draw other random bytes.
pub fn accounts(store: Arc<dyn Store>, seed: u64, first: usize) -> Result<Accounts, StoreError> {
    let clock = Clock::fixed(Timestamp(1_800_000_000 + 60 * first as i64));
    let entropy = Entropy::seeded(seed.wrapping_mul(1_000_003) + first as u64);
    let accounts = Accounts::with(store, pepper(), Passwords::new(1), clock, entropy)?;
    Ok(accounts.with_audit_entries(AUDIT_ENTRIES))
}

pub fn pepper() -> Pepper {
    Pepper::from_bytes([7; 32])
}

/// A runtime for one thread.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Runs one step of the workload: a change, or a few changes at once.
pub async fn step(accounts: &Accounts, seed: u64, number: usize) -> Result<(), AccountError> {
    if number == 0 {
        return accounts.first_start().await.map(drop);
    }
    let mut random = Random::new(seed.wrapping_mul(31) + number as u64);
    let users: Vec<User> =
        accounts.users(Some(1), usize::MAX)?.items.into_iter().map(|user| user.record).collect();
    let keys = accounts.keys(None, usize::MAX)?.items;
    let valid: Vec<KeyId> = keys
        .iter()
        .filter(|key| key.record.user != 1 && key.record.revoked.is_none())
        .map(|key| key.record.id)
        .collect();
    let writer = accounts.as_actor(Actor::Program);
    let kind = if users.len() < 4 { 0 } else { random.below(20) };
    let user = random.pick(&users).map_or(1, |user| user.uid);
    let key = random.pick(&valid).copied();
    match (kind, key) {
        (0..=3, _) => {
            let mail = (random.below(3) > 0).then(|| format!("user-{number}@example.com"));
            let note = "x".repeat(random.below(500) as usize);
            let attributes = [(NOTE.to_owned(), note)].into();
            let name = format!("User {number}");
            let new = NewUser { name, mail, status: true, attributes, ..NewUser::default() };
            writer.create_user(new).await?;
        }
        (9..=13, Some(key)) => drop(writer.revoke_key(key).await?),
        (14, _) => {
            let change = |user: &mut User| {
                user.status = !user.status;
                user.mail = Some(format!("moved-{number}@example.com"));
                Ok::<_, AccountError>(())
            };
            writer.change_user(user, None, change).await?;
        }
        (15, _) => {
            let role = Role {
                id: format!("role-{number}"),
                label: format!("Role {number}"),
                weight: 5,
                is_admin: false,
                permissions: std::collections::BTreeSet::new(),
            };
            let id = role.id.clone();
            writer.create(role).await?;
            let change = |user: &mut User| {
                user.roles = vec![id.clone()];
                Ok::<_, AccountError>(())
            };
            writer.change_user(user, None, change).await?;
        }
        (16, Some(key)) => {
            let rate = RateLimit::parse("rate", &format!("{}/1m", number + 1)).unwrap();
            let change = |user: &mut User| {
                user.rate_limit = Some(rate);
                Ok::<_, AccountError>(())
            };
            writer.change_user(user, None, change).await?;
            let change = |key: &mut keyward::Key| {
                key.rate_limit = Some(rate);
                key.label = format!("limited by step {number}");
                Ok::<_, AccountError>(())
            };
            writer.change_key(key, None, change).await?;
        }
        (17, _) => writer.delete_user(user, None).await?,
        (18, Some(key)) => {
            accounts.counters().used(key);
            accounts.write_usage().await?;
        }
        (19, _) => {
            // The changes of different users wait together and can be written as one group.
            let changes = users.iter().rev().take(3).map(|user| {
                let change = move |user: &mut User| {
                    user.attributes.insert(NOTE.into(), format!("changed by step {number}"));
                    Ok::<_, AccountError>(())
                };
                writer.change_user(user.uid, None, change)
            });
            for result in futures_util::future::join_all(changes).await {
                result?;
            }
        }
        _ => {
            let new = NewKey { label: format!("key {number}"), ..NewKey::default() };
            writer.issue_key(user, new).await?;
        }
    }
    Ok(())
}

/// The records after each commit of the workload.
pub struct Model {
    pub seed: u64,
    commits: Vec<Commit>,
    /// The number of the last commit after each number of steps.
    after: Vec<Sequence>,
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Commit>>);

impl Subscriber for Recorder {
    fn apply(&self, commit: &Commit) {
        self.0.lock().push(commit.clone());
    }
}

impl Model {
    /// Runs the steps of all sessions on the store in memory.
    pub fn new(seed: u64, sessions: &[Range<usize>]) -> Self {
        let store = Arc::new(MemoryStore::new());
        let recorder = Arc::new(Recorder::default());
        store.subscribe(0, recorder.clone()).unwrap();
        let mut after = vec![0];
        for session in sessions {
            let accounts = accounts(store.clone(), seed, session.start).unwrap();
            for number in session.clone() {
                runtime().block_on(step(&accounts, seed, number)).unwrap();
                after.push(recorder.0.lock().len() as Sequence);
            }
        }
        let commits = std::mem::take(&mut *recorder.0.lock());
        Self { seed, commits, after }
    }

    /// The number of the last commit after so many steps.
    pub fn after(&self, steps: usize) -> Sequence {
        self.after[steps.min(self.after.len() - 1)]
    }

    /// The commits that may be the last one in a store, if so many steps were acknowledged and the
    /// next one was sent.
    pub fn allowed(&self, acknowledged: usize) -> std::ops::RangeInclusive<Sequence> {
        self.after(acknowledged)..=self.after(acknowledged + 1)
    }

    /// All records after a commit.
    pub fn state(&self, sequence: Sequence) -> State {
        let mut state = State::new();
        for commit in self.commits.iter().take(sequence as usize) {
            for write in &commit.writes {
                let place = (write.table as u8, write.key.clone());
                match &write.json {
                    Some(json) => state.insert(place, (commit.sequence, json.clone())),
                    None => state.remove(&place),
                };
            }
        }
        state
    }

    /// A store in memory with the records after a commit. Their revisions can differ.
    pub fn store(&self, sequence: Sequence) -> Arc<dyn Store> {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for ((table, key), (_, json)) in self.state(sequence) {
            batch.put(Table::from_byte(table).unwrap(), key, json);
        }
        runtime().block_on(store.commit(batch)).unwrap();
        Arc::new(store)
    }
}

/// Creates a store on a disk with several sessions of the workload. `inspect` is called after each
/// step while the store is open, with the number of steps so far.
pub fn create(
    engine: &str,
    path: &Path,
    seed: u64,
    sessions: &[Range<usize>],
    mut inspect: impl FnMut(usize),
) {
    for session in sessions {
        let store = crate::engine::open(engine, path).unwrap();
        let accounts = accounts(store, seed, session.start).unwrap();
        for number in session.clone() {
            runtime().block_on(step(&accounts, seed, number)).unwrap();
            inspect(number + 1);
        }
    }
}
