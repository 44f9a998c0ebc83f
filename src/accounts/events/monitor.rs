//! Events without a request: keys that expire soon, and clients that exceed a failure limit. A
//! background task looks for these events, so that no request waits for the event script.

use std::{collections::BTreeSet, future::Future, pin::pin, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::key_event;
use crate::{
    accounts::{AccountError, Accounts},
    limits::{FailureKind, LimitExceeded},
    model::{Actor, Key, KeyId, Timestamp},
    scripting::{Function, Script},
    store::{Batch, Expected, Table, encode, table},
};

/// The interval between two checks of the failure limits.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of these intervals between two checks of the keys. Together they last ten minutes.
const INTERVALS_PER_KEY_CHECK: u32 = 600;
/// The maximum number of notices that one check of the keys sends. The next check sends more.
const MAX_NOTICES: usize = 10_000;
/// The number of failed calls of the script after which a check of the keys ends.
const MAX_FAILURES: usize = 16;
/// The seconds of a day.
const DAY: i64 = 86_400;

/// The last notice about a key: its threshold in days, and the expiry that the key had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Warned {
    days: u32,
    ends: Timestamp,
}

/// The result of the check of one key.
enum ExpiryNotice {
    NotDue,
    Sent,
    /// The script failed. The next check of the keys retries the notice.
    Failed,
}

impl Accounts {
    /// Notifies the event script of exceeded failure limits, and of keys that expire within these
    /// numbers of days, until `end` resolves.
    pub async fn monitor_events(&self, days: &BTreeSet<u32>, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        for round in 0_u32.. {
            if round.is_multiple_of(INTERVALS_PER_KEY_CHECK)
                && let Err(problem) = self.notify_expiring_keys(days).await
            {
                tracing::warn!(%problem, "could not notify about expiring keys; will retry");
            }
            if let Err(problem) = self.notify_exceeded_limits().await {
                tracing::warn!(%problem, "could not notify about exceeded failure limits");
            }
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = &mut end => return,
            }
        }
    }

    /// Notifies the script of the failure limits that were exceeded after the previous call.
    ///
    /// # Errors
    /// The store cannot write the requested webhooks.
    pub async fn notify_exceeded_limits(&self) -> Result<(), AccountError> {
        let function = Function::OnFailureLimit;
        let set = self.scripts().current();
        for exceeded in self.0.counters.take_exceeded() {
            let Some(script) = set.event(function) else { continue };
            let event = self.limit_event(exceeded);
            let Some(webhooks) = self.notify(script, function, &event).await else { continue };
            self.commit_event(Batch::new(), webhooks).await?;
        }
        Ok(())
    }

    fn limit_event(&self, LimitExceeded { client, limit, uid }: LimitExceeded) -> Value {
        let limit = match limit {
            FailureKind::Passwords => "passwords",
            FailureKind::PasswordsOfAddress => "passwords_of_all",
            FailureKind::Credentials => "credentials",
        };
        json!({
            "client": client,
            "limit": limit,
            "seconds": self.0.counters.limits().0.seconds,
            "uid": uid,
            "user": uid.map(|uid| self.user_name(uid)),
            "actor": Actor::Program,
        })
    }

    /// Notifies the script of keys that expire soon. `days` are the thresholds. The script gets at
    /// most one notice for each key and threshold, also across restarts of the server.
    ///
    /// # Errors
    /// The store cannot be read or written. The next call sends the remaining notices.
    pub async fn notify_expiring_keys(&self, days: &BTreeSet<u32>) -> Result<(), AccountError> {
        let function = Function::OnKeyExpiring;
        let set = self.scripts().current();
        let (Some(script), Some(longest)) = (set.event(function), days.last()) else {
            return Ok(());
        };
        let now = self.0.clock.now();
        let directory = self.0.directory.clone();
        let until = now.plus(i64::from(*longest) * DAY);
        // A blocking thread scans the keys, because there may be a million.
        let scan = tokio::task::spawn_blocking(move || directory.keys_expiring(now, until));
        let (mut sent, mut failed) = (0, 0);
        for id in scan.await.unwrap_or_default() {
            // The limit of failures keeps a broken script from filling the log with a line for each
            // key.
            if sent >= MAX_NOTICES || failed >= MAX_FAILURES {
                break;
            }
            match self.notify_expiring_key(script, id, days, now).await? {
                ExpiryNotice::NotDue => {}
                ExpiryNotice::Sent => sent += 1,
                ExpiryNotice::Failed => failed += 1,
            }
        }
        Ok(())
    }

    async fn notify_expiring_key(
        &self,
        script: &Script,
        id: KeyId,
        days: &BTreeSet<u32>,
        now: Timestamp,
    ) -> Result<ExpiryNotice, AccountError> {
        let Some(key) = self.key(id)?.map(|key| key.record) else {
            return Ok(ExpiryNotice::NotDue);
        };
        let Some((threshold, left, ends)) = due_notice(&key, days, now) else {
            return Ok(ExpiryNotice::NotDue);
        };
        let row = table::key(id);
        let warned = self.read::<Warned>(Table::Warned, &row)?.map(|warned| warned.record);
        if warned.is_some_and(|warned| warned.ends == ends && warned.days <= threshold) {
            return Ok(ExpiryNotice::NotDue);
        }
        let mut event = key_event(&key, &self.user_name(key.user));
        event.insert("days".into(), left.into());
        event.insert("threshold".into(), threshold.into());
        event.insert("actor".into(), serde_json::to_value(Actor::Program).unwrap_or_default());
        let notified = self.notify(script, Function::OnKeyExpiring, &Value::Object(event)).await;
        let Some(webhooks) = notified else { return Ok(ExpiryNotice::Failed) };
        let mut batch = Batch::new();
        // Write nothing for a key that was just deleted, because the deletion has also removed the
        // row of its last notice.
        batch.expect(Table::Keys, row, Expected::Present);
        batch.put(Table::Warned, row, encode(&Warned { days: threshold, ends }));
        self.commit_event(batch, webhooks).await?;
        Ok(ExpiryNotice::Sent)
    }
}

/// The smallest threshold in days that a key has reached, the days until its expiry (rounded up),
/// and its expiry. `None` means that no notice is due. A rotated key needs no notice, because its
/// replacement exists.
fn due_notice(key: &Key, days: &BTreeSet<u32>, now: Timestamp) -> Option<(u32, i64, Timestamp)> {
    let ends = key.expires?;
    if key.revoked.is_some() || key.rotated.is_some() || ends <= now {
        return None;
    }
    let left = ends.0.saturating_sub(now.0);
    let threshold = days.iter().find(|days| left <= i64::from(**days) * DAY)?;
    Some((*threshold, (left + DAY - 1) / DAY, ends))
}
