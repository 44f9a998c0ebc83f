//! The Gate: five rooms that every guarded request walks through, in one order.
//!
//! ```text
//! header::read    which application, and is there a credential   → Presented
//! decode::parse   what the credential says                       → Credential
//! lookup::find    whose it is                                    → Candidate
//! verify::check   whether it is theirs                           → Identity
//! permit::decide  whether they may do this                       → Grant
//! ```
//! Each room asks for the ticket that the room before it made, and a ticket can be made only in its own room. So a room that is
//! skipped does not compile:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, RequestContext, decode, header, lookup, permit};
//! async fn in_haste<'a>(gate: &Gate, scene: &'a RequestContext, request: &Request<'a>, action: &Action<'a>) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, scene, request, action).await?;
//!     let credential = decode::parse(scene, request, presented).await?;
//!     let candidate = lookup::find(gate, scene, request, credential).await?;
//!     permit::decide(scene, request, candidate, action).await
//! }
//! ```
//! nor does one that is put elsewhere:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Candidate, Denial, Gate, Request, RequestContext, header, lookup};
//! async fn look_up_first<'a>(gate: &Gate, scene: &'a RequestContext, request: &Request<'a>, action: &Action<'a>) -> Result<Candidate<'a>, Denial> {
//!     let presented = header::read(gate, scene, request, action).await?;
//!     lookup::find(gate, scene, request, presented).await
//! }
//! ```
//! nor a ticket that is forged:
//!
//! ```compile_fail,E0451
//! use keyward::pipeline::{Grant, Identity};
//! fn forge<'a>(identity: Identity<'a>) -> Grant<'a> {
//!     Grant { identity, rule: None, quota: Default::default() }
//! }
//! ```
//! nor one that is used twice:
//!
//! ```compile_fail,E0382
//! use keyward::pipeline::{Denial, Presented, Request, RequestContext, decode};
//! async fn twice<'a>(scene: &'a RequestContext, request: &Request<'a>, presented: Presented<'a>) -> Result<(), Denial> {
//!     decode::parse(scene, request, presented).await?;
//!     decode::parse(scene, request, presented).await?;
//!     Ok(())
//! }
//! ```
//! while the five in their order do:
//!
//! ```
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, RequestContext, decode, header, lookup, permit, verify};
//! async fn all<'a>(gate: &Gate, scene: &'a RequestContext, request: &Request<'a>, action: &Action<'a>) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, scene, request, action).await?;
//!     let credential = decode::parse(scene, request, presented).await?;
//!     let candidate = lookup::find(gate, scene, request, credential).await?;
//!     let identity = verify::check(gate, scene, request, action, candidate).await?;
//!     permit::decide(scene, request, identity, action).await
//! }
//! ```

mod context;
pub mod decode;
mod denial;
mod denial_audit;
mod explain;
mod failures;
pub mod header;
mod limits;
pub mod lookup;
pub mod permit;
mod request;
mod scripts;
mod slow_digests;
pub mod verify;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use context::RequestContext;
pub use decode::Credential;
pub use denial::{Denial, Parts, Phase, ScriptedBody, Shape};
pub use denial_audit::AuditScope;
pub use explain::{Asked, Explain, Explaining, Explanation, Fact, Step, Verdict};
pub use failures::{attempt as password_attempt, failed as password_failed};
pub use header::{AUTH_METHOD, Presented};
pub use limits::Quota;
pub use lookup::Candidate;
pub use permit::Grant;
pub use request::{Action, Anonymous, Entry, Face, Request};
pub use scripts::response_hooks::ResponseHooks;
pub use scripts::script_views::script_denial;
pub use scripts::test_gate::TestGate;
pub use verify::Identity;

use denial_audit::DenialAudit;

use crate::{
    accounts::{Accounts, Passwords},
    directory::Directory,
    model::{Actor, Borrowed, Clock, KeyId, PasswordDigest, Pepper, Secret},
};

/// What the rooms need besides the request. A cheap handle.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    accounts: Accounts,
    directory: Arc<Directory>,
    /// Not copied with a handle: the fewer places hold it, the better.
    pepper: Arc<Pepper>,
    passwords: Passwords,
    clock: Clock,
    credential_bytes: usize,
    /// Bounds how many keys of other systems are being written at the same time.
    adopting: Arc<Semaphore>,
}

/// Keys of other systems that are written at the same time.
const ADOPTING: usize = 64;

