//! Runs the functions of a script within a budget of time and steps. A circuit breaker switches off
//! a script that keeps exceeding this budget, and a blocking script runs on a separate thread. Each
//! call ends with a value or a [`Fault`], even if a host function panics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use rhai::{Dynamic, Engine, EvalAltResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    compiler::compile::Compiled,
    entry_points::{Function, ScriptKind},
    error::ScriptError,
    fault::{CallFailure, Fault},
    limits::{CallBudget, ScriptLimits},
    runtime::{
        breaker::Breaker,
        budget::{self, Panicked},
        context::{CallContext, ContextHandle, HostContext, Redactions},
        outbox::ScriptOutbox,
        prepared::{PreparedFn, Tag},
    },
    values::credential::CredentialDeclaration,
};
use crate::model::Secret;

/// A compiled script, ready to be called. Cheap to clone.
#[derive(Clone)]
pub struct Script {
    pub(super) inner: Arc<ScriptInner>,
    /// The host for real requests, or the host of a test.
    pub(super) host: Arc<HostContext>,
    /// The context that all calls without secrets and webhooks share. Built once.
    reusable_context: ContextHandle,
}

pub(super) struct ScriptInner {
    pub kind: ScriptKind,
    pub name: String,
    pub file: String,
    pub text: String,
    pub compiled: Compiled,
    pub engine: Arc<Engine>,
    pub breaker: Breaker,
    pub pool: Arc<BlockingPool>,
}

/// The options of one call.
#[derive(Default)]
pub(super) struct CallOptions {
    /// Credentials that must not appear in logs.
    pub redactions: Redactions,
    /// Collects webhooks; `None` means that the call must not send webhooks.
    pub outbox: Option<ScriptOutbox>,
}

impl From<Vec<Secret>> for CallOptions {
    fn from(secrets: Vec<Secret>) -> Self {
        let redactions = (!secrets.is_empty()).then(|| secrets.into());
        Self { redactions, outbox: None }
    }
}

/// Limits how many calls of blocking scripts run at the same time, and how many calls wait.
pub(super) struct BlockingPool {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl BlockingPool {
    pub fn new(limits: &ScriptLimits) -> Self {
        let permits = Arc::new(Semaphore::new(limits.blocking_calls.max(1)));
        Self { permits, waiting: AtomicUsize::new(0), max_waiting: limits.blocking_queue }
    }

    /// Waits for the permit to run a call, behind all calls that have waited longer. `None` means
    /// that the queue is full.
    async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        struct Queued<'a>(&'a AtomicUsize);
        impl Drop for Queued<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        // This call is counted before the check, so that two simultaneous calls cannot both take
        // the last place in the queue.
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _queued = Queued(&self.waiting);
        if waiting >= self.max_waiting {
            return None;
        }
        self.permits.clone().acquire_owned().await.ok()
    }
}

impl Script {
    pub(super) fn new(inner: Arc<ScriptInner>, host: Arc<HostContext>) -> Self {
        let reusable_context =
            ContextHandle::new(Self::context(&inner, &host, CallOptions::default()));
        Self { inner, host, reusable_context }
    }

    fn context(inner: &ScriptInner, host: &Arc<HostContext>, options: CallOptions) -> CallContext {
        let CallOptions { redactions, outbox } = options;
        let constants = Some(inner.compiled.constants.clone());
        CallContext { host: host.clone(), redactions, constants, outbox }
    }

    /// A copy of the script with another host.
    pub(super) fn with_host(&self, host: &Arc<HostContext>) -> Self {
        Self::new(self.inner.clone(), host.clone())
    }

    /// The kind of the script.
    pub fn kind(&self) -> ScriptKind {
        self.inner.kind
    }

    /// The name of the authentication type, the resource or the handler; empty for `hooks.rhai`.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The file, relative to the folder of scripts.
    pub fn file(&self) -> &str {
        &self.inner.file
    }

    /// Whether the script defines this function. A built-in phase takes the place of a function
    /// that an authentication type does not define.
    pub fn defines(&self, function: Function) -> bool {
        self.inner.compiled.functions & function.bit() != 0
    }

    /// The functions that the script defines and that Keyward calls.
    pub fn functions(&self) -> Vec<Function> {
        Function::ALL.into_iter().filter(|function| self.defines(*function)).collect()
    }

    /// The names of the script's `test_…` functions, in the order of the file.
    pub fn tests(&self) -> impl Iterator<Item = &str> {
        self.inner.compiled.tests.iter().map(String::as_str)
    }

