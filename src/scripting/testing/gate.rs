//! The interface to the whole pipeline, which `decide()` in script tests calls.

use std::sync::Arc;

use crate::{
    model::{Clock, Secret},
    scripting::{
        entry_points::ScriptKind,
        runtime::sandbox::{TestDecision, TestUser},
        set::ScriptSet,
        values::request::ScriptRequest,
    },
};

/// Runs a request through the whole pipeline with the scripts under test. The module `pipeline`
/// implements this trait.
pub trait ScriptTestGate: Send + Sync {
    /// Decides about one request. This method runs inside a script's call, so it must not wait for
    /// I/O.
    ///
    /// # Errors
    /// No decision is possible. The error is a sentence for the script's author that says why.
    fn decide(&self, request: &TestRequest) -> Result<TestDecision, String>;
}

/// A request to decide in a test.
pub struct TestRequest {
    /// The scripts under test. Their calls see the test's users, secrets and clock, and run on the
    /// calling thread.
    pub set: Arc<ScriptSet>,
    /// The kind of the script whose test runs.
    pub kind: ScriptKind,
    /// The name of the script whose test runs: the name of the authentication type, the resource or
    /// the handler; empty for `hooks.rhai`.
    pub name: String,
    /// The request.
    pub request: ScriptRequest,
    /// The users of the test.
    pub users: Vec<TestUser>,
    /// The keys of the test's users, each with the number of the key's user.
    pub keys: Vec<(u64, Secret)>,
    /// The clock of the test.
    pub clock: Clock,
}
