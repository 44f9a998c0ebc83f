//! Webhooks on their way: each lies in the store from the commit that it tells of until it is delivered. So one is sent if and only if what it tells
//! of was written, and a killed server sends after its next start what it had not sent before.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    accounts::{AccountError, Accounts, users::new_uuid},
    model::Timestamp,
    scripting::Webhook,
    store::{Batch, CommitError, Store, StoreError, Table, encode},
};

/// The webhooks that wait when nobody says otherwise.
const MOST: usize = 10_000;

/// A webhook that is not delivered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWebhook {
    /// To whom, by the name in the configuration.
    pub to: String,
    /// What, as JSON.
    pub data: String,
    /// When it was written.
    pub made: Timestamp,
    /// How often it was tried.
    pub tries: u32,
    /// Not before this moment.
    pub next: Timestamp,
}

/// What is known of the letters without asking the store.
pub(in crate::accounts) struct Outbox {
    /// The webhooks that there are.
    pub names: Arc<[String]>,
    most: usize,
    /// Those that nobody is delivering, by whom they are for and when they may be tried.
    due: Mutex<HashMap<String, BTreeSet<(Timestamp, Uuid)>>>,
    /// Those that are written or about to be.
    waiting: AtomicU64,
    dropped: AtomicU64,
    arrived: Notify,
}

/// Letters that go with a batch. Where it is not written, they are as if they had never been.
pub(in crate::accounts) struct Post<'a> {
    outbox: &'a Outbox,
    letters: Vec<(Uuid, PendingWebhook)>,
}

impl Outbox {
    /// Of no webhooks at all.
    pub fn none() -> Self {
        Self::new(Arc::default(), MOST)
    }

    fn new(names: Arc<[String]>, most: usize) -> Self {
        Self {
            names,
            most,
            due: Mutex::default(),
            waiting: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            arrived: Notify::new(),
        }
    }

    fn open(store: &dyn Store, names: Arc<[String]>, most: usize) -> Result<Self, StoreError> {
        let outbox = Self::new(names, most);
        for (key, stored) in store.scan(Table::Webhooks, &[], None, usize::MAX)? {
            let letter: PendingWebhook = stored.read(Table::Webhooks, &key)?;
            outbox.waiting.fetch_add(1, Ordering::Relaxed);
            outbox.put(id(&key), &letter);
        }
        Ok(outbox)
    }

    fn put(&self, id: Uuid, letter: &PendingWebhook) {
        self.due().entry(letter.to.clone()).or_default().insert((letter.next, id));
    }

    fn due(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<(Timestamp, Uuid)>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for one more, if there is room.
    fn admit(&self) -> bool {
        let most = self.most as u64;
        let add = |waiting: u64| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

impl Post<'_> {
    /// The batch was written: they may be sent.
    pub fn set_free(mut self) {
        for (id, letter) in std::mem::take(&mut self.letters) {
            self.outbox.put(id, &letter);
        }
        self.outbox.arrived.notify_waiters();
    }
}

impl Drop for Post<'_> {
    fn drop(&mut self) {
        self.outbox.waiting.fetch_sub(self.letters.len() as u64, Ordering::Relaxed);
    }
}

impl Accounts {
    /// The same accounts, with these webhooks, of which so many wait at most. What waits in the store already is taken up.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn with_webhooks(
        self,
        names: impl IntoIterator<Item = String>,
        most: usize,
    ) -> Result<Self, StoreError> {
        let outbox = Arc::new(Outbox::open(self.store(), names.into_iter().collect(), most)?);
        Ok(Self(Arc::new(crate::accounts::Inner { outbox, ..Arc::unwrap_or_clone(self.0) })))
    }

