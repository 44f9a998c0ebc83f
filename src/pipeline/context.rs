//! What a request is decided by, as it stands at one moment. What changes while it is being decided concerns the next one.

use crate::model::Mode;
use std::sync::OnceLock;

use super::{
    Denial, Gate, Identity, Phase, Request,
    scripts::script_views::{self, Hooked},
};
use crate::{
    directory::{CompiledApplication, Policy, Rule},
    limits::Counters,
    model::Borrowed,
    scripting::{self, Function, Script, ScriptRequest, Set},
};

/// Roles, applications, resources and scripts at one moment: one request is decided by one scene, from its route to its answer.
pub struct RequestContext {
    /// Roles, applications and resources.
    pub policy: Borrowed<Policy>,
    /// The scripts.
    pub(super) scripts: Borrowed<Set>,
    /// The request as scripts see it: made for the first of them, and shared by all.
    asked: OnceLock<ScriptRequest>,
    pub(super) mode: Mode,
    gate: Gate,
}

impl RequestContext {
    /// A scene that nothing has happened in.
    pub(super) fn new(policy: Borrowed<Policy>, scripts: Borrowed<Set>, gate: Gate) -> Self {
        Self { policy, scripts, asked: OnceLock::new(), mode: Mode::Live, gate }
    }

    /// Where uses are counted.
    pub(super) fn ledger(&self) -> &Counters {
        self.gate.0.accounts.ledger()
    }

    /// The same, which leaves nothing behind.
    pub(super) fn without_traces(self) -> Self {
        Self { mode: Mode::DryRun, ..self }
    }

    /// The script of an application's authentication type; none: it is a built-in one.
    ///
    /// # Errors
    /// There is no such script. Whoever comes through this application is refused.
    pub(super) fn script_of(
        &self,
        application: &CompiledApplication,
    ) -> Result<Option<&Script>, Denial> {
        let Some(name) = application.record.auth_type.script() else { return Ok(None) };
        self.scripts.auth(name).map(Some).ok_or_else(|| {
            let detail = format!("there is no script auth/{name}.rhai");
            script_views::broken(Phase::Header, detail)
        })
    }

    /// The answer of a script that is a handler.
    ///
    /// # Errors
    /// There is no such script; it refused; it failed.
    pub async fn handle(
        &self,
        name: &str,
        request: &Request<'_>,
        identity: &Identity<'_>,
    ) -> Result<scripting::HandlerResponse, Denial> {
        let Some(script) = self.scripts.handler(name) else {
            let detail = format!("there is no script handlers/{name}.rhai");
            return Err(script_views::broken(Phase::Handler, detail));
        };
        let answer = script.handle(self.asked(request), &script_views::person(identity)).await;
        answer.map_err(|fault| script_views::denied(Phase::Handler, None, fault))
    }

    /// The request as scripts see it.
    pub(super) fn asked(&self, request: &Request<'_>) -> &ScriptRequest {
        self.asked.get_or_init(|| script_views::request(request))
    }

    /// The hooks that define a function: those of all requests, and those of the resource. None on the admin listener: a script that refuses
    /// everybody must not keep out the one who can mend it.
    pub(super) fn hooks(
        &self,
        function: Function,
        request: &Request<'_>,
        rule: Option<&Rule>,
    ) -> Option<Hooked<'_>> {
        if !self.scripts.is_hooked(function) || !request.face.has_hooks() {
            return None;
        }
        let resource = rule.map(|rule| rule.resource.id.as_str());
        let mut hooks = self.scripts.hooks(function, resource);
        let first = hooks.next()?;
        Some(Hooked { scripts: [Some(first), hooks.next()], asked: self.asked(request) })
    }
}
