//! Events that nobody's request brings: keys that end, and those who are wrong too often. Looked for beside all requests; no decision waits.

use std::{collections::BTreeSet, future::Future, pin::pin, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::of_key;
use crate::{
    accounts::{AccountError, Accounts, keys::key_key},
    limits::{Limit, LimitExceeded},
    model::{Actor, Key, KeyId, Timestamp},
    scripting::{Function, Script},
    store::{Batch, Table, encode},
};

/// How often those are looked for who were wrong too often.
const EVERY: Duration = Duration::from_secs(1);
/// After how many of these times the keys are looked through: ten minutes.
const KEYS: u32 = 600;
/// The keys that are told of in one such time. The others are in the next.
const MOST_KEYS: usize = 10_000;
/// The calls in one such time that may fail.
const MOST_FAILURES: usize = 16;
const DAY: i64 = 86_400;

/// Of which threshold somebody was told, of a key that ended then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Warned {
    days: u32,
    ends: Timestamp,
}

/// What came of a key.
enum Outcome {
    /// There was nothing to tell.
    Nothing,
    /// The script was told.
    Told,
    /// The script failed, and is told again.
    Failed,
}

impl Accounts {
    /// Tells the script of events of keys that have so many days left, and of those who are wrong too often, until `end` has come.
    pub async fn keep_events(&self, days: &BTreeSet<u32>, end: impl Future<Output = ()>) {
        let mut end = pin!(end);
        for round in 0_u32.. {
            if round.is_multiple_of(KEYS)
                && let Err(problem) = self.tell_of_endings(days).await
            {
                tracing::warn!(%problem, "not everybody was told of keys that end; it is tried again");
            }
            if let Err(problem) = self.tell_of_floods().await {
                tracing::warn!(%problem, "not everybody was told of failures");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = &mut end => return,
            }
        }
    }

    /// Tells of those who were wrong too often since the last time.
    ///
    /// # Errors
    /// The store cannot write their webhooks.
    pub async fn tell_of_floods(&self) -> Result<(), AccountError> {
        let function = Function::OnFlood;
        let set = self.scripts().current();
        for crossed in self.0.ledger.take_crossed() {
            let Some(script) = set.event(function) else { continue };
            let event = self.of_flood(crossed);
            let Some(webhooks) = self.tell(script, function, &event).await else { continue };
            let mut batch = Batch::new();
            let post = self.post(webhooks, &mut batch);
            self.write_letters(batch).await?;
            post.set_free();
        }
        Ok(())
    }

    fn of_flood(&self, LimitExceeded { client, limit, uid }: LimitExceeded) -> Value {
        let limit = match limit {
            Limit::Passwords => "passwords",
            Limit::PasswordsOfAll => "passwords_of_all",
            Limit::Credentials => "credentials",
        };
        let seconds = self.0.ledger.limits().0.seconds;
        let user = uid.map(|uid| self.name_of(uid));
        json!({ "client": client, "limit": limit, "seconds": seconds, "uid": uid, "user": user, "actor": Actor::Program })
    }

    /// Tells of keys that have at most so many days left: once for each key and each of `days`, over restarts too.
    ///
    /// # Errors
    /// The store cannot be read, or cannot write: those who were not told of are told of the next time.
    pub async fn tell_of_endings(&self, days: &BTreeSet<u32>) -> Result<(), AccountError> {
        let function = Function::OnKeyExpiring;
        let set = self.scripts().current();
        let (Some(script), Some(most)) = (set.event(function), days.last()) else { return Ok(()) };
        let now = self.0.clock.now();
        let directory = self.0.directory.clone();
        let until = now.plus(i64::from(*most) * DAY);
        // A million keys are looked through.
        let looking = tokio::task::spawn_blocking(move || directory.keys_that_end(now, until));
        let (mut told, mut failed) = (0, 0);
        for id in looking.await.unwrap_or_default() {
            // One script that fails is not logged a million times.
            if told >= MOST_KEYS || failed >= MOST_FAILURES {
                break;
            }
            match self.tell_of_ending(script, id, days, now).await? {
                Outcome::Nothing => {}
                Outcome::Told => told += 1,
                Outcome::Failed => failed += 1,
            }
        }
        Ok(())
    }

    async fn tell_of_ending(
        &self,
        script: &Script,
        id: KeyId,
        days: &BTreeSet<u32>,
        now: Timestamp,
    ) -> Result<Outcome, AccountError> {
        let Some(key) = self.key(id)?.map(|key| key.record) else { return Ok(Outcome::Nothing) };
        let Some((threshold, left, ends)) = due(&key, days, now) else {
            return Ok(Outcome::Nothing);
        };
        let at = key_key(id);
        let stored = self.store().get(Table::Warned, &at)?;
        let warned = stored.map(|stored| stored.read::<Warned>(Table::Warned, &at)).transpose()?;
        if warned.is_some_and(|warned| warned.ends == ends && warned.days <= threshold) {
            return Ok(Outcome::Nothing);
        }
        let mut event = of_key(&key, &self.name_of(key.user));
        event.insert("days".into(), left.into());
        event.insert("threshold".into(), threshold.into());
        event.insert("actor".into(), serde_json::to_value(Actor::Program).unwrap_or_default());
        let told = self.tell(script, Function::OnKeyExpiring, &Value::Object(event)).await;
        let Some(webhooks) = told else { return Ok(Outcome::Failed) };
        let mut batch = Batch::new();
        // One that is deleted in this moment takes its mark with it.
        batch.expect(Table::Keys, at, crate::store::State::Present);
        batch.put(Table::Warned, at, encode(&Warned { days: threshold, ends }));
        let post = self.post(webhooks, &mut batch);
        self.write_letters(batch).await?;
        post.set_free();
        Ok(Outcome::Told)
    }
}

/// The smallest threshold that a key has come to, the days that it has left, begun ones too, and its end. None: there is nothing to tell; a key that
/// is replaced ends as it should.
fn due(key: &Key, days: &BTreeSet<u32>, now: Timestamp) -> Option<(u32, i64, Timestamp)> {
    let ends = key.expires?;
    if key.revoked.is_some() || key.rotated.is_some() || ends <= now {
        return None;
    }
    let left = ends.0.saturating_sub(now.0);
    let threshold = days.iter().find(|days| left <= i64::from(**days) * DAY)?;
    Some((*threshold, (left + DAY - 1) / DAY, ends))
}
