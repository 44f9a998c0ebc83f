//! Loads a folder of scripts, and replaces the current set when the folder changes.

pub(super) mod source;
#[cfg(feature = "watch")]
pub(super) mod watch;

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    FindMissing, ScriptHost,
    error::ScriptError,
    limits::ScriptLimits,
    runtime::context::{HostContext, Secrets},
    script::BlockingPool,
    set::ScriptSet,
    testing::gate::ScriptTestGate,
};
use crate::model::Borrowed;
use source::SourceFile;

/// The current set of scripts, with methods to reload the set. Cheap to clone.
#[derive(Clone)]
pub struct Scripts(Arc<ScriptsInner>);

struct ScriptsInner {
    current: ArcSwap<ScriptSet>,
    /// Loads the next set. `None` means that there are never any scripts.
    loader: Option<Loader>,
}

struct Loader {
    folder: PathBuf,
    host: Arc<HostContext>,
    pool: Arc<BlockingPool>,
    gate: Option<Arc<dyn ScriptTestGate>>,
    find_missing: Option<FindMissing>,
    /// The files of the last attempt to load; `None` means that the files could not be read. Each
    /// attempt holds the lock until its end. Without the lock, an attempt with older files could
    /// end after an attempt with newer files, and replace the newer set.
    last_sources: Mutex<Option<LastSources>>,
    /// The errors of the last attempt, readable while another attempt runs.
    errors: ArcSwap<Vec<ScriptError>>,
}

/// The files and the secrets of an attempt to load.
struct LastSources {
    files: Vec<SourceFile>,
    secrets: Secrets,
}

/// A problem with the scripts that an administrator should know of.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ScriptProblem {
    /// A file on disk has an error, so the last good set stays in force.
    NotLoaded(ScriptError),
    /// A script is switched off because it kept exceeding its budget.
    SwitchedOff {
        /// The file.
        file: String,
    },
    /// A loaded script contains a probable mistake.
    Warning(ScriptError),
}

impl fmt::Display for ScriptProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded(error) | Self::Warning(error) => error.fmt(f),
            Self::SwitchedOff { file } => {
                write!(f, "{file}: the script is switched off because it kept exceeding its budget")
            }
        }
    }
}

/// The numbers of entries in the tables that all scripts share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptTables {
    /// The ids that `once` remembers.
    pub once: usize,
    /// The buckets of `rate_limit`.
    pub rate_limit: usize,
}

/// The result of a successful load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSummary {
    /// The number of scripts.
    pub scripts: usize,
    /// The number of tests in the scripts. All of these tests have passed.
    pub tests: usize,
    /// Whether the files differ from those of the previous load.
    pub is_new: bool,
}

impl Scripts {
    /// A handle that never has any scripts.
    pub fn none() -> Self {
        Self(Arc::new(ScriptsInner { current: ArcSwap::default(), loader: None }))
    }

    /// Loads a folder. A missing folder is loaded as an empty set, and may be created later.
    ///
    /// This method reads files and runs the scripts' tests, so its caller must be allowed to block.
    ///
    /// # Errors
    /// The errors of all files. In this case no script is loaded.
    pub fn load(
        folder: &Path,
        limits: ScriptLimits,
        host: ScriptHost,
    ) -> Result<Self, Vec<ScriptError>> {
        let ScriptHost { records, clock, secrets, webhooks, gate, find_missing } = host;
        let mut host = HostContext::new(records, clock, secrets, limits.clone());
        host.webhooks = webhooks;
        let loader = Loader {
            folder: folder.to_owned(),
            pool: Arc::new(BlockingPool::new(&limits)),
            host: Arc::new(host),
            gate,
            find_missing,
            last_sources: Mutex::default(),
            errors: ArcSwap::default(),
        };
        let inner = ScriptsInner { current: ArcSwap::default(), loader: Some(loader) };
        let scripts = Self(Arc::new(inner));
        scripts.reload()?;
        Ok(scripts)
    }

    /// The current set. A request takes the set once and uses it until the request ends, so that
    /// one set decides about the whole request.
    pub fn current(&self) -> Arc<ScriptSet> {
        self.0.current.load_full()
    }

    /// The current set, borrowed for the duration of a request. Borrowing updates no counter that
    /// the CPU cores share.
    pub fn borrow_current(&self) -> Borrowed<ScriptSet> {
        self.0.current.load()
    }

    /// The current set, unless the set is empty. For a server without scripts, this check is the
    /// only cost of scripting.
    pub fn in_force(&self) -> Option<Arc<ScriptSet>> {
        self.0.loader.as_ref()?;
        let set = self.0.current.load();
        (!set.is_empty()).then(|| arc_swap::Guard::into_inner(set))
    }

    /// Whether there can never be any scripts.
    pub fn is_none(&self) -> bool {
        self.0.loader.is_none()
    }

    /// Reads the folder again. When this method returns, the new set is in force, and scripts that
    /// were switched off are on again.
    ///
    /// This method reads files and runs the scripts' tests, so its caller must be allowed to block.
    ///
    /// # Errors
    /// The errors of all files. The last good set stays in force, and [`Scripts::problems`]
    /// contains the errors.
    pub fn reload(&self) -> Result<LoadSummary, Vec<ScriptError>> {
        self.load_next(IfUnchanged::Reload)
    }

