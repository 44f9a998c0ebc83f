//! The context of a script call. It has two parts: the host, which all calls share (records, clock,
//! secrets, limits), and the values of one call. Each test gets a separate host.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Deref,
    path::Path,
    sync::Arc,
    time::Instant,
};

use arc_swap::ArcSwap;
use rhai::{Dynamic, EvalAltResult, NativeCallContext, Position};

use super::{
    memory_pool::MemoryPool, outbox::ScriptOutbox, rate_limiter::RateLimiter,
    replay_cache::ReplayCache, sandbox::Sandbox,
};
use crate::{
    model::{Clock, Mode, Secret},
    scripting::{fault::redact, limits::ScriptLimits, values::records::Records},
};

/// The named secrets of the configuration. Scripts can use these secrets, but cannot read their
/// text.
#[derive(Clone, Default)]
pub struct Secrets {
    by_name: Arc<BTreeMap<String, Arc<Secret>>>,
    source: Option<SecretSource>,
}

/// Reads secrets again when the scripts are reloaded.
#[derive(Clone)]
struct SecretSource {
    folder: Arc<Path>,
    read: Arc<ReadSecrets>,
}

/// Reads the secrets of a folder, with their names. The error is a sentence for the operator.
type ReadSecrets = dyn Fn(&Path) -> Result<Vec<(String, Secret)>, String> + Send + Sync;

impl Secrets {
    /// Collects secrets with their names.
    pub fn new(secrets: impl IntoIterator<Item = (String, Secret)>) -> Self {
        let secrets = secrets.into_iter().map(|(name, secret)| (name, Arc::new(secret)));
        Self { by_name: Arc::new(secrets.collect()), source: None }
    }

    /// Reads the secrets of a folder, now and at each reload of the scripts. A missing folder
    /// contains no secrets.
    ///
    /// # Errors
    /// The error of `read`, a sentence for the operator.
    pub fn from_folder(
        folder: &Path,
        read: impl Fn(&Path) -> Result<Vec<(String, Secret)>, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let source = SecretSource { folder: folder.into(), read: Arc::new(read) };
        Self { source: Some(source), ..Self::default() }.read_again()
    }

    /// The secrets as they are now.
    pub(in crate::scripting) fn read_again(&self) -> Result<Self, String> {
        let Some(source) = &self.source else { return Ok(self.clone()) };
        let read = Self::new((source.read)(&source.folder)?);
        Ok(Self { source: Some(source.clone()), ..read })
    }

    /// The folder that the secrets are read from; `None` means that they never change.
    pub(in crate::scripting) fn folder(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| &*source.folder)
    }

    /// Whether the names and the texts are equal.
    pub(in crate::scripting) fn is_same(&self, other: &Self) -> bool {
        let texts = |secrets: &Self| -> Vec<(String, Arc<Secret>)> {
            secrets.by_name.iter().map(|(name, text)| (name.clone(), text.clone())).collect()
        };
        let (ours, theirs) = (texts(self), texts(other));
        ours.len() == theirs.len()
            && ours.iter().zip(&theirs).all(|((a, x), (b, y))| a == b && x.expose() == y.expose())
    }

    /// Whether there is a secret with this name.
    pub(in crate::scripting) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    fn get(&self, name: &str) -> Option<Arc<Secret>> {
        self.by_name.get(name).cloned()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// The services and tables that all calls share. The host outlives reloads, so that a reload
/// neither forgets the ids of `once` nor refills a rate limit.
#[derive(Clone)]
pub(in crate::scripting) struct HostContext {
    pub records: Arc<dyn Records>,
    pub clock: Clock,
    pub secrets: Secrets,
    pub limits: ScriptLimits,
    pub rate_limiter: Arc<RateLimiter>,
    pub replay_cache: Arc<ReplayCache>,
    pub regexes: Arc<RegexCache>,
    pub memory: Arc<MemoryPool>,
    pub mode: Mode,
    /// The names of the configured webhooks.
    pub webhooks: Arc<[String]>,
    /// The sandbox of a script test; `None` means that the host is for real requests.
    pub sandbox: Option<Arc<Sandbox>>,
    started: Instant,
}

impl HostContext {
    pub fn new(
        records: Arc<dyn Records>,
        clock: Clock,
        secrets: Secrets,
        limits: ScriptLimits,
    ) -> Self {
        Self {
            records,
            clock,
            secrets,
            rate_limiter: Arc::new(RateLimiter::new(limits.rate_buckets)),
            replay_cache: Arc::new(ReplayCache::new(limits.replay_ids)),
            regexes: Arc::default(),
            memory: Arc::new(MemoryPool::new(limits.memory_bytes)),
            mode: Mode::Live,
            webhooks: Arc::default(),
            limits,
            sandbox: None,
            started: Instant::now(),
        }
    }

    /// A copy for a dry run. The copy shares the tables of `rate_limit` and `once`, but only reads
    /// these tables.
    pub fn dry_run(&self) -> Self {
        Self { mode: Mode::DryRun, ..self.clone() }
    }

    /// A copy with other secrets, which shares all tables.
    pub fn with_secrets(&self, secrets: Secrets) -> Self {
        Self { secrets, ..self.clone() }
    }

    /// The host of one test, without the real records and with separate tables.
    pub fn for_test(limits: &ScriptLimits, sandbox: Arc<Sandbox>) -> Self {
        let clock = sandbox.clock();
        let mut limits = limits.clone();
        // These tables live only as long as the test, so they can be small.
        limits.rate_buckets = limits.rate_buckets.min(1024);
        limits.replay_ids = limits.replay_ids.min(1024);
        let mut host = Self::new(sandbox.clone(), clock, Secrets::default(), limits);
        host.sandbox = Some(sandbox);
        host
    }

    /// The milliseconds of a monotonic clock. In a test: the milliseconds of the test's clock.
    pub fn milliseconds(&self) -> u64 {
        match &self.sandbox {
            Some(_) => u64::try_from(self.clock.now().0).unwrap_or(0).saturating_mul(1000),
            None => u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        match &self.sandbox {
            Some(sandbox) => sandbox.secret(name),
            None => self.secrets.get(name),
        }
    }
}

/// The context of one call.
pub(in crate::scripting) struct CallContext {
    pub host: Arc<HostContext>,
    /// Credentials of this call, which log lines must not repeat.
    pub redactions: Redactions,
    /// The constants of the script's file.
    pub constants: Option<Arc<Constants>>,
    /// Collects webhooks; `None` means that this call must not send webhooks.
    pub outbox: Option<ScriptOutbox>,
}

/// Credentials that must not appear in logs; `None` means that there are none.
pub(in crate::scripting) type Redactions = Option<Arc<[Secret]>>;

/// The constants of a file, by name.
pub(in crate::scripting) type Constants = HashMap<String, Dynamic, foldhash::fast::RandomState>;

impl CallContext {
    pub fn new(host: Arc<HostContext>) -> Self {
        Self { host, redactions: None, constants: None, outbox: None }
    }

    /// The context of the call in which a host function runs.
    ///
    /// # Errors
    /// The host function runs outside of a call. Scripts cannot cause this error.
    pub fn current<'a>(
        context: &'a NativeCallContext<'_>,
    ) -> Result<impl Deref<Target = ContextHandle> + 'a, Box<EvalAltResult>> {
        let tag = context.tag().and_then(|tag| tag.read_lock::<ContextHandle>());
        tag.ok_or_else(|| {
            runtime_error("this function can be called only while Keyward calls a script")
        })
    }

    /// The text without the credentials of this call.
    pub fn redact(&self, text: &str) -> String {
        redact(text, self.redactions.as_deref().unwrap_or_default())
    }
}

