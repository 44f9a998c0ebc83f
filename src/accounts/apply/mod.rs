//! Exports all records as a state document, and applies such a document to the store.
//!
//! A document becomes a plan, which has the current and the planned version of each record. Before
//! each commit, the planned records are copied into temporary accounts in memory, which check the
//! records by the usual rules. If they are valid, one commit writes all changes. Otherwise nothing
//! is written.

mod change;
mod check;
mod cleared;
mod dry_run;
mod entries;
mod export;
mod guards;
mod index;
mod lockout;
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
mod patch;
mod plan;
mod record;
#[cfg(test)]
mod tests;
mod write;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::plan::Plan;
pub use self::{
    cleared::{DocumentFields, LeftOut},
    export::{VERSION, is_cut_off},
    patch::PatchBases,
};
use super::{
    AccountError, AdminWriter, Guards, Writer,
    events::NewRecord,
    writer::{Attempt, PendingCommit},
};
use crate::{
    model::{Act, Application, Digest, Key, Mode, PasswordDigest, Resource, Role, Timestamp, User},
    scripting::RequestedWebhook,
    store::Batch,
};

/// The maximum number of records that one document changes. A commit of this size takes a few
/// seconds, during which other writers wait.
pub const MOST_CHANGES: usize = 100_000;

/// The records of a state document.
#[derive(Debug, Default)]
pub struct StateDocument {
    /// The fingerprint of the pepper that the digests of the keys were made with. A document with
    /// keys needs it. `None` means that the document does not name a pepper.
    pub pepper: Option<Digest>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Applications.
    pub applications: Vec<Application>,
    /// Resources.
    pub resources: Vec<Resource>,
    /// Users.
    pub users: Vec<DocumentUser>,
    /// Keys.
    pub keys: Vec<DocumentKey>,
    /// The names of the fields that each record of the document has.
    pub fields: DocumentFields,
    /// The revisions of the records that the document was merged into.
    pub bases: PatchBases,
}

/// A user of a document. A field that is `None` keeps its current value if the user exists, and
/// gets the default value if the user is new.
#[derive(Debug)]
pub struct DocumentUser {
    /// The record. Its uid, UUID, first mail address, time of creation and password come from the
    /// fields below.
    pub user: User,
    /// The uid.
    pub uid: Option<u64>,
    /// The UUID.
    pub uuid: Option<Uuid>,
    /// The first mail address that the user had.
    pub init: Option<String>,
    /// The time of creation.
    pub created: Option<Timestamp>,
    /// The password.
    pub password: DocumentPassword,
}

/// The password of a user of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentPassword {
    /// The document does not mention the password, so an existing password stays.
    Unspecified,
    /// The user has no password.
    None,
    /// The digest of the password.
    Digest(PasswordDigest),
}

/// A key of a document. A field that is `None` keeps its current value if the key exists, and gets
/// the default value if the key is new.
#[derive(Debug)]
pub struct DocumentKey {
    /// The record. Its user, prefix, last four characters and time of creation come from the fields
    /// below.
    pub key: Key,
    /// The name of the user.
    pub owner: String,
    /// The prefix of the key's text.
    pub prefix: Option<String>,
    /// The last four characters of the key's text.
    pub last_four: Option<String>,
    /// The time of creation. `Some` means that the document restores an old key: the rules for the
    /// expiry and the scopes of new keys do not apply to it. `None` means that the key is new,
    /// unless the store already has it.
    pub created: Option<Timestamp>,
}

/// The options of applying a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApplyOptions {
    /// The treatment of records that the document does not list.
    pub unlisted: Unlisted,
    /// Whether the changes may open paths that resources of the store guard.
    pub guards: Guards,
    /// Whether fields that the document leaves out may be cleared.
    pub left_out: LeftOut,
    /// Whether the changes are written.
    pub mode: Mode,
}

/// The treatment of records that a document does not list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unlisted {
    /// The records stay.
    #[default]
    Keep,
    /// The records are removed.
    Remove,
}

/// The kind of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The record is new.
    Add,
    /// The record is changed.
    Change,
    /// The record is removed.
    Remove,
}

