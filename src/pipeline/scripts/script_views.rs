//! Conversions between the pipeline and scripts: requests, users and resources as scripts see them,
//! and the denial if a script refuses a request or fails.

use std::sync::Arc;

use http::StatusCode;

use crate::{
    directory::{CachedUser, CompiledApplication, RoleTable, Rule},
    limits::Standing,
    pipeline::{Denial, Identity, LateBody, Phase, Request},
    scripting::{
        Fault, Function, IdentityParts, IdentityView, PermitResult, RequestParts, ResourceParts,
        ResourceView, Script, ScriptRequest, UserParts, UserView,
    },
};

/// The scripts that define one hook function, with the request that these scripts get.
pub(in crate::pipeline) struct HookScripts<'a> {
    /// `hooks.rhai`, and the script of the resource.
    pub scripts: [Option<&'a Script>; 2],
    pub request: &'a ScriptRequest,
    /// The body, if it is read only when it is needed.
    pub late_body: Option<&'a LateBody>,
}

impl HookScripts<'_> {
    /// The scripts, in the order of their calls.
    pub fn scripts(&self) -> impl Iterator<Item = &Script> {
        self.scripts.iter().flatten().copied()
    }

    async fn wait_for_body(
        &self,
        script: &Script,
        function: Function,
        standing: Standing,
    ) -> Result<(), Denial> {
        let Some(late) = self.late_body else { return Ok(()) };
        late.wait_for((script, function), standing, Some(self.request)).await
    }

    pub async fn on_request(&self) -> Result<(), Denial> {
        for script in self.scripts() {
            self.wait_for_body(script, Function::OnRequest, Standing::Unknown).await?;
            let result = script.on_request(self.request).await;
            result.map_err(|fault| denial_of(Phase::Header, None, fault))?;
        }
        Ok(())
    }

    pub async fn on_authenticated(&self, identity: &IdentityView) -> Result<(), Denial> {
        for script in self.scripts() {
            let (function, standing) = (Function::OnAuthenticated, Standing::Authenticated);
            self.wait_for_body(script, function, standing).await?;
            let result = script.on_authenticated(self.request, identity).await;
            result.map_err(|fault| denial_of(Phase::Verify, None, fault))?;
        }
        Ok(())
    }

    pub async fn on_permit(
        &self,
        identity: &IdentityView,
        resource: &ResourceView,
        standing: Standing,
    ) -> Result<Vec<PermitResult>, Denial> {
        let mut results = Vec::new();
        for script in self.scripts() {
            self.wait_for_body(script, Function::OnPermit, standing).await?;
            let result = script.on_permit(self.request, identity, resource).await;
            results.push(result.map_err(|fault| denial_of(Phase::Permit, None, fault))?);
        }
        Ok(results)
    }
}

/// The request as scripts see it.
pub(in crate::pipeline) fn request(request: &Request<'_>) -> ScriptRequest {
    ScriptRequest::new(RequestParts {
        method: request.method.as_str().to_owned(),
        path: request.path.to_owned(),
        query: request.query.map(str::to_owned),
        headers: request.headers.clone(),
        client: request.client,
        host: request.host.map(str::to_owned),
        body: request.body.cloned(),
    })
}

/// The identity as scripts see it. The first call creates it.
pub(in crate::pipeline) fn identity(identity: &Identity<'_>) -> IdentityView {
    let create = || {
        IdentityView::new(IdentityParts {
            uid: identity.uid(),
            name: identity.name().unwrap_or_default().to_owned(),
            roles: identity.roles().to_vec(),
            scopes: identity.granted_scopes(),
            key_id: identity.key().map(|id| id.to_string()),
            application: identity.application().map(|application| application.record.id.clone()),
            attributes: identity.attributes(),
            allows: identity.allows(),
        })
    };
    identity.script_view.get_or_init(create).clone()
}