/// A [`CallContext`] that is cheap to clone. The handle is the engine's tag, and host functions
/// read the handle from the tag.
#[derive(Clone)]
pub(in crate::scripting) struct ContextHandle(Arc<CallContext>);

impl ContextHandle {
    pub fn new(call: CallContext) -> Self {
        Self(Arc::new(call))
    }

    /// Whether both handles refer to one context.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Deref for ContextHandle {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.0
    }
}

/// An error of a host function, with a sentence for the script's author.
pub(in crate::scripting) fn runtime_error(message: impl Into<String>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorRuntime(Dynamic::from(message.into()), Position::NONE).into()
}

/// The error for a value that exceeds a limit of data. Scripts cannot catch this error. `kind`
/// names the limit, such as "Length of string".
pub(in crate::scripting) fn too_large(kind: impl Into<String>) -> Box<EvalAltResult> {
    EvalAltResult::ErrorDataTooLarge(kind.into(), Position::NONE).into()
}

/// A cache of compiled regular expressions. Scripts use few expressions, so a full cache is simply
/// emptied.
#[derive(Default)]
pub(in crate::scripting) struct RegexCache(ArcSwap<RegexMap>);

/// Compiled expressions by their patterns. Each expression is in an `Arc`, because a clone of a
/// `Regex` starts with an empty match cache.
type RegexMap = HashMap<Arc<str>, Arc<regex::Regex>, foldhash::fast::RandomState>;

impl RegexCache {
    /// The maximum number of expressions in the cache.
    const CAPACITY: usize = 128;
    /// The maximum length of a pattern, in bytes.
    const MAX_PATTERN_BYTES: usize = 512;

    /// Whether the pattern matches somewhere in the text.
    ///
    /// # Errors
    /// The pattern is invalid, or its compiled expression would take too much memory.
    pub fn is_match(&self, pattern: &str, text: &str) -> Result<bool, String> {
        if pattern.len() > Self::MAX_PATTERN_BYTES {
            return Err(format!("the pattern is longer than {} bytes", Self::MAX_PATTERN_BYTES));
        }
        if let Some(regex) = self.0.load().get(pattern) {
            return Ok(regex.is_match(text));
        }
        let regex = regex::RegexBuilder::new(pattern)
            .size_limit(128 * 1024)
            .dfa_size_limit(256 * 1024)
            .nest_limit(32)
            .build()
            .map_err(|_| "the pattern is not a valid regular expression, or is too large")?;
        let (pattern, regex) = (Arc::<str>::from(pattern), Arc::new(regex));
        self.0.rcu(|cached| {
            let is_full = cached.len() >= Self::CAPACITY;
            let mut next = if is_full { RegexMap::default() } else { RegexMap::clone(cached) };
            next.insert(pattern.clone(), regex.clone());
            next
        });
        Ok(regex.is_match(text))
    }
}
