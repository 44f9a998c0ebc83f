//! Runs a function of a script: within its budget, behind its breaker, on the thread that it asks for. Whatever happens in it, a
//! value or a [`Fault`] comes out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use rhai::{Dynamic, Engine, EvalAltResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Fault, Function, Kind, Limits,
    compiler::compile::Compiled,
    fault::Failure,
    limits::Budget,
    runtime::{
        breaker::Breaker,
        budget,
        context::{Call, ContextHandle, Hidden, HostContext},
        outbox::Outbox,
        prepared::{Entry, Tag},
    },
};
use crate::model::Secret;

/// A script, ready to be called. A cheap handle.
#[derive(Clone)]
pub struct Script {
    pub(super) inner: Arc<Inner>,
    /// The real surroundings, or those of a test.
    pub(super) ambient: Arc<HostContext>,
    /// What the engine hands to host functions in calls that hide nothing; made once.
    plain: ContextHandle,
}

pub(super) struct Inner {
    pub kind: Kind,
    pub name: String,
    pub file: String,
    pub text: String,
    pub compiled: Compiled,
    pub engine: Arc<Engine>,
    pub breaker: Breaker,
    pub pool: Arc<Pool>,
}

/// What surrounds one call, and no other.
#[derive(Default)]
pub(super) struct CallOptions {
    /// What no log line may repeat.
    pub hidden: Hidden,
    /// Where webhooks go; none: there are none in this call.
    pub outbox: Option<Outbox>,
}

impl From<Vec<Secret>> for CallOptions {
    fn from(hidden: Vec<Secret>) -> Self {
        let hidden = (!hidden.is_empty()).then(|| hidden.into());
        Self { hidden, outbox: None }
    }
}

/// The threads for blocking scripts, as turns to take.
pub(super) struct Pool {
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
}

impl Pool {
    pub fn new(limits: &Limits) -> Self {
        let turns = Arc::new(Semaphore::new(limits.blocking_calls.max(1)));
        Self { turns, waiting: AtomicUsize::new(0), queue: limits.blocking_queue }
    }

    /// A turn, now or after those who wait already; none when too many do.
    async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(turn) = self.turns.clone().try_acquire_owned() {
            return Some(turn);
        }
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        // Counted first, so that two who come at once do not both take the last place.
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.queue {
            return None;
        }
        self.turns.clone().acquire_owned().await.ok()
    }
}

impl Script {
    pub(super) fn new(inner: Arc<Inner>, ambient: Arc<HostContext>) -> Self {
        let plain = ContextHandle::new(Self::surroundings(&inner, &ambient));
        Self { inner, ambient, plain }
    }

    fn surroundings(inner: &Inner, ambient: &Arc<HostContext>) -> Call {
        let mut call = Call::new(ambient.clone());
        call.constants = Some(inner.compiled.constants.clone());
        call
    }

    /// The same script in other surroundings.
    pub(super) fn within(&self, ambient: &Arc<HostContext>) -> Self {
        Self::new(self.inner.clone(), ambient.clone())
    }

    /// What the script is for.
    pub fn kind(&self) -> Kind {
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

    /// Whether it defines this function. What an authentication type leaves out, the built-in room does.
    pub fn defines(&self, function: Function) -> bool {
        self.inner.compiled.functions & function.bit() != 0
    }

    /// Whether it runs on a thread of its own.
    pub fn is_blocking(&self) -> bool {
        self.inner.compiled.is_blocking
    }

    /// Whether it is switched off because it kept running out of its budget.
    pub fn is_off(&self) -> bool {
        self.inner.breaker.is_off_now()
    }

    /// Calls a function.
    pub(super) async fn call(
        &self,
        function: Function,
        arguments: impl IntoIterator<Item = Dynamic> + Send + 'static,
        around: impl Into<CallOptions>,
    ) -> Result<Dynamic, Fault> {
        let around = around.into();
        if self.inner.compiled.entry(function).is_none() {
            let name = function.name();
            return Err(self.broken(&format!("the script does not define {name}")));
        }
        if self.is_off() {
            return Err(
                self.broken("the script is switched off: it kept running out of its budget")
            );
        }
        let limits = &self.ambient.limits;
        // A test is on a thread of its own already.
        if !self.is_blocking() || self.ambient.world.is_some() {
            let budget = if self.is_blocking() { limits.blocking() } else { limits.inline() };
            return self.finish(self.run(function, arguments, around, budget));
        }
        let waited = tokio::time::timeout(limits.blocking_time, self.inner.pool.turn()).await;
        let Ok(Some(turn)) = waited else {
            return Err(self.broken("too busy: too many calls of blocking scripts wait already"));
        };
        let (script, budget) = (self.clone(), limits.blocking());
        let outcome = tokio::task::spawn_blocking(move || {
            // Kept to the end of the call, also when nobody waits for it any more.
            let _turn = turn;
            script.run(function, arguments, around, budget)
        });
        match outcome.await {
            Ok(outcome) => self.finish(outcome),
            Err(_) => Err(self.broken("the thread of the call ended")),
        }
    }

    /// Calls a function on this thread.
    fn run(
        &self,
        function: Function,
        arguments: impl IntoIterator<Item = Dynamic>,
        around: CallOptions,
        budget: Budget,
    ) -> Result<Dynamic, Failure> {
        let kept = around.hidden.clone();
        let Some(entry) = self.inner.compiled.entry(function) else {
            let name = function.name();
            return Err(Failure::Other(self.broken(&format!("there is no {name} to be called"))));
        };
        match self.evaluate(entry, arguments, around, budget) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                let hidden = kept.as_deref().unwrap_or_default();
                Err(Failure::of(&self.inner.file, &error).without(hidden))
            }
            Err(Panicked) => {
                let name = function.name();
                Err(Failure::Other(self.broken(&format!("a host function panicked in {name}"))))
            }
        }
    }

    pub(super) fn evaluate(
        &self,
        entry: &Entry,
        arguments: impl IntoIterator<Item = Dynamic>,
        around: CallOptions,
        budget: Budget,
    ) -> Result<Result<Dynamic, Box<EvalAltResult>>, Panicked> {
        let CallOptions { hidden, outbox } = around;
        let tag = if hidden.is_none() && outbox.is_none() && self.ambient.world.is_none() {
            Tag::Kept(&self.plain)
        } else {
            let mut call = Self::surroundings(&self.inner, &self.ambient);
            call.hidden = hidden;
            call.outbox = outbox;
            Tag::Forgotten(ContextHandle::new(call))
        };
        let engine = &self.inner.engine;
        budget::within(budget, || guarded(|| entry.call(engine, tag, arguments)))
    }

    /// Counts what ran out of its budget, and makes a fault of a failure.
    fn finish(&self, outcome: Result<Dynamic, Failure>) -> Result<Dynamic, Fault> {
        outcome.map_err(|failure| {
            if let Failure::Exhausted(_) = failure
                && self.inner.breaker.strike(Instant::now())
            {
                let seconds = self.ambient.limits.cool_down.as_secs();
                tracing::error!(
                    script = self.inner.file,
                    "the script keeps running out of its budget and is switched off for {seconds} s: what needs it is refused"
                );
            }
            failure.into_fault()
        })
    }

    /// A failure that is the script's as a whole.
    pub(super) fn broken(&self, reason: &str) -> Fault {
        Fault::broken(format!("{}: {reason}", self.inner.file))
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Script({})", self.inner.file)
    }
}

/// A host function panicked. What it said is with the panic hook.
pub(super) struct Panicked;

/// Runs something that may panic. What it worked on is dropped, so that nobody sees it half done.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}
