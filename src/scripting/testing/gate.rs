//! The interface to the whole Gate that `decide()` in a script's test calls.

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

/// Runs a request through the whole Gate with the set of scripts under test. The pipeline
/// implements it.
pub trait ScriptTestGate: Send + Sync {
    /// Decides about one request. It runs inside a script's call, so it must not wait for anything
    /// outside of memory.
    ///
    /// # Errors
    /// Why there is no decision, as a sentence for the script's author.
    fn decide(&self, request: &TestRequest) -> Result<TestDecision, String>;
}

/// A request to decide in a test.
pub struct TestRequest {
    /// The scripts under test. Their calls see the test's users, secrets and clock, and run on the
    /// calling thread.
    pub set: Arc<ScriptSet>,
    /// The kind of the script whose test runs.
    pub kind: ScriptKind,
    /// The name of that script: of the authentication type, the resource or the handler; empty for
    /// `hooks.rhai`.
    pub name: String,
    /// The request.
    pub request: ScriptRequest,
    /// The users of the test.
    pub users: Vec<TestUser>,
    /// The keys of the test's users, each with its user's number.
    pub keys: Vec<(u64, Secret)>,
    /// The clock of the test.
    pub clock: Clock,
}
