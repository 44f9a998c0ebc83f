//! Reading and verifying the audit trail.

use std::{
    fmt,
    future::Future,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts, Writer};
use crate::{
    model::{Act, AuditEntry, Digest},
    store::{
        Batch, Cancel, Table,
        audit_log::{self, AuditVerdict, Generation, Verification},
        decode, encode, table,
    },
};

/// The entries of one step of the background verification. A step takes about a millisecond.
const BACKGROUND_STEP: usize = 128;
/// The least pause between two steps.
const MIN_PAUSE: Duration = Duration::from_millis(10);
/// The background verification pauses this many times as long as a step took, so that it uses at
/// most 5 % of one core and of the disk's time.
const PAUSE_FACTOR: u32 = 19;
/// The maximum number of records in one entry that lists records.
const RECORDS_PER_ENTRY: usize = 250;
/// The pause after the store could not be read.
const RETRY: Duration = Duration::from_secs(60);

/// An entry with its position in the chain.
#[derive(Debug, Clone)]
pub struct NumberedEntry {
    /// The number of the entry.
    pub number: u64,
    /// The hash of the entry, which depends on all entries before it.
    pub hash: Digest,
    /// The id of the generation that begins with this entry. `None` means that the entry belongs to
    /// the generation of the entry before it.
    pub generation: Option<Digest>,
    /// The entry.
    pub entry: AuditEntry,
}

/// The order of a page of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditOrder {
    /// The oldest entry comes first.
    Oldest,
    /// The newest entry comes first.
    Newest,
}

/// A page of the audit trail.
#[derive(Debug, Clone)]
pub struct AuditPage {
    /// The entries.
    pub items: Vec<NumberedEntry>,
    /// Whether more entries follow in this order.
    pub has_more: bool,
}

/// The result of the last verification of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TrailStatus {
    /// The trail was not verified yet.
    #[default]
    Unverified,
    /// All entries are as they were written.
    Intact,
    /// The trail was changed.
    Tampered {
        /// The number of the first entry that was changed, or of the entry after which the trail
        /// was truncated.
        number: u64,
        /// The finding, as a sentence.
        problem: &'static str,
    },
    /// The trail could not be verified, because the store could not be read.
    Unreadable(String),
}

impl From<&AuditVerdict> for TrailStatus {
    fn from(verdict: &AuditVerdict) -> Self {
        match *verdict {
            AuditVerdict::Intact { .. } => Self::Intact,
            AuditVerdict::Tampered { number, problem } => Self::Tampered { number, problem },
        }
    }
}

impl Accounts {
    /// At most `limit` entries that follow the entry with the number `after` in this order. A page
    /// ends before an entry that is not what was written, and the next page is then an error.
    ///
    /// # Errors
    /// [`AccountError::AuditTrail`] if the first entry of the page, or the trail's beginning or end
    /// is not what was written.
    pub fn audit(
        &self,
        order: AuditOrder,
        after: Option<u64>,
        limit: usize,
    ) -> Result<AuditPage, AccountError> {
        let key = self.0.pepper.audit_key();
        let page = match order {
            AuditOrder::Oldest => audit_log::oldest_first(self.store(), &key, after, limit)?,
            AuditOrder::Newest => audit_log::newest_first(self.store(), &key, after, limit)?,
        };
        let items = page.entries.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(AuditPage { items, has_more: page.has_more })
    }

