//! What surrounds a call: where look-ups go, what time it is, the named secrets. A test has its own of each.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Deref,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};

use super::{outbox::Outbox, rate_limiter::Rates, replay_cache::Replays, sandbox::Sandbox};
use crate::{
    model::{Clock, Mode, Secret},
    scripting::{Limits, Records},
};

/// The named secrets of the configuration. Scripts can use them and cannot read them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<BTreeMap<String, Arc<Secret>>>);

impl Secrets {
    /// These secrets, by name.
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let secrets = secrets.into_iter().map(|(name, secret)| (name, Arc::new(secret)));
        Self(Arc::new(secrets.collect()))
    }

    pub(in crate::scripting) fn get(&self, name: &str) -> Option<Arc<Secret>> {
        self.0.get(name).cloned()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What all calls share. It outlives reloads: a reload must not make a replay new, or a bucket full.
pub(in crate::scripting) struct HostContext {
    pub records: Arc<dyn Records>,
    pub clock: Clock,
    pub secrets: Secrets,
    pub limits: Limits,
    pub rates: Arc<Rates>,
    pub replays: Arc<Replays>,
    pub patterns: Arc<Patterns>,
    pub mode: Mode,
    /// The names of the webhooks that there are.
    pub webhooks: Arc<[String]>,
    /// Only while a script's own tests run.
    pub world: Option<Arc<Sandbox>>,
    started: Instant,
}

impl HostContext {
    pub fn new(records: Arc<dyn Records>, clock: Clock, secrets: Secrets, limits: Limits) -> Self {
        Self {
            records,
            clock,
            secrets,
            rates: Arc::new(Rates::new(limits.rate_buckets)),
            replays: Arc::new(Replays::new(limits.replay_ids)),
            patterns: Arc::default(),
            mode: Mode::Live,
            webhooks: Arc::default(),
            limits,
            world: None,
            started: Instant::now(),
        }
    }

    /// The same, with these webhooks.
    pub fn knowing(self, webhooks: Arc<[String]>) -> Self {
        Self { webhooks, ..self }
    }

    /// The same with the same tables, which are looked at and stay as they are.
    pub fn looking(&self) -> Self {
        Self {
            records: self.records.clone(),
            clock: self.clock.clone(),
            secrets: self.secrets.clone(),
            limits: self.limits.clone(),
            rates: self.rates.clone(),
            replays: self.replays.clone(),
            patterns: self.patterns.clone(),
            mode: Mode::DryRun,
            webhooks: self.webhooks.clone(),
            world: self.world.clone(),
            started: self.started,
        }
    }

    /// The same for one test: nothing of the real records, and tables of its own.
    pub fn for_test(limits: &Limits, world: Arc<Sandbox>) -> Self {
        let clock = world.clock();
        let mut limits = limits.clone();
        // A test's tables last as long as the test.
        limits.rate_buckets = limits.rate_buckets.min(1024);
        limits.replay_ids = limits.replay_ids.min(1024);
        let mut ambient = Self::new(world.clone(), clock, Secrets::default(), limits);
        ambient.world = Some(world);
        ambient
    }

    /// Milliseconds that only grow. In a test: those of the test's clock.
    pub fn milliseconds(&self) -> u64 {
        match &self.world {
            Some(_) => u64::try_from(self.clock.now().0).unwrap_or(0).saturating_mul(1000),
            None => u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        match &self.world {
            Some(world) => world.secret(name),
            None => self.secrets.get(name),
        }
    }
}

/// One call's surroundings.
pub(in crate::scripting) struct Call {
    pub ambient: Arc<HostContext>,
    /// Credentials that are at hand in this call, so that no log line repeats them.
    pub hidden: Hidden,
    /// The constants of the script's file.
    pub constants: Option<Arc<Constants>>,
    /// Where webhooks go, in calls that may have some.
    pub outbox: Option<Outbox>,
}

/// Credentials; none: there are none.
pub(in crate::scripting) type Hidden = Option<Arc<[Secret]>>;

/// The same as the engine carries them to host functions.
#[derive(Clone)]
pub(in crate::scripting) struct ContextHandle(Arc<Call>);

impl ContextHandle {
    pub fn new(call: Call) -> Self {
        Self(Arc::new(call))
    }

    /// Whether both are the surroundings of the same call, or of the same calls.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for ContextHandle {
    type Target = Call;

    fn deref(&self) -> &Call {
        &self.0
    }
}

/// The constants of a file, by name.
pub(in crate::scripting) type Constants = HashMap<String, Dynamic, foldhash::fast::RandomState>;

impl Call {
    pub fn new(ambient: Arc<HostContext>) -> Self {
        Self { ambient, hidden: None, constants: None, outbox: None }
    }

    /// The call that a host function belongs to.
    ///
    /// # Errors
    /// There is none: the function was called outside of a call, which a script cannot do.
    pub fn of<'a>(
        context: &'a NativeCallContext<'_>,
    ) -> Result<impl Deref<Target = ContextHandle> + 'a, Box<EvalAltResult>> {
        let tag = context.tag().and_then(|tag| tag.read_lock::<ContextHandle>());
        tag.ok_or_else(|| stop("this function needs a request"))
    }

    /// A text without the credentials that are at hand.
    pub fn without_hidden(&self, text: &str) -> String {
        crate::scripting::fault::blotted(text, self.hidden.as_deref().unwrap_or_default())
    }
}

/// An error of a host function, for the script's author.
pub(in crate::scripting) fn stop(message: impl Into<String>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(Dynamic::from(message.into()), Position::NONE).into()
}

/// Regular expressions that were compiled before. Scripts use few; when there are many, all are forgotten and built anew.
#[derive(Default)]
pub(in crate::scripting) struct Patterns(ArcSwap<Compiled>);

/// Patterns by their text. One that is copied has lost its memory of other texts, so they are shared.
type Compiled = HashMap<Arc<str>, Arc<regex::Regex>, foldhash::fast::RandomState>;

impl Patterns {
    const MOST: usize = 128;
    const BYTES: usize = 512;

    /// Whether the pattern is found in a text.
    ///
    /// # Errors
    /// It is no pattern, or one that would take too much memory.
    pub fn is_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
        if pattern.len() > Self::BYTES {
            return Err(format!("the pattern is longer than {} bytes", Self::BYTES));
        }
        if let Some(found) = self.0.load().get(pattern) {
            return Ok(found.is_match(text));
        }
        let built = regex::RegexBuilder::new(pattern)
            .size_limit(128 * 1024)
            .dfa_size_limit(256 * 1024)
            .nest_limit(32)
            .build()
            .map_err(|_| "the pattern is no regular expression, or too large a one")?;
        let (pattern, built) = (Arc::<str>::from(pattern), Arc::new(built));
        self.0.rcu(|known| {
            let known = Compiled::clone(known);
            let mut next = if known.len() >= Self::MOST { Compiled::default() } else { known };
            next.insert(pattern.clone(), built.clone());
            next
        });
        Ok(built.is_match(text))
    }
}
