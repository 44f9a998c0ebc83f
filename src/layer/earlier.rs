//! The decision about a request, as an extension for the guards behind the guard that has made it.
//!
//! The types are private to the layer, so no other code can make a decision up.

use std::sync::Arc;

use ::http::{Extensions, Method, Uri};
use parking_lot::Mutex;

use super::{Client, target::misplaced};
use crate::pipeline::{Denial, EarlierDecision, Gate, Quota, RequestContext};

/// The decisions about a request, one for each set of accounts.
#[derive(Clone, Default)]
struct Decisions(Vec<Decided>);

/// A decision, with the request that it is about.
#[derive(Clone)]
pub(super) struct Decided {
    pub gate: Gate,
    pub context: Arc<RequestContext>,
    /// `None` means that the request is a preflight that the application responds to.
    pub decision: Option<Arc<EarlierDecision>>,
    pub method: Method,
    /// The target, with its path in normal form and with the credential.
    pub uri: Uri,
    pub host: Option<String>,
    pub client: Client,
    /// The limits from which inner guards have consumed. The outermost guard reports them.
    pub quota: Arc<Mutex<Quota>>,
}

/// Marks the response to a request that a guard has denied, for the guards outside of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeniedByGuard;

impl Decided {
    /// The decision of an outer guard with the same accounts.
    pub fn find(extensions: &Extensions, gate: &Gate) -> Option<Self> {
        let all = &extensions.get::<Decisions>()?.0;
        all.iter().find(|decided| decided.gate.shares_records(gate)).cloned()
    }

    /// Keeps the decision for inner guards, in place of an earlier decision with the same accounts.
    pub fn keep(self, extensions: &mut Extensions) {
        let all = &mut extensions.get_or_insert_default::<Decisions>().0;
        all.retain(|decided| !decided.gate.shares_records(&self.gate));
        all.push(self);
    }

    /// Checks that the request that this guard sees is the one that was decided about. Routers in
    /// between may have removed the beginning of the path. All paths are in normal form.
    ///
    /// # Errors
    /// A middleware between the guards has changed the request.
    pub fn check(&self, method: &Method, path: &str, host: Option<&str>) -> Result<(), Denial> {
        let changed = if *method != self.method {
            "method"
        } else if host != self.host.as_deref() {
            "host"
        } else if !self.uri.path().ends_with(path) {
            "path"
        } else {
            return Ok(());
        };
        Err(misplaced(format!(
            "a middleware between two guards has changed the {changed} of the request ({} {} was \
             decided, {method} {path} arrived): use one guard, inside of that middleware",
            self.method,
            self.uri.path(),
        )))
    }
}
