//! Scripts looked at without being put in force: what `keyward script check` and `script test` do, with no server and no store.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    model::Clock,
    scripting::{
        Function, Limits, ScriptError, ScriptTestGate, Secrets, Set, loading::source,
        runtime::context::HostContext, script::Pool, values::records::NoRecords,
    },
};

/// A folder of scripts that compiles.
pub struct Inspected {
    /// The scripts.
    pub set: Set,
    limits: Limits,
}

/// A `test_…` function that has run.
#[derive(Debug, Clone)]
pub struct Tested {
    /// The file, relative to the folder of scripts.
    pub file: String,
    /// The function.
    pub name: String,
    /// How long it took.
    pub time: Duration,
    /// Why it failed, if it did.
    pub failure: Option<ScriptError>,
}

impl Inspected {
    /// Reads and compiles a folder. One that is not there has no scripts.
    ///
    /// # Errors
    /// All that is wrong with all files.
    pub fn new(folder: &Path, limits: Limits) -> Result<Self, Vec<ScriptError>> {
        let sources = source::read(folder, &limits)?;
        let ambient = HostContext::new(
            Arc::new(NoRecords),
            Clock::system(),
            Secrets::default(),
            limits.clone(),
        );
        let pool = Arc::new(Pool::new(&limits));
        let set = Set::compile(sources, &Arc::new(ambient), &pool)?;
        Ok(Self { set, limits })
    }

    /// Runs the tests whose file or name holds `filter`, in the order of the files, and tells `each` what came of one when it has ended.
    pub fn test(
        &self,
        filter: Option<&str>,
        gate: &Arc<dyn ScriptTestGate>,
        mut each: impl FnMut(&Tested),
    ) -> Vec<Tested> {
        let mut all = Vec::new();
        for script in self.set.scripts() {
            for name in script.tests() {
                let is_meant = |part: &str| name.contains(part) || script.file().contains(part);
                if !filter.is_none_or(is_meant) {
                    continue;
                }
                let begun = Instant::now();
                let outcome = self.set.test_one(script, name, &self.limits, Some(gate));
                let tested = Tested {
                    file: script.file().to_owned(),
                    name: name.to_owned(),
                    time: begun.elapsed(),
                    failure: outcome.err(),
                };
                each(&tested);
                all.push(tested);
            }
        }
        all
    }
}

impl crate::scripting::Script {
    /// The functions of Keyward's that it defines.
    pub fn functions(&self) -> Vec<Function> {
        Function::ALL.into_iter().filter(|one| self.defines(*one)).collect()
    }

    /// The names of its `test_…` functions, in the order of the file.
    pub fn tests(&self) -> impl Iterator<Item = &str> {
        self.inner.compiled.tests.iter().map(|(name, _)| name.as_str())
    }
}
