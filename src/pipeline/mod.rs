//! A [`Gate`] decides about every guarded request in five phases, always in this order:
//!
//! ```text
//! header::read    chooses the application, reads the credential  → Presented
//! decode::parse   decodes the credential                         → Credential
//! lookup::find    finds the user and the key                     → Candidate
//! verify::check   checks the credential                          → Identity
//! permit::decide  checks permissions and limits                  → Grant
//! ```
//! The types on the right are *tickets*. A ticket proves that its phase has let the request pass,
//! because only this phase can create the ticket. The next phase consumes the ticket. So code that
//! skips a phase does not compile:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, RequestContext};
//! use keyward::pipeline::{decode, header, lookup, permit};
//! async fn without_verify<'a>(
//!     gate: &Gate,
//!     context: &'a RequestContext,
//!     request: &Request<'a>,
//!     action: &Action<'a>,
//! ) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, context, request, action).await?;
//!     let credential = decode::parse(context, request, presented).await?;
//!     let candidate = lookup::find(gate, context, request, credential).await?;
//!     permit::decide(context, request, candidate, action).await
//! }
//! ```
//! Code that swaps phases does not compile:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Candidate, Denial, Gate, Request, RequestContext};
//! use keyward::pipeline::{header, lookup};
//! async fn lookup_before_decode<'a>(
//!     gate: &Gate,
//!     context: &'a RequestContext,
//!     request: &Request<'a>,
//!     action: &Action<'a>,
//! ) -> Result<Candidate<'a>, Denial> {
//!     let presented = header::read(gate, context, request, action).await?;
//!     lookup::find(gate, context, request, presented).await
//! }
//! ```
//! Code that forges a ticket does not compile:
//!
//! ```compile_fail,E0451
//! use keyward::pipeline::{Grant, Identity};
//! fn forge<'a>(identity: Identity<'a>) -> Grant<'a> {
//!     Grant { identity, rule: None, quota: Default::default() }
//! }
//! ```
//! Code that uses a ticket twice does not compile:
//!
//! ```compile_fail,E0382
//! use keyward::pipeline::{Denial, Presented, Request, RequestContext, decode};
//! async fn twice<'a>(
//!     context: &'a RequestContext,
//!     request: &Request<'a>,
//!     presented: Presented<'a>,
//! ) -> Result<(), Denial> {
//!     decode::parse(context, request, presented).await?;
//!     decode::parse(context, request, presented).await?;
//!     Ok(())
//! }
//! ```
//! Code that runs all five phases in their order compiles:
//!
//! ```
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, RequestContext};
//! use keyward::pipeline::{decode, header, lookup, permit, verify};
//! async fn all<'a>(
//!     gate: &Gate,
//!     context: &'a RequestContext,
//!     request: &Request<'a>,
//!     action: &Action<'a>,
//! ) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, context, request, action).await?;
//!     let credential = decode::parse(context, request, presented).await?;
//!     let candidate = lookup::find(gate, context, request, credential).await?;
//!     let identity = verify::check(gate, context, request, action, candidate).await?;
//!     permit::decide(context, request, identity, action).await
//! }
//! ```

mod context;
mod credentials;
pub mod decode;
mod denial;
mod denial_audit;
mod explain;
mod failure_count;
mod failures;
pub mod header;
mod limits;
pub mod lookup;
pub mod permit;
mod preflight;
pub mod record;
mod request;
mod scripts;
mod slow_digests;
pub mod verify;

use std::{sync::Arc, time::Instant};

use tokio::sync::Semaphore;

pub use context::RequestContext;
pub use credentials::{CredentialRemoval, declared_header, scripted_challenge};
pub use decode::Credential;
pub use denial::{Denial, DenialFields, Phase, ScriptedBody, Shape};
pub use denial_audit::AuditScope;
pub use explain::{
    Explain, ExplainFuture, ExplainRequest, Explanation, Finding, PhaseReport, PhaseVerdict,
};
pub use failures::{
    PasswordOutcome, attempt as password_attempt, begin as begin_password, end as end_password,
};
pub use header::{AUTH_METHOD, Presented};
pub use limits::Quota;
pub use lookup::Candidate;
pub(crate) use permit::EarlierDecision;
pub use permit::Grant;
pub(crate) use preflight::{Preflight, may_pass as may_pass_preflight};
pub use request::{Action, Anonymous, EntryRules, Face, Request};
pub(crate) use scripts::late_body::LateBody;
pub use scripts::response_hooks::ResponseHooks;
pub use scripts::script_views::script_denial;
pub use scripts::test_gate::TestGate;
pub use verify::Identity;

