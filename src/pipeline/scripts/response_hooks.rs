//! The hooks that run after the decision: `on_denied` and `on_response`.

use std::net::IpAddr;

use http::HeaderMap;

use super::script_views::{self, HookScripts};
use crate::{
    directory::Rule,
    pipeline::{Denial, Gate, Grant, Phase, Request, RequestContext, ScriptedBody},
    scripting::{
        DenialParts, Fault, Function, IdentityView, ResponseParts, ScriptDenial, ScriptResponse,
    },
};

/// The `on_response` hooks for one request.
pub struct ResponseHooks<'a> {
    hooks: HookScripts<'a>,
    identity: IdentityView,
    context: &'a RequestContext,
    client: IpAddr,
}

impl Gate {
    /// Runs the hook `on_denied`, which may change the denial but cannot let the request pass. If a
    /// hook fails, the denial stays unchanged.
    pub async fn on_denied(
        &self,
        context: &RequestContext,
        request: &Request<'_>,
        rule: Option<&Rule>,
        mut denial: Denial,
    ) -> Denial {
        let Some(hooks) = context.hooks(Function::OnDenied, request, rule) else { return denial };
        for script in hooks.scripts() {
            let view = ScriptDenial::new(parts(&denial));
            match script.on_denied(hooks.request, &view).await {
                Ok(()) => update(&mut denial, view.take()),
                Err(fault @ Fault::Refused(_)) => {
                    denial = script_views::denial_of(denial.phase, None, fault);
                }
                Err(Fault::Failed { detail }) => {
                    tracing::error!(detail, "on_denied failed; the denial stays unchanged");
                }
                // These are the client's faults, so they must not fill the log with errors.
                Err(Fault::TooLarge { detail, .. } | Fault::ShutOut { detail, .. }) => {
                    tracing::debug!(detail, "on_denied failed; the denial stays unchanged");
                }
            }
        }
        denial
    }

    /// The `on_response` hooks for this request; `None` means that no script defines the hook. Must
    /// be called before the handler consumes the request.
    pub fn response_hooks<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'_>,
        grant: &Grant<'_>,
    ) -> Option<ResponseHooks<'a>> {
        let hooks = context.hooks(Function::OnResponse, request, grant.rule())?;
        let (identity, client) = (script_views::identity(grant.identity()), request.client);
        Some(ResponseHooks { hooks, identity, context, client })
    }

    /// [`Gate::response_hooks`] of the resource's script only, for a response that passes the hooks
    /// of `hooks.rhai` elsewhere.
    pub(crate) fn resource_response_hooks<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'_>,
        grant: &Grant<'_>,
    ) -> Option<ResponseHooks<'a>> {
        let hooks = context.resource_hooks(Function::OnResponse, request, grant.rule())?;
        let (identity, client) = (script_views::identity(grant.identity()), request.client);
        Some(ResponseHooks { hooks, identity, context, client })
    }
}

impl ResponseHooks<'_> {
    /// Runs the hooks and returns the changed response.
    ///
    /// # Errors
    /// A hook refused or failed. In both cases no part of the response may be sent.
    pub async fn run(&self, mut response: ResponseParts) -> Result<ResponseParts, Denial> {
        for script in self.hooks.scripts() {
            let view = ScriptResponse::new(response);
            let result = script.on_response(self.hooks.request, &self.identity, &view).await;
            result.map_err(|fault| {
                let denial = script_views::denial_of(Phase::Handler, None, fault);
                self.context.count_failure(self.client, denial)
            })?;
            response = view.take();
        }
        Ok(response)
    }
}

fn parts(denial: &Denial) -> DenialParts {
    let body = denial.body.as_ref();
    DenialParts {
        phase: denial.phase.name().to_owned(),
        status: denial.status,
        code: denial.code.to_string(),
        description: denial.external_message.to_string(),
        body: body.map(|body| body.text.clone()),
        content_type: body.and_then(|body| body.content_type.clone()),
        headers: HeaderMap::clone(&denial.headers),
    }
}

fn update(denial: &mut Denial, parts: DenialParts) {
    let fields = denial.fields_mut();
    fields.status = parts.status;
    fields.external_message = parts.description.into();
    fields.headers = parts.headers;
    let content_type = parts.content_type;
    fields.body = parts.body.map(|text| ScriptedBody { text, content_type });
}
