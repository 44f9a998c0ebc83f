//! Scripts: authentication types, hooks and handlers that an operator changes without a rebuild, written in Rhai.
//!
//! A folder of files ([`Kind`] says where each belongs) becomes a [`Set`]: compiled, checked and tested together, and then put in the
//! place of the last one at once. A request takes the set that is current when it begins and keeps it to its end. A call returns a
//! checked value or a [`Fault`]; there is no third way, and a fault is never a pass.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use keyward::scripting::{Fault, Function, Host, Limits, RequestParts, ScriptRequest, Scripts};
//!
//! let folder = std::env::temp_dir().join(format!("keyward-hooks-{}", std::process::id()));
//! std::fs::create_dir_all(&folder).unwrap();
//! let hook = "fn on_request(req) { if req.path == \"/closed\" { deny(403, \"CLOSED\", \"Closed.\") } }";
//! std::fs::write(folder.join("hooks.rhai"), hook).unwrap();
//!
//! let scripts = Scripts::load(&folder, Limits::default(), Host::default()).unwrap();
//! let set = scripts.current();
//! let req = ScriptRequest::new(RequestParts {
//!     method: "GET".into(),
//!     path: "/closed".into(),
//!     query: None,
//!     headers: http::HeaderMap::new(),
//!     client: [127, 0, 0, 1].into(),
//!     host: None,
//!     body: None,
//! });
//! for script in set.hooks(Function::OnRequest, None) {
//!     let Err(Fault::Refused(refusal)) = script.on_request(&req).await else { unreachable!() };
//!     assert_eq!((refusal.status.as_u16(), refusal.code.as_str()), (403, "CLOSED"));
//! }
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # });
//! ```

mod calls;
mod compiler;
mod entry_points;
mod error;
mod fault;
mod library;
mod limits;
mod loading;
mod runtime;
mod script;
mod set;
mod testing;
#[cfg(test)]
mod tests;
mod values;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwap;

pub use calls::{Claim, Consent, Found, Terms, Verdict};
pub use entry_points::{DEFINITIONS, Function, Kind};
pub use error::ScriptError;
pub use fault::{Fault, Refusal};
pub use library::reference::{definitions, reference};
pub use limits::Limits;
pub use loading::watch::watch;
pub use runtime::context::Secrets;
pub use runtime::outbox::Webhook;
pub use runtime::sandbox::{ScriptTestGate, TestDecision, TestRequest, TestUser};
pub use script::Script;
pub use set::Set;
pub use testing::inspect::{Inspected, Tested};
pub use values::records::{
    Allows, KeyParts, KeyView, NoRecords, Person, PersonParts, Records, ResourceParts,
    ResourceView, RoleParts, RoleView, UserParts, UserView,
};
pub use values::request::{RequestParts, ScriptRequest};
pub use values::response::{
    DenialParts, HandlerResponse, ResponseParts, ScriptDenial, ScriptResponse,
};

use crate::model::{Borrowed, Clock};
use loading::source::Source;
use runtime::context::HostContext;
use script::Pool;

/// What scripts are given from above.
#[derive(Clone)]
pub struct Host {
    /// The look-ups.
    pub records: Arc<dyn Records>,
    /// What time it is.
    pub clock: Clock,
    /// The named secrets.
    pub secrets: Secrets,
    /// The names of the webhooks that there are.
    pub webhooks: Arc<[String]>,
    /// The Gate for `decide()` in tests; none: such a test fails.
    pub gate: Option<Arc<dyn ScriptTestGate>>,
    /// Says what a set lacks that somebody needs. A set that lacks something is not loaded.
    pub needs: Option<Needs>,
}

/// What [`Host::needs`] is.
pub type Needs = Arc<dyn Fn(&Set) -> Vec<ScriptError> + Send + Sync>;

impl Default for Host {
    /// No records, the machine's clock, no secrets, no Gate.
    fn default() -> Self {
        Self {
            records: Arc::new(NoRecords),
            clock: Clock::system(),
            secrets: Secrets::default(),
            webhooks: Arc::default(),
            gate: None,
            needs: None,
        }
    }
}

/// All that scripting is, as a cheap handle: the set that is current, and the way to the next one.
#[derive(Clone)]
pub struct Scripts(Arc<Shared>);

struct Shared {
    current: ArcSwap<Set>,
    /// Where the next set comes from; none: nowhere.
    loader: Option<Loader>,
}

struct Loader {
    folder: PathBuf,
    ambient: Arc<HostContext>,
    pool: Arc<Pool>,
    gate: Option<Arc<dyn ScriptTestGate>>,
    needs: Option<Needs>,
    /// What the last attempt came to. Held while one is made: two at a time could swap in the older one last.
    last: Mutex<Attempt>,
    /// The same for whoever asks, who must not wait for an attempt.
    shown: ArcSwap<Vec<ScriptError>>,
}

#[derive(Default)]
struct Attempt {
    /// The files that it saw; none: it could not read them.
    sources: Option<Vec<Source>>,
}

/// Something that an administrator should know of the scripts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The files on disk are not in order; the last good set is in force.
    NotLoaded(ScriptError),
    /// A script is switched off, because it kept running out of its budget.
    SwitchedOff {
        /// The file.
        file: String,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded(error) => error.fmt(f),
            Self::SwitchedOff { file } => {
                write!(f, "{file}: switched off, because it kept running out of its budget")
            }
        }
    }
}

/// What a load came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loaded {
    /// The scripts.
    pub scripts: usize,
    /// Their tests, all passed.
    pub tests: usize,
    /// Whether the files differ from those of the last load.
    pub is_new: bool,
}

