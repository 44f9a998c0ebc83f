//! The handles that change records. Each handle names its actor, so every change is signed in the
//! audit trail, in the same commit.
//!
//! A [`Writer`] is for every actor that was granted the permission for a change. It refuses changes
//! to administrators unless its actor is one. An [`AdminWriter`] has the methods that only an
//! administrator may call, an [`OperatorWriter`] those that only the operator may call.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{AccountError, Accounts, authority::Authority};
use crate::{
    model::{Act, Actor, AuditEntry, Digest, OperatorProcess, Timestamp, User},
    scripting::RequestedWebhook,
    store::{
        Batch, Cancel, CommitError, Expect, Sequence, StoreError,
        audit_log::{AuditAppend, Generation, generation_for_append},
        encode,
    },
};

/// The number of attempts beside other writers. Later attempts keep the other writers waiting, so
/// that a change that takes long to build (a large file to apply) is not overtaken for ever.
const CONCURRENT_ATTEMPTS: usize = 3;

/// The time after which a change is given up. An attempt that keeps the other writers waiting can
/// still meet a conflict, with the program's own commits and with those of another node.
const PATIENCE: Duration = Duration::from_secs(10);

/// Accounts that an actor may change. A cheap handle.
#[derive(Clone)]
pub struct Writer {
    accounts: Accounts,
    actor: Actor,
    authority: Authority,
    /// The person behind the operator.
    operator: Option<Arc<OperatorProcess>>,
    /// Ends long work of this writer early.
    cancel: Cancel,
}

/// A writer whose actor is an administrator.
pub struct AdminWriter<'a>(AdminReader<'a>);

/// A writer whose actor is an administrator, with the methods that change nothing.
pub struct AdminReader<'a>(&'a Writer);

/// A writer whose actor is the operator, who has the server's rights on its machine.
pub struct OperatorWriter<'a>(&'a Writer);

/// One attempt at a change, built from the records as they are now. See [`Writer::update`].
#[allow(clippy::large_enum_variant, reason = "it is taken apart where it is returned")]
pub(super) enum Attempt<'a, T> {
    /// Nothing has to be written.
    Unchanged(T),
    /// The batch has to be committed.
    Commit(PendingCommit<'a, T>),
}

/// A batch with everything that belongs to its commit.
pub(super) struct PendingCommit<'a, T> {
    batch: Batch,
    acts: Vec<Act>,
    webhooks: Vec<RequestedWebhook>,
    /// Makes the result of the change from the revision of the commit.
    finish: Box<dyn FnOnce(Sequence) -> T + Send + 'a>,
    on_conflict: Option<OnConflict<'a, T>>,
}

/// Decides about an expectation that did not hold. `None` means that the change is attempted again.
type OnConflict<'a, T> = Box<dyn FnOnce(&Expect) -> Option<Result<T, AccountError>> + Send + 'a>;

impl<'a, T> PendingCommit<'a, T> {
    /// A commit without webhooks. Every conflict leads to another attempt.
    pub fn new(batch: Batch, act: Act, finish: impl FnOnce(Sequence) -> T + Send + 'a) -> Self {
        let (acts, webhooks) = (vec![act], Vec::new());
        Self { batch, acts, webhooks, finish: Box::new(finish), on_conflict: None }
    }

    /// Adds entries about the single records of a change. They precede the entry about the whole.
    pub fn with_entries(mut self, entries: Vec<Act>) -> Self {
        self.acts.splice(0..0, entries);
        self
    }

    /// Adds webhooks, which are stored in the same commit.
    pub fn with_webhooks(self, webhooks: Vec<RequestedWebhook>) -> Self {
        Self { webhooks, ..self }
    }

    /// Ends the change at some conflicts instead of attempting it again.
    pub fn on_conflict(
        self,
        resolve: impl FnOnce(&Expect) -> Option<Result<T, AccountError>> + Send + 'a,
    ) -> Self {
        Self { on_conflict: Some(Box::new(resolve)), ..self }
    }
}

impl<'a, T> From<PendingCommit<'a, T>> for Attempt<'a, T> {
    fn from(pending: PendingCommit<'a, T>) -> Self {
        Self::Commit(pending)
    }
}

