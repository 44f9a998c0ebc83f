//! Writing denials into the audit trail. They are taken from memory and written in batches.
//!
//! Decisions write nothing. Denials that are not written yet are lost when the process is killed,
//! but not when it stops.

use std::{future::Future, pin::pin, time::Duration};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts};
use crate::{
    limits::{DenialEntry, Drain, Subject, Summary, Verification},
    model::{Act, Actor, AuditEntry},
    store::{Batch, CommitError, encode},
};

/// The action of a denial in the audit trail.
const ACTION: &str = "request.deny";
/// The most entries of one commit.
const PART: usize = 100;
/// The interval between two writes.
const INTERVAL: Duration = Duration::from_secs(1);

impl Accounts {
    /// Writes the denials since the last call. If the write fails, the next call retries it.
    pub async fn write_denials(&self, drain: Drain) -> Result<(), AccountError> {
        let _guard = self.0.denials_lock.lock().await;
        loop {
            let pending = self.0.counters.take_denials(PART, drain);
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
            if count < PART {
                return Ok(());
            }
        }
    }

    /// Writes the denials every second, and a last time when `end` resolves, after the last
    /// request.
    pub async fn write_denials_periodically(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut drain = Drain::Hourly;
        while drain == Drain::Hourly {
            // A write is never cancelled: the denials that it has taken would be lost.
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut end => drain = Drain::Now,
            }
            if let Err(problem) = self.write_denials(drain).await {
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
        AuditEntry { time: denial.time, actor, act }
    }

    /// The actor of a denied request. If the client has not proven that it is the user that it
    /// names, the actor is anonymous and the details have the claimed user.
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

/// One entry for many denials.
fn summary_entry(summary: &Summary) -> AuditEntry {
    let details = json!({
        "times": summary.times,
        "since": summary.since.to_string(),
        "until": summary.until.to_string(),
        "errors": summary.codes,
    });
    let act = Act::other(ACTION, "several", details);
    AuditEntry { time: summary.until, actor: Actor::Program, act }
}
