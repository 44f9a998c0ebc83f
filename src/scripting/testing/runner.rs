//! Runs `test_…` functions, each in a separate sandbox.

use std::sync::{Arc, Weak};

use super::gate::{ScriptTestGate, TestRequest};
use crate::scripting::{
    error::ScriptError,
    fault::{describe, innermost},
    limits::ScriptLimits,
    runtime::{
        context::HostContext,
        prepared::PreparedFn,
        sandbox::{Decide, Sandbox},
    },
    script::{CallOptions, Script, ScriptInner},
    set::ScriptSet,
};

impl ScriptSet {
    /// Runs all `test_…` functions. Returns the number of passed tests, and the failures.
    pub(in crate::scripting) fn test(
        &self,
        limits: &ScriptLimits,
        gate: Option<&Arc<dyn ScriptTestGate>>,
    ) -> (usize, Vec<ScriptError>) {
        let mut passed = 0;
        let mut failures = Vec::new();
        for script in self.scripts() {
            for name in script.tests() {
                match self.test_one(script, name, limits, gate).0 {
                    Ok(()) => passed += 1,
                    Err(failure) => failures.push(failure),
                }
            }
        }
        (passed, failures)
    }

    /// Runs one `test_…` function. Returns the failure, if any, and the lines that were logged.
    pub(in crate::scripting) fn test_one(
        &self,
        script: &Script,
        name: &str,
        limits: &ScriptLimits,
        gate: Option<&Arc<dyn ScriptTestGate>>,
    ) -> (Result<(), ScriptError>, Vec<String>) {
        // The sandbox refers to the set, and the set's scripts refer to the sandbox. The sandbox's
        // reference is weak, so that the set is dropped at the end of the test.
        let mut script_under_test = None;
        let set = Arc::new_cyclic(|set| {
            let sandbox = match gate {
                Some(gate) => Sandbox::new(decide_with(gate.clone(), set.clone(), script)),
                None => Sandbox::without_gate(),
            };
            let host = Arc::new(HostContext::for_test(limits, Arc::new(sandbox)));
            script_under_test = Some(script.with_host(&host));
            self.with_host(&host)
        });
        let script = script_under_test.as_ref().unwrap_or(script);
        let ScriptInner { file, text, compiled, .. } = &*script.inner;
        let Some(function) = PreparedFn::find(&compiled.ast, name, 0) else {
            let message = format!("{name} failed: the function does not exist");
            return (Err(ScriptError::in_file(file, message)), Vec::new());
        };
        let outcome = script.evaluate(&function, [], CallOptions::default(), limits.for_test());
        drop(set);
        let sandbox = script.host.sandbox.as_ref();
        let log = sandbox.map(|sandbox| sandbox.take_log()).unwrap_or_default();
        let result = match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let (inner, position) = innermost(&error);
                let message = format!("{name} failed: {}", describe(inner));
                Err(ScriptError::at(file, text, position, message))
            }
            Err(_) => {
                Err(ScriptError::in_file(file, format!("{name} failed: a host function panicked")))
            }
        };
        (result, log)
    }
}

/// Creates a sandbox's function that decides requests with this pipeline and the scripts under
/// test.
fn decide_with(gate: Arc<dyn ScriptTestGate>, set: Weak<ScriptSet>, script: &Script) -> Decide {
    let (kind, name) = (script.kind(), script.name().to_owned());
    Box::new(move |sandbox, request| {
        gate.decide(&TestRequest {
            set: set.upgrade().ok_or("decide() can be called only while its test runs")?,
            kind,
            name: name.clone(),
            request,
            users: sandbox.users(),
            keys: sandbox.keys(),
            clock: sandbox.clock(),
        })
    })
}
