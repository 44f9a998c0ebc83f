//! Runs the functions of a script within a budget of time and steps. A circuit breaker switches off
//! a script that keeps exceeding this budget, and a blocking script runs on a separate thread. Each
//! call ends with a value or a [`Fault`], even if a host function panics.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use http::StatusCode;

use rhai::{Dynamic, Engine, EvalAltResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    compiler::compile::Compiled,
    entry_points::{Function, ScriptKind},
    error::ScriptError,
    fault::{CallFailure, Fault},
    limits::{CallBudget, ScriptLimits},
    runtime::{
        breaker::{Admission, Breaker, Consequence, Probe},
        budget::{self, Panicked},
        context::{CallContext, ContextHandle, HostContext, Redactions, Secrets},
        outbox::ScriptOutbox,
        prepared::{PreparedFn, Tag},
        quota::{self, Owner},
    },
    values::{credential::CredentialDeclaration, request::ScriptRequest, response::ScriptResponse},
};
use crate::model::{Mode, Secret};

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
    /// A hash of `file`.
    pub id: u64,
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

/// The request for which a script is called.
#[derive(Clone, Copy, Default)]
pub(super) struct Caller<'a> {
    /// The client whose request it is; `None` means that no request causes the call.
    pub client: Option<IpAddr>,
    /// The request, if it is to blame for values that are too large.
    pub input: Option<&'a ScriptRequest>,
    /// The response that the script changes. If it is larger than the request, the request is not
    /// to blame.
    pub response: Option<&'a ScriptResponse>,
}

impl<'a> Caller<'a> {
    pub fn of(request: &'a ScriptRequest) -> Self {
        Self { client: Some(request.parts().client), input: Some(request), response: None }
    }

    /// The request that is to blame for values that are too large.
    fn blamed(&self) -> Option<&'a ScriptRequest> {
        let size = self.response.map_or(0, ScriptResponse::largest_part);
        self.input.filter(|request| request.largest_part().1 >= size)
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

