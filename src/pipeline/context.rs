//! A [`RequestContext`] is the snapshot of policy and scripts with which one request is decided.

use std::{net::IpAddr, sync::OnceLock};

use http::HeaderName;

use super::{
    Denial, Gate, Identity, Phase, Request, failure_count,
    scripts::script_views::{self, HookScripts},
};
use crate::{
    directory::{CompiledApplication, Policy, Rule},
    limits::Counters,
    model::{Borrowed, Mode},
    scripting::{self, Function, Script, ScriptRequest, ScriptSet},
};

/// Roles, applications, resources and scripts as they were when the request arrived.
///
/// All decisions about one request use the same context, from the route to the response. A change
/// that an administrator makes during a request takes effect with the next request.
pub struct RequestContext {
    /// Roles, applications and resources.
    pub policy: Borrowed<Policy>,
    pub(super) scripts: Borrowed<ScriptSet>,
    /// The request as scripts see it. The first script call creates it, and all calls share it.
    script_request: OnceLock<ScriptRequest>,
    pub(super) mode: Mode,
    gate: Gate,
}

impl RequestContext {
    /// The context of a new request.
    pub(super) fn new(policy: Borrowed<Policy>, scripts: Borrowed<ScriptSet>, gate: Gate) -> Self {
        Self { policy, scripts, script_request: OnceLock::new(), mode: Mode::Live, gate }
    }

    /// The counters of uses, denials and failures.
    pub(super) fn counters(&self) -> &Counters {
        self.gate.0.accounts.counters()
    }

    /// Counts a denial if it is a failure of the client. The result is the denial for the client.
    pub(super) fn count_failure(&self, client: IpAddr, denial: Denial) -> Denial {
        failure_count::count(self.counters(), self.mode, client, denial)
    }

    /// Turns the context into a context for a dry run, during which nothing is counted or written.
    pub(super) fn dry_run(self) -> Self {
        Self { mode: Mode::DryRun, ..self }
    }

    /// The script of an application's authentication type; `None` means a built-in type.
    ///
    /// # Errors
    /// The script does not exist. In this case every credential of the application is refused.
    pub(super) fn script_of(
        &self,
        application: &CompiledApplication,
    ) -> Result<Option<&Script>, Denial> {
        let Some(name) = application.record.auth_type.script() else { return Ok(None) };
        self.scripts.auth(name).map(Some).ok_or_else(|| {
            let message = format!("there is no script auth/{name}.rhai");
            script_views::script_error(Phase::Header, message)
        })
    }

    /// Runs the script of the handler `script:NAME`.
    ///
    /// # Errors
    /// The script does not exist, refuses the request, or fails.
    pub async fn handle(
        &self,
        name: &str,
        request: &Request<'_>,
        identity: &Identity<'_>,
    ) -> Result<scripting::HandlerResponse, Denial> {
        let Some(script) = self.scripts.handler(name) else {
            let message = format!("there is no script handlers/{name}.rhai");
            return Err(script_views::script_error(Phase::Handler, message));
        };
        let view = script_views::identity(identity);
        let response = script.handle(self.script_request(request), &view).await;
        response.map_err(|fault| {
            let denial = script_views::denial_of(Phase::Handler, None, fault);
            self.count_failure(request.client, denial)
        })
    }

    /// The request as scripts see it.
    pub(super) fn script_request(&self, request: &Request<'_>) -> &ScriptRequest {
        self.script_request.get_or_init(|| script_views::request(request))
    }

    /// The header fields that scripts have read so far.
    pub(crate) fn fields_read_by_scripts(&self) -> Vec<HeaderName> {
        self.script_request.get().map(ScriptRequest::fields_read).unwrap_or_default()
    }

    /// The request as scripts have seen it. `None` means that no script was called.
    pub(super) fn script_request_if_any(&self) -> Option<&ScriptRequest> {
        self.script_request.get()
    }

    /// The scripts that define this hook function: `hooks.rhai`, and the script of the resource.
    ///
    /// `None` means that no script defines the function, or that the request came to the admin
    /// listener (see [`Face::has_hooks`](super::Face)).
    pub(super) fn hooks(
        &self,
        function: Function,
        request: &Request<'_>,
        rule: Option<&Rule>,
    ) -> Option<HookScripts<'_>> {
        if !self.scripts.is_hooked(function) || !request.face.has_hooks() {
            return None;
        }
        let resource = rule.map(|rule| rule.resource.id.as_str());
        let mut hooks = self.scripts.hooks(function, resource);
        let first = hooks.next()?;
        let scripts = [Some(first), hooks.next()];
        Some(HookScripts { scripts, request: self.script_request(request) })
    }

    /// The script of the resource, if it defines this hook function. For a request whose
    /// `hooks.rhai` has run already.
    pub(super) fn resource_hooks(
        &self,
        function: Function,
        request: &Request<'_>,
        rule: Option<&Rule>,
    ) -> Option<HookScripts<'_>> {
        if !self.scripts.is_hooked(function) || !request.face.has_hooks() {
            return None;
        }
        let script = self.scripts.resource_hook(function, &rule?.resource.id)?;
        Some(HookScripts { scripts: [Some(script), None], request: self.script_request(request) })
    }
}