    /// Where a request carries the credential, as an authentication type declares it. `None` means
    /// that the script does not declare it.
    pub fn credential(&self) -> Option<&Arc<CredentialDeclaration>> {
        self.inner.compiled.credential.as_ref()
    }

    /// Probable mistakes in the script that do not prevent it from being loaded.
    pub fn warnings(&self) -> &[ScriptError] {
        &self.inner.compiled.warnings
    }

    /// Whether calls of the script run on a separate thread.
    pub fn is_blocking(&self) -> bool {
        self.inner.compiled.is_blocking
    }

    /// Whether the script is switched off because it kept exceeding its budget.
    pub fn is_off(&self) -> bool {
        self.inner.breaker.is_off_now()
    }

    /// Calls a function.
    pub(super) async fn call(
        &self,
        function: Function,
        arguments: impl IntoIterator<Item = Dynamic> + Send + 'static,
        options: impl Into<CallOptions>,
    ) -> Result<Dynamic, Fault> {
        let options = options.into();
        if !self.defines(function) {
            let name = function.name();
            return Err(self.failed(&format!("the script does not define {name}")));
        }
        if self.is_off() {
            return Err(
                self.failed("the script is switched off because it kept exceeding its budget")
            );
        }
        let limits = &self.host.limits;
        // A test already runs on a thread that may block.
        if !self.is_blocking() || self.host.sandbox.is_some() {
            let budget = if self.is_blocking() { limits.blocking() } else { limits.inline() };
            return self.finish(self.run(function, arguments, options, budget));
        }
        let waited = tokio::time::timeout(limits.blocking_time, self.inner.pool.acquire()).await;
        let Ok(Some(permit)) = waited else {
            return Err(self.failed("too busy: too many calls of blocking scripts are waiting"));
        };
        let (script, budget) = (self.clone(), limits.blocking());
        let outcome = tokio::task::spawn_blocking(move || {
            // The permit is held until the call ends, even if the caller stops waiting for the
            // result.
            let _permit = permit;
            script.run(function, arguments, options, budget)
        });
        match outcome.await {
            Ok(outcome) => self.finish(outcome),
            Err(_) => Err(self.failed("the thread of the call ended without a result")),
        }
    }

    /// Calls a function on this thread.
    fn run(
        &self,
        function: Function,
        arguments: impl IntoIterator<Item = Dynamic>,
        options: CallOptions,
        budget: CallBudget,
    ) -> Result<Dynamic, CallFailure> {
        let redactions = options.redactions.clone();
        let name = function.name();
        let Some(prepared) = self.inner.compiled.function(function) else {
            return Err(CallFailure::Other(
                self.failed(&format!("the script does not define {name}")),
            ));
        };
        match self.evaluate(prepared, arguments, options, budget) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let failure = CallFailure::from_engine(&self.inner.file, &error);
                Err(failure.redacted(redactions.as_deref().unwrap_or_default()))
            }
            Err(Panicked) => {
                let reason = format!("a host function panicked in {name}");
                Err(CallFailure::Other(self.failed(&reason)))
            }
        }
    }

    pub(super) fn evaluate(
        &self,
        function: &PreparedFn,
        arguments: impl IntoIterator<Item = Dynamic>,
        options: CallOptions,
        budget: CallBudget,
    ) -> Result<Result<Dynamic, Box<EvalAltResult>>, Panicked> {
        let is_plain = options.redactions.is_none() && options.outbox.is_none();
        let tag = if is_plain && self.host.sandbox.is_none() {
            Tag::Reusable(&self.reusable_context)
        } else {
            Tag::SingleUse(ContextHandle::new(Self::context(&self.inner, &self.host, options)))
        };
        let engine = &self.inner.engine;
        budget::run_within(budget, || budget::catch_panic(|| function.call(engine, tag, arguments)))
    }

    /// Turns a failure into a fault, and reports an exceeded budget to the breaker.
    fn finish(&self, outcome: Result<Dynamic, CallFailure>) -> Result<Dynamic, Fault> {
        outcome.map_err(|failure| {
            if let CallFailure::Exhausted(_) = failure
                && self.inner.breaker.strike(Instant::now())
            {
                let seconds = self.host.limits.cool_down.as_secs();
                tracing::error!(
                    script = self.inner.file,
                    "the script keeps exceeding its budget and is switched off for {seconds} s; requests that need the script are rejected"
                );
            }
            failure.into_fault()
        })
    }

    /// A failure with a detail that names the file, but no line.
    pub(super) fn failed(&self, reason: &str) -> Fault {
        Fault::failed(format!("{}: {reason}", self.inner.file))
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({})", self.inner.file)
    }
}