impl Gate {
    /// The gate in front of these accounts. A credential's header field may have `credential_bytes` at most.
    pub fn new(accounts: &Accounts, credential_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            accounts: accounts.clone(),
            directory: accounts.directory().clone(),
            pepper: Arc::new(accounts.pepper().clone()),
            passwords: accounts.passwords().clone(),
            clock: accounts.clock().clone(),
            credential_bytes,
            adopting: Arc::new(Semaphore::new(ADOPTING)),
        }))
    }

    /// A handle that shares no count with the others. Every decision takes and gives back a handle: where each core has its own, none waits for the
    /// other's.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self(Arc::new(Inner::clone(&self.0)))
    }

    /// What the next request is decided by.
    pub fn scene(&self) -> RequestContext {
        let (policy, scripts) = (self.0.directory.borrow_policy(), self.0.accounts.scripts());
        RequestContext::new(policy, scripts.borrow_current(), self.clone())
    }

    /// A scene in which nothing stays behind: what scripts count is looked at and not counted, and no key is taken over.
    pub fn dry_run_context(&self) -> RequestContext {
        let scripts = Arc::new(self.0.accounts.scripts().current().looking());
        let policy = self.0.directory.borrow_policy();
        RequestContext::new(policy, Borrowed::from_inner(scripts), self.clone()).without_traces()
    }

    /// Makes a credential that a script has checked one of the user's own keys, after the answer. What cannot be written now is written when the
    /// credential comes again.
    fn adopt(&self, uid: u64, application: &str, text: Secret) {
        let application = application.to_owned();
        self.afterwards(async move |accounts| {
            let acting = accounts.acting(Actor::Program);
            if let Err(problem) = acting.adopt_key(uid, &application, &text).await {
                tracing::warn!(uid, application, %problem, "a key was not taken over");
            }
        });
    }

    /// Gives a key that was slow to check a fast digest, after the answer. What cannot be written now is written at its next use.
    fn quicken(&self, id: KeyId, text: Secret) {
        self.afterwards(async move |accounts| {
            if let Err(problem) = accounts.acting(Actor::Program).quicken_key(id, &text).await {
                tracing::warn!(key = %id, %problem, "a key stays slow to check");
            }
        });
    }

    /// Makes a password's digest anew as ours are, in the same way.
    fn renew_password(&self, uid: u64, before: PasswordDigest, password: Secret) {
        self.afterwards(async move |accounts| {
            let acting = accounts.acting(Actor::Program);
            if let Err(problem) = acting.renew_password(uid, &before, password).await {
                tracing::warn!(uid, %problem, "a password keeps its old digest");
            }
        });
    }

    /// Does something after the answer, unless too much is being done already.
    fn afterwards<F>(&self, work: impl FnOnce(Accounts) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(turn) = self.0.adopting.clone().try_acquire_owned() else { return };
        let work = work(self.0.accounts.clone());
        tokio::spawn(async move {
            work.await;
            drop(turn);
        });
    }

    /// Who makes a request: the first four rooms, for a program that decides itself what they may.
    ///
    /// # Errors
    /// The first room that refuses; somebody whom nobody knows is refused too.
    pub async fn authenticate<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'a>,
    ) -> Result<Identity<'a>, Denial> {
        let entry = Entry { permissions: &[], anonymous: Anonymous::Refused };
        let grant = self.authorize(scene, request, &Action::Enter(entry)).await?;
        Ok(grant.into_identity())
    }

    /// Decides about a request.
    ///
    /// # Errors
    /// The first room that refuses.
    pub async fn authorize<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
    ) -> Result<Grant<'a>, Denial> {
        let mut seen = DenialAudit::default();
        match self.decide(scene, request, action, &mut seen).await {
            Ok(grant) => Ok(grant),
            Err(denial) => Err(Box::pin(self.refuse(scene, request, action, seen, denial)).await),
        }
    }

    /// What becomes of a refusal before anybody hears of it.
    async fn refuse(
        &self,
        scene: &RequestContext,
        request: &Request<'_>,
        action: &Action<'_>,
        seen: DenialAudit<'_>,
        denial: Denial,
    ) -> Denial {
        let denial = failures::counted(scene, request, denial);
        seen.tell(scene, request.client, denial_audit::object(action), &denial);
        if seen.is_uniform() {
            failures::even_out(&denial).await;
        }
        denial
    }

    /// A future is as large as the largest thing that it ever waits for, and is moved before it runs. So what few requests come to, scripts and slow
    /// checks and refusals, is put on the heap when one comes to it.
    async fn decide<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        seen: &mut DenialAudit<'a>,
    ) -> Result<Grant<'a>, Denial> {
        let presented = header::read(self, scene, request, action).await?;
        seen.presented(&presented);
        let credential = decode::parse(scene, request, presented).await?;
        let candidate = lookup::find(self, scene, request, credential).await?;
        seen.candidate(&candidate);
        let identity = verify::check(self, scene, request, action, candidate).await?;
        seen.identity(&identity);
        permit::decide(scene, request, identity, action).await
    }
}