use denial_audit::DenialAudit;
use record::Observation;

use crate::{
    accounts::{Accounts, AdoptedBounds, Passwords},
    directory::Directory,
    limits::Buffers,
    model::{Actor, Borrowed, Clock, KeyId, PasswordDigest, Pepper, Secret},
};

/// Decides about requests. Cheap to clone: all clones share one state.
#[derive(Clone)]
pub struct Gate(Arc<GateState>);

#[derive(Clone)]
struct GateState {
    accounts: Accounts,
    directory: Arc<Directory>,
    /// In an `Arc`, so that a copy of this state does not copy the pepper in memory.
    pepper: Arc<Pepper>,
    passwords: Passwords,
    clock: Clock,
    /// The maximum size of the header field with the credential, in bytes.
    credential_bytes: usize,
    /// How much of each request is recorded.
    observation: Observation,
    /// Has one permit for each write that may run after a response at the same time.
    background_writes: Arc<Semaphore>,
}

/// The maximum number of writes that run after responses at the same time.
const BACKGROUND_WRITES: usize = 64;

impl Gate {
    /// Creates a gate that checks credentials of these accounts. `credential_bytes` is the maximum
    /// size of the header field with the credential.
    pub fn new(accounts: &Accounts, credential_bytes: usize) -> Self {
        Self(Arc::new(GateState {
            accounts: accounts.clone(),
            directory: accounts.directory().clone(),
            pepper: Arc::new(accounts.pepper().clone()),
            passwords: accounts.passwords().clone(),
            clock: accounts.clock().clone(),
            credential_bytes,
            observation: Observation::Off,
            background_writes: Arc::new(Semaphore::new(BACKGROUND_WRITES)),
        }))
    }

    /// Records this much of each request, for a [`RequestObserver`](record::RequestObserver).
    #[must_use]
    pub fn observed(&self, observation: Observation) -> Self {
        Self(Arc::new(GateState { observation, ..GateState::clone(&self.0) }))
    }

    /// A gate that shares no reference count with other gates. Every decision clones and drops a
    /// gate, so CPU cores that share one reference count would wait for each other.
    #[must_use]
    pub fn unshared(&self) -> Self {
        Self(Arc::new(GateState::clone(&self.0)))
    }

    /// The budget of the request bodies that are in memory.
    pub(crate) fn buffers(&self) -> &Buffers {
        self.0.accounts.buffers()
    }

