//! Writing denials into the audit trail. A background task takes the denials from memory and writes
//! them in batches.
//!
//! Deciding a request writes nothing to the store. If the process is killed, the denials that are
//! not written yet are lost. If the process stops normally, it writes them first.

use std::{future::Future, pin::pin, time::Duration};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts};
use crate::{
    limits::{DenialEntry, Subject, Summary, SummaryDue, Verification},
    model::{Act, Actor, AuditEntry},
    store::{Batch, CommitError, encode},
};

/// The name of the action in the audit entry of a denial.
const ACTION: &str = "request.deny";
/// The maximum number of entries in one commit.
const ENTRIES_PER_COMMIT: usize = 100;
/// The interval between two writes.
const INTERVAL: Duration = Duration::from_secs(1);

impl Accounts {
    /// Writes the denials that were recorded after the previous call. If the write fails, the next
    /// call retries it.
    pub async fn write_denials(&self, summary_due: SummaryDue) -> Result<(), AccountError> {
        let _guard = self.0.denials_lock.lock().await;
        loop {
            let pending = self.0.counters.take_denials(ENTRIES_PER_COMMIT, summary_due);
            let count = pending.entries.len();
            if count == 0 && pending.summary.is_none() {
                return Ok(());
            }
            let denials = pending.entries.iter().map(|denial| self.denial_entry(denial));
            let entries = denials.chain(pending.summary.as_ref().map(summary_entry));
            let entries = entries.map(|entry| encode(&entry)).collect();
            if let Err(problem) = self.append_to_trail(entries).await {
                self.0.counters.put_back_denials(pending);
                return Err(problem.into());
            }
            if count < ENTRIES_PER_COMMIT {
                return Ok(());
            }
        }
    }

    /// Writes the denials every second, and once more when `end` resolves. `end` has to resolve
    /// after the last request, so that all denials are written.
    pub async fn write_denials_periodically(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut summary_due = SummaryDue::WhenDue;
        while summary_due == SummaryDue::WhenDue {
            // Only the sleep is cancelled. A cancelled write would lose the denials that it has
            // taken from memory.
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut end => summary_due = SummaryDue::Now,
            }
            if let Err(problem) = self.write_denials(summary_due).await {
                tracing::warn!(%problem, "could not write denials into the audit trail; will retry");
            }
        }
    }

    async fn append_to_trail(&self, entries: Vec<Vec<u8>>) -> Result<(), CommitError> {
        let audit = Some(self.audit_append(entries)?);
        self.store().commit(Batch { audit, ..Batch::new() }).await.map(drop)
    }

    fn denial_entry(&self, denial: &DenialEntry) -> AuditEntry {
        let mut details = Map::new();
        details.insert("error".into(), denial.code.as_ref().into());
        details.insert("status".into(), denial.status.into());
        details.insert("times".into(), denial.times.into());
        let actor = self.denied_actor(denial, &mut details);
        let act = Act::other(ACTION, &denial.object, Value::Object(details));
        AuditEntry { time: denial.time, actor, act, operator: None }
    }

    /// The actor of a denied request. If the client has not proven its identity, the actor is
    /// anonymous, and the user, key and application that the client claimed are added to `details`.
    fn denied_actor(&self, denial: &DenialEntry, details: &mut Map<String, Value>) -> Actor {
        let Subject { uid, key, verification } = denial.subject;
        let client = denial.client.to_canonical();
        let user = uid.and_then(|uid| self.0.directory.user(uid));
        let application = denial.application.as_deref().unwrap_or_default();
        if verification == Verification::Proven
            && let Some(user) = &user
        {
            if user.is_operator() {
                return Actor::Operator { client };
            }
            return Actor::User {
                uid: user.uid,
                name: user.name.to_string(),
                key,
                application: application.to_owned(),
                client,
            };
        }
        if !application.is_empty() {
            details.insert("application".into(), application.into());
        }
        if let Some(uid) = uid {
            details.insert("uid".into(), uid.into());
        }
        if let Some(user) = user {
            details.insert("user".into(), user.name.to_string().into());
        }
        if let Some(key) = key {
            details.insert("key".into(), key.to_string().into());
        }
        Actor::Anonymous { client }
    }
}

/// One entry that counts all denials that have no entry of their own.
fn summary_entry(summary: &Summary) -> AuditEntry {
    let details = json!({
        "times": summary.times,
        "since": summary.since.to_string(),
        "until": summary.until.to_string(),
        "errors": summary.codes,
    });
    let act = Act::other(ACTION, "several", details);
    AuditEntry { time: summary.until, actor: Actor::Program, act, operator: None }
}
