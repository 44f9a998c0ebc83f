//! Compiles and tests a folder of scripts for `keyward script check` and `keyward script test`.
//! These commands need neither a server nor a store, and do not change the scripts of a running
//! server.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::gate::ScriptTestGate;
use crate::{
    model::Clock,
    scripting::{
        error::ScriptError,
        limits::ScriptLimits,
        loading::source,
        runtime::context::{HostContext, Secrets},
        script::BlockingPool,
        set::ScriptSet,
        values::records::NoRecords,
    },
};

/// The scripts of a folder, compiled without errors.
pub struct CheckedScripts {
    /// The scripts.
    pub set: ScriptSet,
    limits: ScriptLimits,
}

/// A `test_…` function that has run.
#[derive(Debug, Clone)]
pub struct TestOutcome {
    /// The file, relative to the folder of scripts.
    pub file: String,
    /// The function.
    pub name: String,
    /// How long the test took.
    pub time: Duration,
    /// Why the test failed; `None` means that it passed.
    pub failure: Option<ScriptError>,
    /// The lines that the test has logged with `log()`.
    pub log: Vec<String>,
}

impl CheckedScripts {
    /// Reads and compiles a folder. A missing folder contains no scripts.
    ///
    /// # Errors
    /// The errors of all files.
    pub fn new(folder: &Path, limits: ScriptLimits) -> Result<Self, Vec<ScriptError>> {
        let sources = source::read(folder, &limits)?;
        let (records, secrets) = (Arc::new(NoRecords), Secrets::default());
        let host = HostContext::new(records, Clock::system(), secrets, limits.clone());
        let pool = Arc::new(BlockingPool::new(&limits));
        let set = ScriptSet::compile(sources, &Arc::new(host), &pool)?;
        Ok(Self { set, limits })
    }

    /// Runs the tests whose file or name contains `filter`, in the order of the files. Calls
    /// `on_test` after each test.
    pub fn test(
        &self,
        filter: Option<&str>,
        gate: &Arc<dyn ScriptTestGate>,
        mut on_test: impl FnMut(&TestOutcome),
    ) -> Vec<TestOutcome> {
        let mut outcomes = Vec::new();
        for script in self.set.scripts() {
            for name in script.tests() {
                let is_selected = |part: &str| name.contains(part) || script.file().contains(part);
                if !filter.is_none_or(is_selected) {
                    continue;
                }
                let started = Instant::now();
                let (result, log) = self.set.test_one(script, name, &self.limits, Some(gate));
                let outcome = TestOutcome {
                    file: script.file().to_owned(),
                    name: name.to_owned(),
                    time: started.elapsed(),
                    failure: result.err(),
                    log,
                };
                on_test(&outcome);
                outcomes.push(outcome);
            }
        }
        outcomes
    }
}
