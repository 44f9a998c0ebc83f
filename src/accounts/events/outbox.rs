//! Webhooks that wait for delivery.
//!
//! The commit of a change also stores the webhooks that report the change. Each webhook stays in
//! the store until it is delivered. So a webhook is sent if and only if the reported change was
//! written, and after a crash the server sends the remaining webhooks at its next start.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    accounts::{AccountError, Accounts, AccountsInner, users::new_uuid},
    model::Timestamp,
    scripting::RequestedWebhook,
    store::{Batch, Store, StoreError, Table, encode},
};

/// The default maximum number of waiting webhooks.
const DEFAULT_LIMIT: usize = 10_000;

/// A webhook that is not delivered yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingWebhook {
    /// The name of the receiver in the configuration.
    pub to: String,
    /// The body, as JSON.
    pub data: String,
    /// The time at which the webhook was stored.
    pub made: Timestamp,
    /// The number of failed deliveries.
    pub tries: u32,
    /// The earliest time of the next attempt at delivery.
    pub next: Timestamp,
}

/// The schedule of the webhooks in the store.
pub(in crate::accounts) struct WebhookQueue {
    /// The names of the configured receivers.
    pub names: Arc<[String]>,
    limit: usize,
    /// The webhooks of each receiver that wait for their next attempt at delivery, sorted by its
    /// time.
    due: Mutex<HashMap<String, BTreeSet<(Timestamp, Uuid)>>>,
    /// The number of webhooks in the store and in batches that are not committed yet.
    waiting: AtomicU64,
    dropped: AtomicU64,
    queued: Notify,
}

/// The webhooks of one batch. Call [`publish`](Self::publish) after the commit of the batch. If
/// this value is dropped without that call, the webhooks are not sent.
pub(in crate::accounts) struct WebhookBatch<'a> {
    queue: &'a WebhookQueue,
    webhooks: Vec<(Uuid, PendingWebhook)>,
}

impl WebhookQueue {
    /// A queue without receivers.
    pub fn none() -> Self {
        Self::new(Arc::default(), DEFAULT_LIMIT)
    }

    fn new(names: Arc<[String]>, limit: usize) -> Self {
        Self {
            names,
            limit,
            due: Mutex::default(),
            waiting: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            queued: Notify::new(),
        }
    }

    /// The queue with the webhooks that wait in the store.
    fn open(store: &dyn Store, names: Arc<[String]>, limit: usize) -> Result<Self, StoreError> {
        let queue = Self::new(names, limit);
        for (key, stored) in store.scan(Table::Webhooks, &[], None, usize::MAX)? {
            let webhook: PendingWebhook = stored.read(Table::Webhooks, &key)?;
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            queue.schedule(Uuid::from_slice(&key).unwrap_or_default(), &webhook);
        }
        Ok(queue)
    }

    fn schedule(&self, id: Uuid, webhook: &PendingWebhook) {
        self.due.lock().entry(webhook.to.clone()).or_default().insert((webhook.next, id));
    }

    /// Adds one to the number of waiting webhooks. `false` means that the queue is full.
    fn reserve(&self) -> bool {
        let limit = self.limit as u64;
        let add = |waiting: u64| (waiting < limit).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

impl WebhookBatch<'_> {
    /// Schedules the webhooks for delivery. Call this method after the commit of the batch.
    pub fn publish(mut self) {
        for (id, webhook) in std::mem::take(&mut self.webhooks) {
            self.queue.schedule(id, &webhook);
        }
        self.queue.queued.notify_waiters();
    }
}

impl Drop for WebhookBatch<'_> {
    fn drop(&mut self) {
        self.queue.waiting.fetch_sub(self.webhooks.len() as u64, Ordering::Relaxed);
    }
}

