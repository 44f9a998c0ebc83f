//! State as a file: all that decisions are made from, written out, and the store made what a file says.
//!
//! What a file says is put into a plan: each record as it is and as it is to be. The rules are asked of a world in memory in which the plan is
//! carried out already, so they are the same rules that every other change is held to. Then all of it is written in one commit, or nothing.

mod check;
mod dry_run;
mod export;
mod index;
mod lockout;
mod plan;
mod record;
mod write;

use serde_json::{Map, Value, json};
use uuid::Uuid;

pub use self::export::VERSION;
use self::{
    plan::Plan,
    write::{Finished, News},
};
use super::{
    AccountError, AdminWriter, Writer,
    events::NewRecord,
    writer::{Attempt, PendingCommit},
};
use crate::{
    model::{Act, Application, Digest, Key, Mode, PasswordDigest, Resource, Role, Timestamp, User},
    scripting::RequestedWebhook,
};

/// The most records that are changed at once: one commit of so many takes a few seconds, and other writers wait for it.
pub const MOST_CHANGES: usize = 100_000;

/// What a file says.
#[derive(Debug, Default)]
pub struct State {
    /// The fingerprint of the pepper that its digests were made with; none: it has no digests of keys.
    pub pepper: Option<Digest>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Applications.
    pub applications: Vec<Application>,
    /// Resources.
    pub resources: Vec<Resource>,
    /// Users.
    pub users: Vec<StatedUser>,
    /// Keys.
    pub keys: Vec<StatedKey>,
}

/// A user, as a file states it. What is not said here stays as it is, or is what a new user has.
#[derive(Debug)]
pub struct StatedUser {
    /// The record; its number, its UUID, its times and its password are looked for below.
    pub user: User,
    /// Its number.
    pub uid: Option<u64>,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// The first mail address it ever had.
    pub init: Option<String>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its password.
    pub password: StatedPassword,
}

/// What a file says of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatedPassword {
    /// Nothing.
    Unsaid,
    /// That there is none.
    None,
    /// What it is checked against.
    Digest(PasswordDigest),
}

/// A key, as a file states it. What is not said here stays as it is, or is what a new key has.
#[derive(Debug)]
pub struct StatedKey {
    /// The record; whose it is, and what is told of its text, are looked for below.
    pub key: Key,
    /// The name of its user.
    pub owner: String,
    /// The text's prefix.
    pub prefix: Option<String>,
    /// The text's last four characters.
    pub last_four: Option<String>,
    /// When it was made. One that says so is put back as it was; one that does not is new.
    pub created: Option<Timestamp>,
}

/// How a file is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Apply {
    /// What becomes of records that the file does not name.
    pub others: Others,
    /// Whether it is written.
    pub mode: Mode,
}

/// What becomes of records that a file does not name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Others {
    /// They stay.
    #[default]
    Stay,
    /// They go.
    Go,
}

/// What is done to a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    /// It comes.
    Add,
    /// It is changed.
    Change,
    /// It goes.
    Remove,
}

/// What is done to one record: the fields that change, as the file writes them, without secrets.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Difference {
    /// What is done.
    pub change: Done,
    /// The kind of record.
    pub kind: &'static str,
    /// Its name or id.
    pub id: String,
    /// The fields as they were.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub before: Map<String, Value>,
    /// The fields as they are to be.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub after: Map<String, Value>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What is done, or would be.
    pub changes: Vec<Difference>,
    /// How many records are as the file says.
    pub unchanged: usize,
}

impl Applied {
    /// How many records come, are changed, and go.
    pub fn counts(&self) -> [usize; 3] {
        [Done::Add, Done::Change, Done::Remove]
            .map(|done| self.changes.iter().filter(|one| one.change == done).count())
    }

    /// What the audit trail says of it.
    fn act(&self) -> Act {
        let mut known = Map::new();
        for one in &self.changes {
            let verb = match one.change {
                Done::Add => "added",
                Done::Change => "changed",
                Done::Remove => "removed",
            };
            let of_kind = known.entry(one.kind).or_insert_with(|| json!({}));
            let count = of_kind[verb].as_u64().unwrap_or(0);
            of_kind[verb] = (count + 1).into();
        }
        Act::other("state.apply", "store", Value::Object(known))
    }
}

impl AdminWriter<'_> {
    /// Makes the store what a file says, in one commit.
    ///
    /// # Errors
    /// A record is not in order; each is named by its place in the file: `users.3.roles.0`. Nobody would be left who may administer, or the
    /// caller would lock itself out. Then nothing is changed.
    pub async fn apply(&self, state: State, how: Apply) -> Result<Applied, AccountError> {
        let state = std::sync::Arc::new(state);
        let state = &state;
        let attempt = || async move {
            let (writer, stated) = ((**self).clone(), state.clone());
            // It reads as many records as the file has.
            let planning = tokio::task::spawn_blocking(move || {
                Plan::of(&writer, &stated, how.others)?.finish(&writer)
            });
            let gave_up = |_| AccountError::refused("The file was not applied.", "Try again.");
            let Finished { applied, batch, news } = planning.await.map_err(gave_up)??;
            let webhooks = self.announce(&news, how.mode).await?;
            if how.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(applied));
            }
            let act = applied.act();
            Ok(PendingCommit::new(batch, act, |_| applied).with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}

impl Writer {
    /// Asks about what comes and tells of what is taken back, as for single records.
    async fn announce(&self, news: &News, mode: Mode) -> Result<Vec<RequestedWebhook>, AccountError> {
        let users = news.users.iter().map(NewRecord::User);
        let keys = news.keys.iter().map(|(key, owner)| NewRecord::Key(key, owner));
        let mut webhooks = self.approve(&users.chain(keys).collect::<Vec<_>>(), mode).await?;
        if mode == Mode::Live {
            for key in &news.revoked {
                webhooks.extend(self.notify_revoked(key).await);
            }
        }
        Ok(webhooks)
    }
}