impl Accounts {
    /// A writer that signs every change with `actor`. The program and the operator are
    /// administrators, a user is not: see [`Accounts::as_admin`].
    ///
    /// If the actor is a user with a key, the bounds of the key hold for the writer too: it makes
    /// no key with wider bounds or a later end, and no password.
    pub fn as_actor(&self, actor: Actor) -> Writer {
        let authority = Authority::of(&actor, false, self);
        let cancel = Cancel::default();
        Writer { accounts: self.clone(), actor, authority, operator: None, cancel }
    }

    /// A writer for an actor whose identity was verified to be an administrator's. An
    /// administrator's key that is bound to scopes, an application, networks, limits or an end is
    /// no administrator's.
    pub fn as_admin(&self, actor: Actor) -> Writer {
        let authority = Authority::of(&actor, true, self);
        let cancel = Cancel::default();
        Writer { accounts: self.clone(), actor, authority, operator: None, cancel }
    }
}

impl Deref for Writer {
    type Target = Accounts;

    fn deref(&self) -> &Accounts {
        &self.accounts
    }
}

impl<'a> Deref for AdminWriter<'a> {
    type Target = AdminReader<'a>;

    fn deref(&self) -> &AdminReader<'a> {
        &self.0
    }
}

impl Deref for AdminReader<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.0
    }
}

impl Deref for OperatorWriter<'_> {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        self.0
    }
}