impl Scripts {
    /// No scripts, now and for ever.
    pub fn none() -> Self {
        Self(Arc::new(Shared { current: ArcSwap::default(), loader: None }))
    }

    /// Loads a folder. One that is not there is an empty set, and may come later.
    ///
    /// It reads files and runs the scripts' tests: call it where blocking is allowed.
    ///
    /// # Errors
    /// All that is wrong with all files; nothing is loaded then.
    pub fn load(folder: &Path, limits: Limits, host: Host) -> Result<Self, Vec<ScriptError>> {
        let Host { records, clock, secrets, webhooks, gate, needs } = host;
        let ambient = HostContext::new(records, clock, secrets, limits.clone()).knowing(webhooks);
        let loader = Loader {
            folder: folder.to_owned(),
            pool: Arc::new(Pool::new(&limits)),
            ambient: Arc::new(ambient),
            gate,
            needs,
            last: Mutex::default(),
            shown: ArcSwap::default(),
        };
        let scripts = Self(Arc::new(Shared { current: ArcSwap::default(), loader: Some(loader) }));
        scripts.reload()?;
        Ok(scripts)
    }

    /// The set that is in force. A request asks once and keeps what it gets, so that it is decided by one set as a whole.
    pub fn current(&self) -> Arc<Set> {
        self.0.current.load_full()
    }

    /// The same for as long as a request takes. It counts nothing that other cores count.
    pub fn borrow_current(&self) -> Borrowed<Set> {
        self.0.current.load()
    }

    /// The set that is in force, if there is any script in it: what a request without scripts pays is this one look.
    pub fn in_force(&self) -> Option<Arc<Set>> {
        self.0.loader.as_ref()?;
        let set = self.0.current.load();
        (!set.is_empty()).then(|| arc_swap::Guard::into_inner(set))
    }

    /// Whether a set could come at all: if not, nothing need be asked for.
    pub fn is_none(&self) -> bool {
        self.0.loader.is_none()
    }

    /// Reads the folder again. The new set is in force when this returns; scripts that were switched off are on again.
    ///
    /// It reads files and runs the scripts' tests: call it where blocking is allowed.
    ///
    /// # Errors
    /// All that is wrong. The last good set stays, and the errors are among the [`Scripts::problems`].
    pub fn reload(&self) -> Result<Loaded, Vec<ScriptError>> {
        self.load_again(Unchanged::Again)
    }

    /// The same, and nothing at all when no file has changed since the last attempt: a file that is touched a million times is read,
    /// and not compiled.
    pub(super) fn reload_if_changed(&self) -> Result<Loaded, Vec<ScriptError>> {
        self.load_again(Unchanged::Left)
    }

    fn load_again(&self, unchanged: Unchanged) -> Result<Loaded, Vec<ScriptError>> {
        let Some(loader) = &self.0.loader else {
            return Ok(Loaded { scripts: 0, tests: 0, is_new: false });
        };
        let mut last = loader.last();
        let outcome = loader.next(&mut last, unchanged);
        match outcome {
            Ok(Next::Same) => {
                let scripts = self.0.current.load().scripts().len();
                Ok(Loaded { scripts, tests: 0, is_new: false })
            }
            Ok(Next::Set { set, tests, is_new }) => {
                let scripts = set.scripts().len();
                self.0.current.store(set);
                loader.shown.store(Arc::default());
                Ok(Loaded { scripts, tests, is_new })
            }
            Err(problems) => {
                loader.shown.store(Arc::new(problems.clone()));
                Err(problems)
            }
        }
    }

    /// What an administrator should know: files that were refused, scripts that are switched off.
    pub fn problems(&self) -> Vec<Problem> {
        let refused = self.0.loader.iter().flat_map(|loader| {
            let shown = loader.shown.load_full();
            shown.iter().cloned().map(Problem::NotLoaded).collect::<Vec<_>>()
        });
        let set = self.current();
        let off = set.scripts().into_iter().filter(|script| script.is_off());
        refused.chain(off.map(|one| Problem::SwitchedOff { file: one.file().to_owned() })).collect()
    }

    /// The folder that is loaded.
    pub fn folder(&self) -> Option<&Path> {
        self.0.loader.as_ref().map(|loader| loader.folder.as_path())
    }
}

/// What to do when the files are those of the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unchanged {
    /// Load them again.
    Again,
    /// Leave everything as it is.
    Left,
}

enum Next {
    Same,
    Set { set: Arc<Set>, tests: usize, is_new: bool },
}

impl Loader {
    /// Read, compile, check, test. Nothing that is in force is touched.
    fn next(&self, last: &mut Attempt, unchanged: Unchanged) -> Result<Next, Vec<ScriptError>> {
        let limits = &self.ambient.limits;
        let sources =
            loading::source::read(&self.folder, limits).inspect_err(|_| last.sources = None)?;
        let is_new = last.sources.as_ref() != Some(&sources);
        if !is_new && unchanged == Unchanged::Left {
            return match self.shown.load().as_slice() {
                [] => Ok(Next::Same),
                problems => Err(problems.to_vec()),
            };
        }
        last.sources = Some(sources.clone());
        let set = Set::compile(sources, &self.ambient, &self.pool)?;
        let missing = self.needs.as_ref().map(|needs| needs(&set)).unwrap_or_default();
        if !missing.is_empty() {
            return Err(missing);
        }
        let (tests, failed) = set.test(limits, self.gate.as_ref());
        match failed.is_empty() {
            true => Ok(Next::Set { set: Arc::new(set), tests, is_new }),
            false => Err(failed),
        }
    }

    fn last(&self) -> MutexGuard<'_, Attempt> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripts({:?})", self.current())
    }
}