/// The change of one record. The fields have the form that they have in a document. A placeholder
/// stands for each secret.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Difference {
    /// The kind of the change.
    pub change: Operation,
    /// The kind of the record.
    pub kind: &'static str,
    /// The name or id of the record.
    pub id: String,
    /// The current values of the fields that differ.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub before: Map<String, Value>,
    /// The planned values of the fields that differ.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub after: Map<String, Value>,
    /// The fields that lose their value because the document leaves them out, as dotted paths.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cleared: Vec<String>,
}

/// The result of applying a document.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The changes that were made, or that a dry run would make.
    pub changes: Vec<Difference>,
    /// The number of listed records that the document does not change.
    pub unchanged: usize,
    /// Advice about valid changes that may not be what the author of the document meant.
    pub warnings: Vec<String>,
}

impl Applied {
    /// The numbers of added, changed and removed records.
    pub fn counts(&self) -> [usize; 3] {
        [Operation::Add, Operation::Change, Operation::Remove].map(|operation| {
            self.changes.iter().filter(|difference| difference.change == operation).count()
        })
    }

    /// The action for the audit trail, with the number of changed records of each kind.
    fn act(&self) -> Act {
        let mut counts = Map::new();
        for difference in &self.changes {
            let verb = match difference.change {
                Operation::Add => "added",
                Operation::Change => "changed",
                Operation::Remove => "removed",
            };
            let of_kind = counts.entry(difference.kind).or_insert_with(|| json!({}));
            let count = of_kind[verb].as_u64().unwrap_or(0);
            of_kind[verb] = (count + 1).into();
        }
        Act::other("state.apply", "store", Value::Object(counts))
    }
}

/// A valid plan, ready to be committed.
struct PlannedCommit {
    applied: Applied,
    batch: Batch,
    /// The entries of the audit trail about single records.
    entries: Vec<Act>,
    announcements: Announcements,
}

/// The new and revoked records for which the event scripts are called.
#[derive(Default)]
struct Announcements {
    new_users: Vec<User>,
    /// The new keys, each with its user's name.
    new_keys: Vec<(Key, String)>,
    revoked_keys: Vec<Key>,
}

impl AdminWriter<'_> {
    /// Changes the store in one commit so that it has the records of the document.
    ///
    /// # Errors
    /// A record is invalid, no administrator would remain, or the caller would lose its own access.
    /// Each violation of a record has a location in the document, such as `users.3.roles.0`. After
    /// an error nothing is changed.
    pub async fn apply(
        &self,
        document: StateDocument,
        options: ApplyOptions,
    ) -> Result<Applied, AccountError> {
        let document = &std::sync::Arc::new(document);
        let attempt = || async move {
            let (writer, document) = (Writer::clone(self), document.clone());
            // Planning takes long for a large document, because it reads each listed record.
            let planning = tokio::task::spawn_blocking(move || {
                let mut plan = Plan::new(&writer, &document, options.unlisted)?;
                plan.check_guards(options.guards)?;
                plan.into_commit(&writer, options)
            });
            let aborted = |_| AccountError::refused("The file was not applied.", "Try again.");
            let PlannedCommit { applied, batch, entries, announcements } =
                planning.await.map_err(aborted)??;
            let webhooks = self.announce(&announcements, options.mode).await?;
            if options.mode == Mode::DryRun || batch.writes.is_empty() {
                return Ok(Attempt::Unchanged(applied));
            }
            let act = applied.act();
            let pending = PendingCommit::new(batch, act, |_| applied).with_entries(entries);
            Ok(pending.with_webhooks(webhooks).into())
        };
        self.update_async(attempt).await
    }
}

impl Writer {
    /// Calls the event scripts for each new record and each revoked key. The functions that change
    /// a single record call the same scripts. Returns the webhooks that the scripts request.
    async fn announce(
        &self,
        announcements: &Announcements,
        mode: Mode,
    ) -> Result<Vec<RequestedWebhook>, AccountError> {
        let users = announcements.new_users.iter().map(NewRecord::User);
        let keys = announcements.new_keys.iter().map(|(key, owner)| NewRecord::Key(key, owner));
        let mut webhooks = self.approve(&users.chain(keys).collect::<Vec<_>>(), mode).await?;
        if mode == Mode::Live {
            for key in &announcements.revoked_keys {
                webhooks.extend(self.notify_revoked(key).await);
            }
        }
        Ok(webhooks)
    }
}