    /// Whether both gates decide with the records of one [`Accounts`].
    pub(crate) fn shares_records(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.directory, &other.0.directory)
    }

    /// The accounts whose credentials this gate checks.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// A snapshot of policy and scripts for the next request.
    pub fn request_context(&self) -> RequestContext {
        let (policy, scripts) = (self.0.directory.borrow_policy(), self.0.accounts.scripts());
        RequestContext::new(policy, scripts.borrow_current(), self.clone())
    }

    /// A request context for a dry run. During a dry run scripts can read their counters without
    /// changing them, and the gate writes nothing to the store.
    pub fn dry_run_context(&self) -> RequestContext {
        let scripts = Arc::new(self.0.accounts.scripts().current().dry_run());
        let policy = self.0.directory.borrow_policy();
        RequestContext::new(policy, Borrowed::from_inner(scripts), self.clone()).dry_run()
    }

    /// Stores a credential that a script has verified, so that it becomes a key of the user. The
    /// write runs after the response. If the write fails, the next use of the credential retries
    /// it.
    fn adopt(&self, uid: u64, application: &str, text: Secret, bounds: AdoptedBounds) {
        let application = application.to_owned();
        self.write_later(async move |accounts| {
            let writer = accounts.as_actor(Actor::Program);
            if let Err(problem) = writer.adopt_key(uid, &application, &text, &bounds).await {
                tracing::warn!(
                    uid,
                    application,
                    %problem,
                    "could not store a key that a script adopted; its next use retries the write"
                );
            }
        });
    }

    /// Replaces a key's slow digest by a fast digest. The write runs after the response. If the
    /// write fails, the next use of the key retries it.
    fn rehash_key(&self, id: KeyId, text: Secret) {
        self.write_later(async move |accounts| {
            let writer = accounts.as_actor(Actor::Program);
            if let Err(problem) = writer.rehash_key(id, &text).await {
                tracing::warn!(key = %id, %problem, "could not rehash a key; the key keeps its slow digest");
            }
        });
    }

    /// Replaces a password digest of another system by a Keyward digest. The write runs after the
    /// response. If the write fails, the next use of the password retries it.
    fn rehash_password(&self, uid: u64, before: PasswordDigest, password: Secret) {
        self.write_later(async move |accounts| {
            let writer = accounts.as_actor(Actor::Program);
            if let Err(problem) = writer.rehash_password(uid, &before, password).await {
                tracing::warn!(uid, %problem, "could not rehash a password; the user keeps the imported digest");
            }
        });
    }

    /// Starts a write in the background, so that the response does not wait for the write. Skips
    /// the write if [`BACKGROUND_WRITES`] writes are running.
    fn write_later<F>(&self, write: impl FnOnce(Accounts) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let permit = self.0.background_writes.clone().try_acquire_owned();
        let Ok(permit) = permit else { return };
        let write = write(self.0.accounts.clone());
        tokio::spawn(async move {
            write.await;
            drop(permit);
        });
    }

    /// Authenticates a request, for a program that checks permissions with its own code.
    ///
    /// # Errors
    /// The denial of the first phase that refuses the request. Anonymous requests are refused, too.
    pub async fn authenticate<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
    ) -> Result<Identity<'a>, Denial> {
        let rules = EntryRules { permissions: &[], anonymous: Anonymous::Refused };
        let grant = self.authorize(context, request, &Action::Enter(rules)).await?;
        Ok(grant.into_identity())
    }

    /// Decides whether a request may perform an action.
    ///
    /// # Errors
    /// The denial of the first phase that refuses the request.
    pub async fn authorize<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
    ) -> Result<Grant<'a>, Denial> {
        let mut audit = DenialAudit::default();
        let observation = self.0.observation;
        let started = (observation > Observation::Off).then(Instant::now);
        let result = self.decide(context, request, action, &mut audit).await;
        if let Some(started) = started {
            let result = result.as_ref().map(Grant::identity);
            let object = denial_audit::object(action);
            let elapsed = started.elapsed();
            context.record(audit.facts(observation, elapsed, object, result));
        }
        match result {
            Ok(grant) => Ok(grant),
            Err(denial) => Err(Box::pin(deny(context, request, action, audit, denial)).await),
        }
    }

    /// Runs the five phases.
    ///
    /// A future is as large as the largest future that it awaits, and moving a future copies all
    /// its bytes. So the phases box the futures that run for few requests only: those of scripts,
    /// slow digests and denials.
    async fn decide<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        audit: &mut DenialAudit<'a>,
    ) -> Result<Grant<'a>, Denial> {
        let presented = header::read(self, context, request, action).await?;
        audit.note_presented(&presented);
        let credential = decode::parse(context, request, presented).await?;
        let candidate = lookup::find(self, context, request, credential).await?;
        audit.note_candidate(&candidate);
        let identity = verify::check(self, context, request, action, candidate).await?;
        audit.note_identity(&identity);
        permit::decide(context, request, identity, action).await
    }
}

/// Counts, audits and delays a denial before the client gets it.
async fn deny(
    context: &RequestContext,
    request: &Request<'_>,
    action: &Action<'_>,
    audit: DenialAudit<'_>,
    denial: Denial,
) -> Denial {
    let denial = context.complete_challenge(denial);
    let denial = context.count_failure(request.client, denial);
    audit.record(context, request.client, denial_audit::object(action), &denial);
    if audit.is_uniform() {
        failures::delay_uniform_denial(&denial).await;
    }
    denial
}
