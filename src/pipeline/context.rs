//! A [`RequestContext`] is the snapshot of policy and scripts with which one request is decided.

use std::{net::IpAddr, sync::OnceLock};

use bytes::Bytes;
use http::HeaderName;
use parking_lot::Mutex;

use super::{
    Denial, Gate, Identity, LateBody, Phase, Request, failure_count,
    record::{Observation, RequestFacts, UpstreamFacts},
    scripts::script_views::{self, HookScripts},
};
use crate::{
    directory::{CompiledApplication, Policy, Rule},
    limits::{Counters, Standing},
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
    /// The body, if it is read only when it is needed. Unset means that it is in the [`Request`],
    /// or that scripts do not read it.
    late_body: OnceLock<Box<LateBody>>,
    pub(super) mode: Mode,
    gate: Gate,
    /// The findings about the request. `None` if nothing is recorded.
    facts: Mutex<Option<Box<RequestFacts>>>,
}

impl RequestContext {
    /// The context of a new request.
    pub(super) fn new(policy: Borrowed<Policy>, scripts: Borrowed<ScriptSet>, gate: Gate) -> Self {
        Self {
            policy,
            scripts,
            script_request: OnceLock::new(),
            late_body: OnceLock::new(),
            mode: Mode::Live,
            gate,
            facts: Mutex::default(),
        }
    }

    /// Records what the pipeline found out.
    pub(super) fn record(&self, facts: RequestFacts) {
        *self.facts.lock() = Some(Box::new(facts));
    }

    /// Whether exchanges with upstreams are recorded.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub(crate) fn is_recorded(&self) -> bool {
        self.gate.0.observation > Observation::Off
    }

    /// Records an exchange with an upstream. Of several, the last one counts.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub(crate) fn record_upstream(&self, exchange: UpstreamFacts) {
        if let Some(facts) = &mut *self.facts.lock() {
            facts.upstream = Some(exchange);
        }
    }

    /// Takes out what was recorded about the request. `None` if nothing was recorded.
    #[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses it"))]
    pub(crate) fn take_facts(&self) -> Option<RequestFacts> {
        self.facts.lock().take().map(|facts| *facts)
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
        self.script_request.get_or_init(|| {
            let shown = script_views::request(request);
            if let Some(body) = self.late_body.get().and_then(|late| late.received()) {
                shown.provide_body(body.clone());
            }
            shown
        })
    }

    /// Lets scripts wait for the body of the request. [`LateBody::drive`] reads it.
    pub(crate) fn expect_body(&self) -> &LateBody {
        self.late_body.get_or_init(Box::default)
    }

    /// Makes a body that was read visible to all scripts.
    pub(crate) fn provide_body(&self, body: &Bytes) {
        if let Some(shown) = self.script_request.get() {
            shown.provide_body(body.clone());
        }
    }

    /// Waits for the body if this function of the script reads it.
    ///
    /// # Errors
    /// The body could not be read.
    pub(super) async fn wait_for_body(
        &self,
        script: &Script,
        function: Function,
        standing: Standing,
    ) -> Result<(), Denial> {
        let Some(late) = self.late_body.get().filter(|_| script.reads_body(function)) else {
            return Ok(());
        };
        let shown = self.script_request.get();
        Box::pin(late.wait_for((script, function), standing, shown)).await
    }

    /// Records that the client has proved who it is.
    pub(super) fn authenticated(&self) {
        if let Some(late) = self.late_body.get() {
            late.authenticated();
        }
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
        let late_body = self.late_body.get().map(|late| &**late);
        Some(HookScripts { scripts, request: self.script_request(request), late_body })
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
        let late_body = self.late_body.get().map(|late| &**late);
        let request = self.script_request(request);
        Some(HookScripts { scripts: [Some(script), None], request, late_body })
    }
}