impl Writer {
    /// The handle for an administrator's methods. `None` means that the actor is not one.
    pub fn admin(&self) -> Option<AdminWriter<'_>> {
        self.authority.is_admin().then_some(AdminWriter(AdminReader(self)))
    }

    /// The handle for the methods of an administrator that change nothing. The credential may be
    /// bound, but not to scopes. `None` means that the actor is no administrator.
    pub fn admin_reader(&self) -> Option<AdminReader<'_>> {
        self.authority.may_read_as_admin().then_some(AdminReader(self))
    }

    /// The handle for the operator's methods. `None` means that the actor is somebody else.
    pub fn operator(&self) -> Option<OperatorWriter<'_>> {
        let is_operator = matches!(self.actor, Actor::Program | Actor::Operator { .. });
        is_operator.then_some(OperatorWriter(self))
    }

    /// Refuses a change that concerns administrators unless the actor is one.
    ///
    /// The methods of this handle call it themselves. A caller that wants to refuse before it does
    /// expensive work can call it earlier.
    ///
    /// # Errors
    /// [`AccountError::AdminOnly`].
    pub fn admin_only_if(&self, concerns_admin: bool) -> Result<(), AccountError> {
        self.authority.admin_only_if(concerns_admin)
    }

    /// This writer, whose actor's credential is restricted to these permissions. `None` changes
    /// nothing. The scopes of a key are known without this call.
    #[must_use]
    pub fn with_scopes(self, scopes: Option<&[String]>) -> Self {
        Self { authority: self.authority.with_scopes(scopes), ..self }
    }

    /// This writer. If its actor is the operator, the audit trail names this process.
    #[must_use]
    pub fn with_operator_process(self, process: Option<OperatorProcess>) -> Self {
        let is_operator = matches!(self.actor, Actor::Operator { .. });
        Self { operator: process.filter(|_| is_operator).map(Arc::new), ..self }
    }

    /// This writer, whose long work ends early when `cancel` is set. A change is then not made.
    #[must_use]
    pub fn with_cancel(self, cancel: Cancel) -> Self {
        Self { cancel, ..self }
    }

    /// The flag that ends long work of this writer early.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// An entry of the audit trail about an action of this writer's actor.
    pub(super) fn entry(&self, time: Timestamp, act: Act) -> AuditEntry {
        let operator = self.operator.as_deref().cloned();
        AuditEntry { time, actor: self.actor.clone(), act, operator }
    }

    /// This writer, whose actor has proved the current password of the actor's own account.
    #[must_use]
    pub fn with_proved_password(&self) -> Self {
        Self { authority: self.authority.with_proved_password(), ..self.clone() }
    }

    /// Refuses a change or deletion of an administrator's account unless the actor is an
    /// administrator, or the owner with a credential without scopes.
    ///
    /// # Errors
    /// [`AccountError::AdminOnly`] or [`AccountError::Forbidden`].
    pub fn require_change_of(&self, account: &User) -> Result<(), AccountError> {
        self.authority.require_change_of(account, self)
    }

    /// Refuses a new password unless the credential in use has no bounds.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`].
    pub fn require_passwords(&self) -> Result<(), AccountError> {
        self.authority.check_may_set_passwords()
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Attempts a change until its batch is committed without a conflict.
    ///
    /// `attempt` reads the records and builds the batch with the expectations under which it may be
    /// written. It is called again when another writer has changed one of those records.
    ///
    /// # Errors
    /// Errors of `attempt`, of the store, and of [`PendingCommit::on_conflict`];
    /// [`AccountError::contended`] after 10 s of conflicts.
    pub(super) async fn update<'a, T, E: From<AccountError>>(
        &self,
        mut attempt: impl FnMut() -> Result<Attempt<'a, T>, E>,
    ) -> Result<T, E> {
        self.update_async(|| std::future::ready(attempt())).await
    }

    /// [`Writer::update`] for attempts that wait, for example for a script.
    pub(super) async fn update_async<'a, T, E: From<AccountError>, F>(
        &self,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<Attempt<'a, T>, E>>,
    {
        let started = Instant::now();
        let mut attempts = 0;
        while attempts < CONCURRENT_ATTEMPTS || started.elapsed() < PATIENCE {
            let alone = if attempts < CONCURRENT_ATTEMPTS {
                None
            } else {
                Some(self.0.commit_turn.write().await)
            };
            attempts += 1;
            self.cancel.check().map_err(AccountError::from)?;
            let pending = match attempt().await? {
                Attempt::Unchanged(value) => return Ok(value),
                Attempt::Commit(pending) => pending,
            };
            let PendingCommit { batch, acts, webhooks, finish, on_conflict } = pending;
            let committed = if alone.is_some() {
                self.commit_now(batch, acts, webhooks).await
            } else {
                self.commit_all(batch, acts, webhooks).await
            };
            match committed {
                Ok(revision) => return Ok(finish(revision)),
                Err(CommitError::Conflict(expectation)) => {
                    if let Some(result) = on_conflict.and_then(|resolve| resolve(&expectation)) {
                        return result.map_err(E::from);
                    }
                }
                Err(CommitError::Store(problem)) => return Err(AccountError::from(problem).into()),
            }
        }
        Err(AccountError::contended().into())
    }

    /// Commits a batch with its audit entry and the webhooks that report it: all or nothing. Waits
    /// while another change has the other writers waiting.
    pub(super) async fn commit(
        &self,
        batch: Batch,
        act: Act,
        webhooks: Vec<RequestedWebhook>,
    ) -> Result<Sequence, CommitError> {
        self.commit_all(batch, vec![act], webhooks).await
    }

    async fn commit_all(
        &self,
        batch: Batch,
        acts: Vec<Act>,
        webhooks: Vec<RequestedWebhook>,
    ) -> Result<Sequence, CommitError> {
        let _turn = self.0.commit_turn.read().await;
        self.commit_now(batch, acts, webhooks).await
    }

    async fn commit_now(
        &self,
        mut batch: Batch,
        acts: Vec<Act>,
        webhooks: Vec<RequestedWebhook>,
    ) -> Result<Sequence, CommitError> {
        let time = self.0.clock.now();
        let entry = |act| encode(&self.entry(time, act));
        batch.audit = Some(self.audit_append(acts.into_iter().map(entry).collect())?);
        let webhooks = self.add_webhooks(webhooks, &mut batch);
        let sequence = self.store().commit(batch).await?;
        webhooks.publish();
        Ok(sequence)
    }
}

impl Accounts {
    /// Entries to append to the audit trail, each encoded.
    pub(super) fn audit_append(&self, entries: Vec<Vec<u8>>) -> Result<AuditAppend, StoreError> {
        let key = self.0.pepper.audit_key();
        let generation = generation_for_append(self.store(), &key, || self.new_generation())?;
        Ok(self.audit_append_to(generation, entries))
    }

    /// Entries of this generation.
    pub(super) fn audit_append_to(
        &self,
        generation: Generation,
        entries: Vec<Vec<u8>>,
    ) -> AuditAppend {
        let key = self.0.pepper.audit_key();
        AuditAppend { entries, key, keep: self.0.audit_entries, generation }
    }

    /// The id of a new generation of the audit trail.
    pub(super) fn new_generation(&self) -> Digest {
        Digest::from_bytes(self.0.entropy.bytes())
    }
}