impl Accounts {
    /// Sets the receivers of webhooks and the maximum number of waiting webhooks. Schedules the
    /// webhooks that wait in the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn with_webhooks(
        self,
        names: impl IntoIterator<Item = String>,
        limit: usize,
    ) -> Result<Self, StoreError> {
        let queue = WebhookQueue::open(self.store(), names.into_iter().collect(), limit)?;
        let inner = AccountsInner { webhooks: Arc::new(queue), ..Arc::unwrap_or_clone(self.0) };
        Ok(Self(Arc::new(inner)))
    }

    /// Adds webhooks to a batch. Webhooks above the limit are dropped and counted.
    pub(in crate::accounts) fn add_webhooks(
        &self,
        requested: Vec<RequestedWebhook>,
        batch: &mut Batch,
    ) -> WebhookBatch<'_> {
        let queue = &*self.0.webhooks;
        let now = self.0.clock.now();
        let mut webhooks = Vec::with_capacity(requested.len());
        for RequestedWebhook { name, data } in requested {
            if !queue.reserve() {
                let dropped = queue.dropped.fetch_add(1, Ordering::Relaxed) + 1;
                // Log the 1st, 2nd, 4th, 8th … dropped webhook, so that a million dropped webhooks
                // do not fill the log.
                if dropped.is_power_of_two() {
                    tracing::error!(
                        webhook = name,
                        dropped,
                        "too many webhooks wait for delivery: new ones are dropped"
                    );
                }
                continue;
            }
            let id = new_uuid(self);
            let webhook = PendingWebhook { to: name, data, made: now, tries: 0, next: now };
            batch.put(Table::Webhooks, id.as_bytes().as_slice(), encode(&webhook));
            webhooks.push((id, webhook));
        }
        WebhookBatch { queue, webhooks }
    }

    /// The number of waiting webhooks, and the number of webhooks that were dropped because the
    /// queue was full.
    pub fn webhooks(&self) -> (u64, u64) {
        let queue = &self.0.webhooks;
        (queue.waiting.load(Ordering::Relaxed), queue.dropped.load(Ordering::Relaxed))
    }

    /// Waits until new webhooks are added to the schedule.
    pub async fn webhooks_queued(&self) {
        self.0.webhooks.queued.notified().await;
    }

    /// Takes at most `limit` due webhooks of a receiver out of the schedule. After the delivery of
    /// a webhook call [`remove_webhook`](Self::remove_webhook), after a failure call
    /// [`retry_webhook_later`](Self::retry_webhook_later).
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn take_due_webhooks(
        &self,
        to: &str,
        limit: usize,
    ) -> Result<Vec<(Uuid, PendingWebhook)>, AccountError> {
        let (now, queue) = (self.0.clock.now(), &self.0.webhooks);
        let mut ids = Vec::new();
        if let Some(due) = queue.due.lock().get_mut(to) {
            while ids.len() < limit
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
                None => drop(queue.waiting.fetch_sub(1, Ordering::Relaxed)),
            }
        }
        Ok(found)
    }

    /// Deletes a webhook that was delivered, or whose delivery was given up.
    ///
    /// # Errors
    /// The store cannot write. After the next start the webhook may be sent again.
    pub async fn remove_webhook(&self, id: Uuid) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        batch.delete(Table::Webhooks, id.as_bytes().as_slice());
        self.store().commit(batch).await?;
        self.0.webhooks.waiting.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// Schedules a webhook again for the time `next` in its record.
    ///
    /// # Errors
    /// The store cannot write. The webhook is scheduled anyway, but its number of failed deliveries
    /// is lost at the next start.
    pub async fn retry_webhook_later(
        &self,
        id: Uuid,
        webhook: PendingWebhook,
    ) -> Result<(), AccountError> {
        let mut batch = Batch::new();
        batch.put(Table::Webhooks, id.as_bytes().as_slice(), encode(&webhook));
        let written = self.store().commit(batch).await;
        self.0.webhooks.schedule(id, &webhook);
        written?;
        Ok(())
    }

    /// Deletes the webhooks of receivers that are no longer configured. Returns their number.
    ///
    /// # Errors
    /// The store cannot write.
    pub async fn drop_unknown_webhooks(&self) -> Result<usize, AccountError> {
        let queue = &self.0.webhooks;
        let unknown: Vec<Uuid> = {
            let mut due = queue.due.lock();
            let removed = due.extract_if(|to, _| !queue.names.contains(to));
            removed.flat_map(|(_, webhooks)| webhooks).map(|(_, id)| id).collect()
        };
        for id in &unknown {
            self.remove_webhook(*id).await?;
        }
        Ok(unknown.len())
    }

    /// Commits a batch and its webhooks without an audit entry. An empty batch is not written.
    pub(in crate::accounts) async fn commit_event(
        &self,
        mut batch: Batch,
        requested: Vec<RequestedWebhook>,
    ) -> Result<(), AccountError> {
        let webhooks = self.add_webhooks(requested, &mut batch);
        if !batch.writes.is_empty() {
            self.store().commit(batch).await?;
        }
        webhooks.publish();
        Ok(())
    }
}