/// A user as scripts see it.
pub(in crate::pipeline) fn user(user: &CachedUser, role_table: &Arc<RoleTable>) -> UserView {
    let role_table = role_table.clone();
    let roles = user.roles(&role_table).clone();
    UserView::new(UserParts {
        uid: user.uid,
        name: user.name.to_string(),
        is_active: user.is_active,
        roles: roles.ids.to_vec(),
        attributes: user.attributes().clone(),
        allows: Arc::new(move |permission| role_table.allows(&roles, permission)),
    })
}

/// The requested resource as scripts see it.
pub(in crate::pipeline) fn resource(rule: &Rule, request: &Request<'_>) -> ResourceView {
    ResourceView::new(ResourceParts {
        id: rule.resource.id.clone(),
        handler: rule.resource.handler.name().to_string(),
        path: rule.path.clone(),
        host: rule.resource.host.clone(),
        method: request.method.as_str().to_owned(),
    })
}

/// A program without resources, as scripts see it: a resource with an empty id, which every path
/// has.
pub(in crate::pipeline) fn program(request: &Request<'_>) -> ResourceView {
    ResourceView::new(ResourceParts {
        id: String::new(),
        handler: "program".to_owned(),
        path: "/{*rest}".to_owned(),
        host: None,
        method: request.method.as_str().to_owned(),
    })
}

/// The denial for a script's fault: the refusal that the script threw, or 503 without details.
pub(in crate::pipeline) fn denial_of(
    phase: Phase,
    application: Option<&CompiledApplication>,
    fault: Fault,
) -> Denial {
    match fault {
        Fault::Refused(refusal) => {
            let is_malformed = [400, 431].contains(&refusal.status.as_u16());
            let mut denial = Denial::new(phase, refusal.status, refusal.code, refusal.description)
                .with_internal_message(format!("refused by {}", refusal.place))
                .with_headers(refusal.headers);
            if refusal.status == StatusCode::UNAUTHORIZED
                && let Some(application) = application
            {
                denial = denial.challenged_by(application);
            }
            // An authentication script calls a credential malformed.
            if is_malformed && application.is_some() {
                denial = denial.counted_as_failure();
            }
            denial
        }
        Fault::Failed { detail } => script_error(phase, detail),
        Fault::TooLarge { status, detail } => too_large(phase, status, detail),
        Fault::ShutOut { seconds, detail } => shut_out(phase, seconds, detail),
    }
}

/// The denial of a request that is too large for a script. It counts as a failure of the client's
/// address, so that the failure limits slow down a client that keeps sending such requests.
fn too_large(phase: Phase, status: StatusCode, detail: String) -> Denial {
    let (code, message) = if status == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
        ("HEADER_TOO_LARGE", "A header field of the request is too large or has too many parts.")
    } else {
        ("INPUT_TOO_LARGE", "The request is too large or has too many parts.")
    };
    Denial::new(phase, status, code, message).with_internal_message(detail).counted_as_failure()
}

/// The denial for a client whose requests kept exceeding the budget of a script.
fn shut_out(phase: Phase, seconds: u64, detail: String) -> Denial {
    let message = format!(
        "Requests from this address took too long to decide. Try again in {seconds} seconds."
    );
    Denial::new(phase, StatusCode::TOO_MANY_REQUESTS, "TOO_EXPENSIVE", message)
        .with_internal_message(detail)
        .with_retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
}

/// The denial for the fault of a script that runs after all phases have let the request pass.
pub fn script_denial(fault: Fault) -> Denial {
    denial_of(Phase::Handler, None, fault)
}

/// The denial if a script failed. A request never passes because of a failed script.
pub(in crate::pipeline) fn script_error(phase: Phase, internal_message: String) -> Denial {
    Denial::new(
        phase,
        StatusCode::SERVICE_UNAVAILABLE,
        "SCRIPT_ERROR",
        "The request could not be decided.",
    )
    .with_internal_message(internal_message)
}