    /// Puts webhooks into a batch. Where too many wait already, the newest are left out, and the log is told.
    pub(in crate::accounts) fn post(&self, webhooks: Vec<Webhook>, batch: &mut Batch) -> Post<'_> {
        let outbox = &*self.0.outbox;
        let now = self.0.clock.now();
        let mut letters = Vec::with_capacity(webhooks.len());
        for Webhook { name, data } in webhooks {
            if !outbox.admit() {
                let dropped = outbox.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                // Not a line for each of a million.
                if dropped.is_power_of_two() {
                    tracing::error!(
                        webhook = name,
                        dropped,
                        "too many webhooks wait: the newest are left out"
                    );
                }
                continue;
            }
            let id = new_uuid(self);
            let letter = PendingWebhook { to: name, data, made: now, tries: 0, next: now };
            batch.put(Table::Webhooks, id.as_bytes().as_slice(), encode(&letter));
            letters.push((id, letter));
        }
        Post { outbox, letters }
    }

    /// How many webhooks wait, and how many were left out because too many did.
    pub fn webhooks(&self) -> (u64, u64) {
        let outbox = &self.0.outbox;
        (outbox.waiting.load(Ordering::Relaxed), outbox.dropped.load(Ordering::Relaxed))
    }

    /// Waits until there may be new letters.
    pub async fn letters_arrive(&self) {
        self.0.outbox.arrived.notified().await;
    }

    /// Takes out at most so many letters for somebody that may be tried now. Each is to be given back: delivered or later.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn letters(
        &self,
        to: &str,
        most: usize,
    ) -> Result<Vec<(Uuid, PendingWebhook)>, AccountError> {
        let (now, outbox) = (self.0.clock.now(), &self.0.outbox);
        let mut ids = Vec::new();
        if let Some(due) = outbox.due().get_mut(to) {
            while ids.len() < most
                && let Some(first) = due.first().copied()
                && first.0 <= now
            {
                due.pop_first();
                ids.push(first.1);
            }
        }
        let mut found = Vec::with_capacity(ids.len());
        for id in ids {
            match self.store().get(Table::Webhooks, id.as_bytes())? {
                Some(stored) => found.push((id, stored.read(Table::Webhooks, id.as_bytes())?)),
                None => drop(outbox.waiting.fetch_sub(1, Ordering::Relaxed)),
            }
        }
        Ok(found)
    }

    /// A letter was delivered, or is given up.
    ///
    /// # Errors
    /// The store cannot write: it may be sent again after the next start.
    pub async fn letter_done(&self, id: Uuid) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        batch.delete(Table::Webhooks, id.as_bytes().as_slice());
        self.write_letters(batch).await?;
        self.0.outbox.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// A letter is to be tried again, when it says.
    ///
    /// # Errors
    /// The store cannot write: how often it was tried is forgotten by the next start.
    pub async fn letter_later(&self, id: Uuid, letter: PendingWebhook) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        batch.put(Table::Webhooks, id.as_bytes().as_slice(), encode(&letter));
        let written = self.write_letters(batch).await;
        self.0.outbox.put(id, &letter);
        written
    }

    /// Gives up the letters to those whom the configuration does not know any more.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn drop_strangers_letters(&self) -> Result<usize, AccountError> {
        let outbox = &self.0.outbox;
        let strangers: Vec<Uuid> = {
            let mut due = outbox.due();
            let gone = due.extract_if(|to, _| !outbox.names.contains(to));
            gone.flat_map(|(_, letters)| letters).map(|(_, id)| id).collect()
        };
        for id in &strangers {
            self.letter_done(*id).await?;
        }
        Ok(strangers.len())
    }

    /// Writes what no audit entry tells of.
    pub(in crate::accounts) async fn write_letters(
        &self,
        batch: Batch,
    ) -> Result<(), AccountError> {
        if batch.writes.is_empty() {
            return Ok(());
        }
        match self.store().commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Store(problem)) => Err(problem.into()),
            Err(CommitError::Conflict(_)) => Err(AccountError::contended()),
        }
    }
}

fn id(key: &[u8]) -> Uuid {
    Uuid::from_slice(key).unwrap_or_default()
}
