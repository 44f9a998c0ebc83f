//! Denials, taken from memory and written into the audit trail, many at a time. A decision writes nothing.
//!
//! What was not written yet is lost when the process is killed, and nothing is when it stops.

use std::{future::Future, pin::pin, time::Duration};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts};
use crate::{
    limits::{More, Rest, Standing, Told, Untold},
    model::{Act, Actor, AuditEntry},
    store::{Batch, CommitError, audit_log::AuditAppend, encode},
};

/// What the trail calls a denial.
const DENY: &str = "request.deny";
/// The entries of one commit.
const PART: usize = 100;
/// How often those that wait are written.
const EVERY: Duration = Duration::from_secs(1);

impl Accounts {
    /// Writes down what was refused since the last time. What cannot be written is tried again with what comes next.
    pub async fn write_denials(&self, rest: Rest) -> Result<(), AccountError> {
        let _turn = self.0.writing_denials.lock().await;
        loop {
            let untold = self.0.ledger.take_denials(PART, rest);
            let (count, more) = (untold.each.len(), untold.more.is_some());
            if count == 0 && !more {
                return Ok(());
            }
            let entries: Vec<Vec<u8>> = self.entries(&untold).iter().map(encode).collect();
            let trace =
                AuditAppend { entries, key: self.0.pepper.audit_key(), keep: self.0.audit_entries };
            let batch = Batch { trace: Some(trace), ..Batch::new() };
            match self.store().commit(batch).await {
                Ok(_) => {}
                Err(problem) => {
                    self.0.ledger.put_back_denials(untold);
                    return Err(match problem {
                        CommitError::Store(problem) => problem.into(),
                        // It expects nothing.
                        CommitError::Conflict(_) => AccountError::contended(),
                    });
                }
            }
            if count < PART {
                return Ok(());
            }
        }
    }

    /// Does so again and again, and for the last time when `end` has come: after the last request.
    pub async fn keep_denials(&self, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        let mut rest = Rest::InTime;
        while rest == Rest::InTime {
            // A write is never broken off: what it has taken out of memory would be lost.
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = &mut end => rest = Rest::Now,
            }
            if let Err(problem) = self.write_denials(rest).await {
                tracing::warn!(%problem, "denials were not written into the audit trail");
            }
        }
    }

    fn entries(&self, untold: &Untold) -> Vec<AuditEntry> {
        let each = untold.each.iter().map(|told| self.entry(told));
        each.chain(untold.more.as_ref().map(together)).collect()
    }

    fn entry(&self, told: &Told) -> AuditEntry {
        let mut known = Map::new();
        known.insert("error".into(), told.code.as_ref().into());
        known.insert("status".into(), told.status.into());
        known.insert("times".into(), told.times.into());
        let actor = self.denied(told, &mut known);
        let act = Act::other(DENY, &told.object, Value::Object(known));
        AuditEntry { time: told.time, actor, act }
    }

    /// Who was refused. A user whom somebody only claims to be has done nothing, and is told apart.
    fn denied(&self, told: &Told, known: &mut Map<String, Value>) -> Actor {
        let client = told.client.to_canonical();
        let member = told.suspect.uid.and_then(|uid| self.0.directory.user(uid));
        let application = told.application.as_deref().unwrap_or_default();
        if told.suspect.standing == Standing::Proven
            && let Some(member) = &member
        {
            if member.is_operator() {
                return Actor::Operator { client };
            }
            return Actor::User {
                uid: member.uid,
                name: member.name.to_string(),
                key: told.suspect.key,
                application: application.to_owned(),
                client,
            };
        }
        if !application.is_empty() {
            known.insert("application".into(), application.into());
        }
        if let Some(uid) = told.suspect.uid {
            known.insert("uid".into(), uid.into());
        }
        if let Some(member) = member {
            known.insert("user".into(), member.name.to_string().into());
        }
        if let Some(key) = told.suspect.key {
            known.insert("key".into(), key.to_string().into());
        }
        Actor::Anonymous { client }
    }
}

/// One entry for many denials.
fn together(more: &More) -> AuditEntry {
    let known = json!({
        "times": more.times,
        "since": more.since.to_string(),
        "until": more.until.to_string(),
        "errors": more.codes,
    });
    let act = Act::other(DENY, "several", known);
    AuditEntry { time: more.until, actor: Actor::Program, act }
}
