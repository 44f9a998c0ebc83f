//! Scripts: authentication types, hooks and handlers that an operator changes without a rebuild,
//! written in Rhai.
//!
//! [`Scripts`] loads a folder of files (see [`ScriptKind`]) as a [`ScriptSet`]. All files of the
//! folder are compiled, checked and tested together. Then the new set atomically replaces the
//! current set. A request uses the same set from its beginning to its end. A call of a script
//! returns a checked value or a [`Fault`], and a fault never lets a request pass.
//!
//! - `entry_points`: the kinds of files, and the functions that Keyward calls
//! - `loading`: reads the folder, reloads it, watches it
//! - `compiler`: compiles a file, and finds errors that are not errors of syntax
//! - `library`: the functions that scripts can call
//! - `values`: the types that scripts see
//! - `runtime`: runs a call within its budget
//! - `testing`: runs the `test_…` functions of scripts
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use keyward::scripting::{
//!     Fault, Function, RequestParts, ScriptHost, ScriptLimits, ScriptRequest, Scripts,
//! };
//!
//! let folder = std::env::temp_dir().join(format!("keyward-hooks-{}", std::process::id()));
//! std::fs::create_dir_all(&folder).unwrap();
//! let hook = r#"fn on_request(req) {
//!     if req.path == "/closed" { deny(403, "CLOSED", "Closed.") }
//! }"#;
//! std::fs::write(folder.join("hooks.rhai"), hook).unwrap();
//!
//! let scripts = Scripts::load(&folder, ScriptLimits::default(), ScriptHost::default()).unwrap();
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
mod unset;
mod values;

use std::sync::Arc;

pub use calls::{CredentialTerms, LookupResult, PermitResult, ScriptClaim, VerifyResult};
pub use entry_points::{DEFINITIONS, Function, ScriptKind};
pub use error::ScriptError;
pub use fault::{Fault, ScriptRefusal};
pub use library::reference::{definitions, reference};
pub use limits::ScriptLimits;
#[cfg(feature = "watch")]
pub use loading::watch::watch;
pub use loading::{LoadSummary, ScriptProblem, ScriptTables, Scripts};
pub use runtime::{
    context::Secrets,
    outbox::RequestedWebhook,
    sandbox::{TestDecision, TestUser},
};
pub use script::Script;
pub use set::ScriptSet;
pub use testing::{
    gate::{ScriptTestGate, TestRequest},
    inspect::{CheckedScripts, TestOutcome},
};
pub use values::{
    credential::CredentialDeclaration,
    records::{
        IdentityParts, IdentityView, KeyParts, KeyView, NoRecords, PermissionCheck, Records,
        ResourceParts, ResourceView, RoleParts, RoleView, UserParts, UserView,
    },
    request::{RequestParts, ScriptRequest},
    response::{DenialParts, HandlerResponse, ResponseParts, ScriptDenial, ScriptResponse},
};

use crate::model::Clock;

/// The services that the embedding program provides for scripts.
#[derive(Clone)]
pub struct ScriptHost {
    /// Looks up users, keys and roles.
    pub records: Arc<dyn Records>,
    /// The clock.
    pub clock: Clock,
    /// The named secrets.
    pub secrets: Secrets,
    /// The names of the configured webhooks.
    pub webhooks: Arc<[String]>,
    /// The pipeline to which `decide()` in script tests sends requests. `None` means that a test
    /// that calls `decide()` fails.
    pub gate: Option<Arc<dyn ScriptTestGate>>,
    /// Finds scripts that records refer to but that a new set does not contain. A set with missing
    /// scripts is not loaded.
    pub find_missing: Option<FindMissing>,
}

/// The type of [`ScriptHost::find_missing`].
pub type FindMissing = Arc<dyn Fn(&ScriptSet) -> Vec<ScriptError> + Send + Sync>;

impl Default for ScriptHost {
    /// The system clock, and no records, secrets, webhooks or pipeline.
    fn default() -> Self {
        Self {
            records: Arc::new(NoRecords),
            clock: Clock::system(),
            secrets: Secrets::default(),
            webhooks: Arc::default(),
            gate: None,
            find_missing: None,
        }
    }
}
