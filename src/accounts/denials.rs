//! Writing denials into the audit trail. They are taken from memory and written in batches.
//!
//! Decisions write nothing. Denials that are not written yet are lost when the process is killed,
//! but not when it stops.

use std::{future::Future, pin::pin, time::Duration};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts};
use crate::{
    limits::{More, Rest, Standing, Told},
    model::{Act, Actor, AuditEntry},
    store::{Batch, encode},
};

/// The action of a denial in the audit trail.
const ACTION: &str = "request.deny";
/// The most entries of one commit.
const PART: usize = 100;
/// The interval between two writes.
const INTERVAL: Duration = Duration::from_secs(1);

impl Accounts {
    /// Writes the denials since the last call. If the write fails, the next call retries it.
    pub async fn write_denials(&self, rest: Rest) -> Result<(), AccountError> {
        let _guard = self.0.denials_lock.lock().await;
        loop {
            let pending = self.0.counters.take_denials(PART, rest);
            let count = pending.each.len();
            if count == 0 && pending.more.is_none() {
                return Ok(());
            }
            let denials = pending.each.iter().map(|denial| self.denial_entry(denial));
            let entries = denials.chain(pending.more.as_ref().map(summary_entry));
            let audit = self.audit_append(entries.map(|entry| encode(&entry)).collect());
            let batch = Batch { audit: Some(audit), ..Batch::new() };
            if let Err(problem) = self.store().commit(batch).await {
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
        let mut rest = Rest::InTime;
        while rest == Rest::InTime {
            // A write is never cancelled: the denials that it has taken would be lost.
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut end => rest = Rest::Now,
            }
            if let Err(problem) = self.write_denials(rest).await {
                tracing::warn!(%problem, "could not write denials into the audit trail; will retry");
            }
        }
    }

    fn denial_entry(&self, denial: &Told) -> AuditEntry {
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
    fn denied_actor(&self, denial: &Told, details: &mut Map<String, Value>) -> Actor {
        let client = denial.client.to_canonical();
        let user = denial.suspect.uid.and_then(|uid| self.0.directory.user(uid));
        let application = denial.application.as_deref().unwrap_or_default();
        if denial.suspect.standing == Standing::Proven
            && let Some(user) = &user
        {
            if user.is_operator() {
                return Actor::Operator { client };
            }
            return Actor::User {
                uid: user.uid,
                name: user.name.to_string(),
                key: denial.suspect.key,
                application: application.to_owned(),
                client,
            };
        }
        if !application.is_empty() {
            details.insert("application".into(), application.into());
        }
        if let Some(uid) = denial.suspect.uid {
            details.insert("uid".into(), uid.into());
        }
        if let Some(user) = user {
            details.insert("user".into(), user.name.to_string().into());
        }
        if let Some(key) = denial.suspect.key {
            details.insert("key".into(), key.to_string().into());
        }
        Actor::Anonymous { client }
    }
}

/// One entry for many denials.
fn summary_entry(more: &More) -> AuditEntry {
    let details = json!({
        "times": more.times,
        "since": more.since.to_string(),
        "until": more.until.to_string(),
        "errors": more.codes,
    });
    let act = Act::other(ACTION, "several", details);
    AuditEntry { time: more.until, actor: Actor::Program, act }
}