    /// Whether this function reads the body of the request.
    pub fn reads_body(&self, function: Function) -> bool {
        self.inner.compiled.body_readers & function.bit() != 0
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

    /// The secrets that the script names but that do not exist, as warnings.
    pub fn missing_secrets(&self, secrets: &Secrets) -> Vec<ScriptError> {
        let ScriptInner { file, text, compiled, .. } = &*self.inner;
        let missing = compiled.secrets.iter().filter(|(name, _)| !secrets.has(name));
        missing
            .map(|(name, position)| {
                let message = format!(
                    "there is no secret {name:?}; write the secret into a file with this name in the folder scripts.secrets_dir"
                );
                ScriptError::at(file, text, *position, message)
            })
            .collect()
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.host.secrets
    }

    /// Whether the script has an effect only if a record refers to it.
    pub(super) fn needs_record(&self) -> bool {
        matches!(self.kind(), ScriptKind::Auth | ScriptKind::Handler)
    }

    /// Whether calls of the script run on a separate thread.
    pub fn is_blocking(&self) -> bool {
        self.inner.compiled.is_blocking
    }

    /// Whether the script is switched off because it kept exceeding its budget.
    pub fn is_off(&self) -> bool {
        self.inner.breaker.is_off()
    }

    /// Calls a function.
    pub(super) async fn call(
        &self,
        function: Function,
        caller: Caller<'_>,
        arguments: impl IntoIterator<Item = Dynamic> + Send + 'static,
        options: impl Into<CallOptions>,
    ) -> Result<Dynamic, Fault> {
        let options = options.into();
        if !self.defines(function) {
            let name = function.name();
            return Err(self.failed(&format!("the script does not define {name}")));
        }
        let probe = self.admit(function, caller.client)?;
        let limits = &self.host.limits;
        // A test already runs on a thread that may block.
        if !self.is_blocking() || self.host.sandbox.is_some() {
            let budget = if self.is_blocking() { limits.blocking() } else { limits.inline() };
            let outcome = self.run(function, caller.client, arguments, options, budget);
            return self.finish(function, caller, probe, outcome);
        }
        let waited = tokio::time::timeout(limits.blocking_time, self.inner.pool.acquire()).await;
        let Ok(Some(permit)) = waited else {
            return Err(self.failed("too busy: too many calls of blocking scripts are waiting"));
        };
        let (script, budget, client) = (self.clone(), limits.blocking(), caller.client);
        let outcome = tokio::task::spawn_blocking(move || {
            // The permit is held until the call ends, even if the caller stops waiting for the
            // result.
            let _permit = permit;
            script.run(function, client, arguments, options, budget)
        });
        match outcome.await {
            Ok(outcome) => self.finish(function, caller, probe, outcome),
            Err(_) => Err(self.failed("the thread of the call ended without a result")),
        }
    }

    /// Calls a function on this thread.
    fn run(
        &self,
        function: Function,
        client: Option<IpAddr>,
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
        let owner = Owner::new(self.inner.id, client);
        let (outcome, entered) =
            quota::run_as(owner, || self.evaluate(prepared, arguments, options, budget));
        if !matches!(outcome, Ok(Ok(_))) {
            for id in entered {
                self.host.replay_cache.take_back(&id);
            }
        }
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let ScriptInner { file, text, .. } = &*self.inner;
                let failure = CallFailure::from_engine(file, text, name, &error);
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

    /// Whether calls have consequences for the script and its clients. Tests and dry runs have
    /// none.
    fn is_live(&self) -> bool {
        self.host.sandbox.is_none() && self.host.mode == Mode::Live
    }

    /// Asks the breaker whether a call may run.
    fn admit(
        &self,
        function: Function,
        client: Option<IpAddr>,
    ) -> Result<Option<Probe<'_>>, Fault> {
        if self.host.sandbox.is_some() {
            return Ok(None);
        }
        match self.inner.breaker.admit_now(function, client) {
            Admission::Run => Ok(None),
            // A dry run must not decide about the script.
            Admission::Probe(probe) if self.is_live() => Ok(Some(probe)),
            Admission::Probe(_) | Admission::Off => {
                Err(self.failed("the script is switched off because it kept exceeding its budget"))
            }
            Admission::ShutOut { seconds } => {
                let reason = "the script is not called for this client, whose requests kept exceeding its budget";
                let detail = format!("{}: {reason}", self.inner.file);
                Err(Fault::ShutOut { seconds, detail })
            }
        }
    }

    /// Turns a failure into a fault, and reports an exceeded budget to the breaker.
    fn finish(
        &self,
        function: Function,
        caller: Caller<'_>,
        probe: Option<Probe<'_>>,
        outcome: Result<Dynamic, CallFailure>,
    ) -> Result<Dynamic, Fault> {
        if let Err(CallFailure::Exhausted(fault)) = outcome {
            if self.is_live() {
                self.strike(function, caller.client);
            }
            return Err(fault);
        }
        if let Some(probe) = probe {
            probe.succeed();
            tracing::info!(script = self.inner.file, "the script is switched on again");
        }
        outcome.map_err(|failure| match (failure, caller.blamed()) {
            (CallFailure::TooLarge(detail), Some(request)) => {
                let status = if request.is_header_largest() {
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
                } else {
                    StatusCode::BAD_REQUEST
                };
                Fault::TooLarge { status, detail }
            }
            (CallFailure::TooLarge(detail), None) => Fault::Failed { detail },
            (CallFailure::Exhausted(fault) | CallFailure::Other(fault), _) => fault,
        })
    }

    /// Reports an exceeded budget of steps or time to the breaker.
    fn strike(&self, function: Function, client: Option<IpAddr>) {
        let seconds = self.host.limits.cool_down.as_secs();
        let (script, name) = (&self.inner.file, function.name());
        match self.inner.breaker.strike(function, client, Instant::now()) {
            Consequence::Counted => {}
            Consequence::ClientShutOut => tracing::warn!(
                script,
                function = name,
                client = client.map(tracing::field::display),
                "this client's requests keep exceeding the script's budget; they are rejected with 429 for {seconds} s"
            ),
            Consequence::SwitchedOff => tracing::error!(
                script,
                function = name,
                "the requests of several clients keep exceeding the script's budget, so it is switched off for {seconds} s; requests that need the script are rejected"
            ),
        }
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