    /// Verifies the whole trail. It may be long, so this runs on a thread of its own.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, AccountError> {
        let (accounts, cancel) = (self.clone(), Cancel::default());
        let _cancelled_with_the_request = cancel.on_drop();
        let verifying = tokio::task::spawn_blocking(move || {
            audit_log::verify(accounts.store(), &accounts.0.pepper.audit_key(), &cancel)
        });
        let verdict = verifying.await.map_err(|_| interrupted())??;
        self.set_trail_status((&verdict).into());
        Ok(verdict)
    }

    /// Verifies the whole trail in small steps with pauses, beside other work, and logs the result.
    /// Ends early when `end` resolves.
    pub async fn verify_audit_in_background(&self, end: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = end => {}
            () = self.verify_in_steps() => {}
        }
    }

    async fn verify_in_steps(&self) {
        let started = Instant::now();
        let mut verification = Verification::default();
        loop {
            let accounts = self.clone();
            let step = tokio::task::spawn_blocking(move || {
                let started = Instant::now();
                let key = accounts.0.pepper.audit_key();
                let verdict = verification.step(accounts.store(), &key, BACKGROUND_STEP);
                (verification, verdict, started.elapsed())
            });
            let Ok((progress, verdict, taken)) = step.await else { return };
            verification = progress;
            let pause = match verdict {
                Ok(None) => (taken * PAUSE_FACTOR).max(MIN_PAUSE),
                Ok(Some(verdict)) => {
                    self.set_trail_status((&verdict).into());
                    return log_verdict(&verdict, started.elapsed());
                }
                Err(problem) => {
                    tracing::error!(%problem, "could not verify the audit trail; will retry");
                    self.set_trail_status(TrailStatus::Unreadable(problem.to_string()));
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The maximum number of entries that the audit trail keeps. Older entries are removed.
    pub fn audit_limit(&self) -> u64 {
        self.0.audit_entries
    }

    /// The result of the last verification of the audit trail.
    pub fn trail_status(&self) -> TrailStatus {
        self.0.trail_status.lock().clone()
    }

    fn set_trail_status(&self, status: TrailStatus) {
        *self.0.trail_status.lock() = status;
    }
}

impl Writer {
    /// Adds an entry about a restore. It begins a new generation of the trail, and names the entry
    /// that the restored trail ended with. The entry is in one commit with `batch`.
    ///
    /// Returns the verdict about the restored trail. If the trail was tampered with, it still is
    /// after the restore: every later verification reports it.
    pub(super) async fn record_restore(
        &self,
        mut details: Map<String, Value>,
        batch: Batch,
    ) -> Result<AuditVerdict, AccountError> {
        let verdict = self.verify_audit().await?;
        let trail = match &verdict {
            AuditVerdict::Intact { end, .. } => {
                json!({ "generation": end.generation, "number": end.number, "hash": end.hash })
            }
            AuditVerdict::Tampered { number, problem } => {
                json!({ "state": "tampered", "number": number, "problem": problem })
            }
        };
        details.insert("trail".into(), trail);
        let act = Act::other("store.restore", "store", Value::Object(details));
        let entry = self.entry(self.0.clock.now(), act);
        let mut append = self.audit_append(vec![encode(&entry)])?;
        if append.generation == Generation::Current {
            append.generation = Generation::Next(self.new_generation());
        }
        self.store().commit(Batch { audit: Some(append), ..batch }).await?;
        Ok(verdict)
    }
}

/// Entries with a list of records that belong to one change, for changes of so many records that an
/// entry for each of them would push other entries out of the trail.
pub(super) fn record_list(
    action: &str,
    object: &str,
    name: &str,
    records: Vec<impl Into<Value>>,
) -> Vec<Act> {
    let (mut acts, mut part) = (Vec::new(), Vec::new());
    let total = records.len();
    for (index, record) in records.into_iter().enumerate() {
        part.push(record.into());
        if part.len() == RECORDS_PER_ENTRY || index + 1 == total {
            let details = json!({ name: std::mem::take(&mut part) });
            acts.push(Act::other(action, object, details));
        }
    }
    acts
}

fn log_verdict(verdict: &AuditVerdict, duration: Duration) {
    let seconds = duration.as_secs_f32();
    match verdict {
        AuditVerdict::Intact { first, end } => tracing::info!(
            entries = end.number + 1 - first,
            last = end.number,
            seconds,
            "the audit trail is intact"
        ),
        AuditVerdict::Tampered { number, problem } => tracing::error!(
            number,
            problem,
            "the audit trail was tampered with; run keyward audit verify, and compare with a backup"
        ),
    }
}

fn interrupted() -> AccountError {
    AccountError::refused("The audit trail could not be read to its end.", "Try again.")
}

impl fmt::Display for TrailStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unverified => f.write_str("The audit trail was not verified yet."),
            Self::Intact => f.write_str("The audit trail is intact."),
            Self::Tampered { number, problem } => {
                write!(f, "The audit trail was tampered with at entry {number}. {problem}")
            }
            Self::Unreadable(problem) => {
                write!(f, "The audit trail could not be verified: {problem}.")
            }
        }
    }
}

fn read(entry: audit_log::ChainEntry) -> Result<NumberedEntry, AccountError> {
    let audit_log::ChainEntry { number, hash, generation, json } = entry;
    let entry = decode(Table::Audit, &table::audit(number), &json)?;
    Ok(NumberedEntry { number, hash, generation, entry })
}