    /// Like [`Scripts::reload`], but only if a file has changed since the last attempt. Files with
    /// a new timestamp and the same content are read again, but not compiled.
    pub(super) fn reload_if_changed(&self) -> Result<LoadSummary, Vec<ScriptError>> {
        self.load_next(IfUnchanged::Skip)
    }

    fn load_next(&self, if_unchanged: IfUnchanged) -> Result<LoadSummary, Vec<ScriptError>> {
        let Some(loader) = &self.0.loader else {
            return Ok(LoadSummary { scripts: 0, tests: 0, is_new: false });
        };
        let mut last_sources = loader.last_sources.lock();
        match loader.load(&mut last_sources, if_unchanged) {
            Ok(NextSet::Unchanged) => {
                let scripts = self.0.current.load().scripts().len();
                Ok(LoadSummary { scripts, tests: 0, is_new: false })
            }
            Ok(NextSet::Loaded { set, tests, is_new }) => {
                let scripts = set.scripts().len();
                self.0.current.store(set);
                loader.errors.store(Arc::default());
                Ok(LoadSummary { scripts, tests, is_new })
            }
            Err(errors) => {
                loader.errors.store(Arc::new(errors.clone()));
                Err(errors)
            }
        }
    }

    /// The problems that an administrator should know of: files with errors, scripts that are
    /// switched off, and probable mistakes in the loaded scripts.
    pub fn problems(&self) -> Vec<ScriptProblem> {
        let errors = self.0.loader.as_ref().map(|loader| loader.errors.load_full());
        let errors = errors.iter().flat_map(|errors| errors.iter().cloned());
        let set = self.current();
        let scripts = set.scripts();
        let warnings = scripts.iter().flat_map(|script| script.warnings().iter().cloned());
        let used = self.used_files();
        let missing = scripts.iter().filter(|script| {
            !script.needs_record() || used.as_ref().is_none_or(|used| used.contains(script.file()))
        });
        let missing = missing.flat_map(|script| script.missing_secrets(script.secrets()));
        let off = scripts.iter().filter(|script| script.is_off());
        let off = off.map(|script| ScriptProblem::SwitchedOff { file: script.file().to_owned() });
        let problems = errors.map(ScriptProblem::NotLoaded).chain(off);
        problems.chain(warnings.chain(missing).map(ScriptProblem::Warning)).collect()
    }

    /// The files of scripts that records refer to; `None` means that there are no records.
    fn used_files(&self) -> Option<HashSet<String>> {
        let find = self.0.loader.as_ref()?.find_missing.as_ref()?;
        // All scripts that records refer to are missing in an empty set.
        Some(find(&ScriptSet::default()).into_iter().map(|missing| missing.file).collect())
    }

    /// The folder of the scripts' secrets; `None` means that the secrets never change.
    pub(super) fn secrets_folder(&self) -> Option<&Path> {
        self.0.loader.as_ref()?.host.secrets.folder()
    }

    /// The numbers of entries in the tables that all scripts share.
    pub fn table_entries(&self) -> ScriptTables {
        let host = self.0.loader.as_ref().map(|loader| &loader.host);
        ScriptTables {
            once: host.map_or(0, |host| host.replay_cache.len()),
            rate_limit: host.map_or(0, |host| host.rate_limiter.len()),
        }
    }

    /// The folder of scripts.
    pub fn folder(&self) -> Option<&Path> {
        self.0.loader.as_ref().map(|loader| loader.folder.as_path())
    }
}

/// The action if no file has changed since the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IfUnchanged {
    Reload,
    /// Keep the current set, or report the errors of the last attempt again.
    Skip,
}

enum NextSet {
    Unchanged,
    Loaded { set: Arc<ScriptSet>, tests: usize, is_new: bool },
}

impl Loader {
    /// Reads, compiles, checks and tests the folder. The current set stays unchanged.
    fn load(
        &self,
        last_sources: &mut Option<LastSources>,
        if_unchanged: IfUnchanged,
    ) -> Result<NextSet, Vec<ScriptError>> {
        let limits = &self.host.limits;
        let sources = source::read(&self.folder, limits).inspect_err(|_| *last_sources = None)?;
        let secrets = self.host.secrets.read_again().map_err(|message| {
            *last_sources = None;
            vec![ScriptError::in_file("scripts.secrets_dir", message)]
        })?;
        let is_same = |last: &LastSources| last.files == sources && last.secrets.is_same(&secrets);
        let is_new = !last_sources.as_ref().is_some_and(is_same);
        if !is_new && if_unchanged == IfUnchanged::Skip {
            let errors = self.errors.load();
            return if errors.is_empty() { Ok(NextSet::Unchanged) } else { Err(errors.to_vec()) };
        }
        *last_sources = Some(LastSources { files: sources.clone(), secrets: secrets.clone() });
        // The scripts and their secrets are replaced together.
        let host = Arc::new(self.host.with_secrets(secrets));
        let set = ScriptSet::compile(sources, &host, &self.pool)?;
        let missing = self.find_missing.as_ref().map(|find| find(&set)).unwrap_or_default();
        if !missing.is_empty() {
            return Err(missing);
        }
        let (tests, failures) = set.test(limits, self.gate.as_ref());
        if !failures.is_empty() {
            return Err(failures);
        }
        Ok(NextSet::Loaded { set: Arc::new(set), tests, is_new })
    }
}

impl fmt::Debug for Scripts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scripts({:?})", self.current())
    }
}
