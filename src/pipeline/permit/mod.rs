//! Phase 5, permit: checks permissions and limits.

mod narrow;

pub(crate) use narrow::EarlierDecision;

use http::StatusCode;

use super::{
    Action, Anonymous, Denial, EntryRules, Identity, Phase, Quota, Request, RequestContext, limits,
    scripts::script_views,
};
use crate::{
    directory::Rule,
    limits::Standing,
    model::PermissionSource,
    scripting::{Function, PermitResult},
};

/// The result of the last phase: proof that the caller may perform the action.
#[derive(Debug)]
pub struct Grant<'a> {
    identity: Identity<'a>,
    rule: Option<&'a Rule>,
    quota: Quota,
}

impl<'a> Grant<'a> {
    /// The grant of a request that is not authenticated.
    pub(super) fn anonymous(identity: Identity<'a>, rule: &'a Rule, quota: Quota) -> Self {
        Self { identity, rule: Some(rule), quota }
    }

    /// The caller, who may perform the action.
    pub fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// The caller, without the rest of the grant.
    pub fn into_identity(self) -> Identity<'a> {
        self.identity
    }

    /// The state of the limits that apply to the request.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// The resource and method that the caller may use; `None` means that the action does not
    /// concern a resource.
    pub fn rule(&self) -> Option<&'a Rule> {
        self.rule
    }
}

/// Decides whether the user may perform the action.
///
/// # Errors
/// The request has no route, the resource does not accept the application, the caller lacks a
/// permission, a script refuses the request, or a limit is reached.
pub async fn decide<'a>(
    context: &'a RequestContext,
    request: &Request<'a>,
    identity: Identity<'a>,
    action: &Action<'a>,
) -> Result<Grant<'a>, Denial> {
    let mut grant = authorize_action(context, request, identity, action).await?;
    grant.quota = limits::consume(context, request, &grant.identity, grant.rule)?;
    Ok(grant)
}

async fn authorize_action<'a>(
    context: &'a RequestContext,
    request: &Request<'a>,
    identity: Identity<'a>,
    action: &Action<'a>,
) -> Result<Grant<'a>, Denial> {
    let rule = match action {
        Action::NoRoute(denial) | Action::Misuse(_, denial) => return Err(denial.clone()),
        Action::Use(rule) => {
            authorize_resource(rule, &identity)?;
            run_permit_hooks(context, request, rule, &identity).await?;
            Some(*rule)
        }
        Action::Administer(permission) => {
            if identity.is_anonymous() {
                return Err(method_not_allowed("the request is anonymous"));
            }
            require_permission(&identity, permission)?;
            None
        }
        Action::Enter(rules) => {
            authorize_entry(rules, &identity)?;
            run_program_hooks(context, request, &identity).await?;
            None
        }
    };
    Ok(Grant { identity, rule, quota: Quota::default() })
}

fn authorize_resource(rule: &Rule, identity: &Identity<'_>) -> Result<(), Denial> {
    let is_admitted = match identity.application() {
        Some(application) => rule.access.allows_application(&application.record.id),
        None => rule.access.anonymous,
    };
    if !is_admitted {
        return Err(method_not_allowed(
            "the resource does not accept the application (or anonymous requests)",
        ));
    }
    if rule.resource.permission == PermissionSource::Records {
        for permission in &rule.permissions {
            require_permission(identity, permission)?;
        }
    }
    Ok(())
}

fn authorize_entry(rules: &EntryRules<'_>, identity: &Identity<'_>) -> Result<(), Denial> {
    // The header phase does not make this check superfluous, because requests to a disabled
    // application become anonymous in that phase.
    if identity.is_anonymous() && rules.anonymous == Anonymous::Refused {
        return Err(method_not_allowed("the request is anonymous"));
    }
    rules.permissions.iter().try_for_each(|permission| require_permission(identity, permission))
}

/// Runs the hook `on_permit`. If the resource leaves the decision to scripts, at least one hook
/// must return `true`. Otherwise the hook can only refuse requests that the records allow.
async fn run_permit_hooks(
    context: &RequestContext,
    request: &Request<'_>,
    rule: &Rule,
    identity: &Identity<'_>,
) -> Result<(), Denial> {
    let mut is_permitted = rule.resource.permission == PermissionSource::Records;
    if let Some(hooks) = context.hooks(Function::OnPermit, request, Some(rule)) {
        let view = script_views::identity(identity);
        let resource = script_views::resource(rule, request);
        let standing = Standing::of(identity);
        for result in Box::pin(hooks.on_permit(&view, &resource, standing)).await? {
            match result {
                PermitResult::Refused => return Err(not_allowed("on_permit returned false")),
                PermitResult::Granted => is_permitted = true,
                PermitResult::NoObjection => {}
            }
        }
    }
    if is_permitted {
        Ok(())
    } else {
        Err(not_allowed("the resource has permission = script, and no on_permit returned true"))
    }
}

/// Runs the hook `on_permit` for a program without resources. The hook can only refuse requests
/// that the program's own rules allow.
async fn run_program_hooks(
    context: &RequestContext,
    request: &Request<'_>,
    identity: &Identity<'_>,
) -> Result<(), Denial> {
    let Some(hooks) = context.hooks(Function::OnPermit, request, None) else { return Ok(()) };
    let view = script_views::identity(identity);
    let (program, standing) = (script_views::program(request), Standing::of(identity));
    let results = Box::pin(hooks.on_permit(&view, &program, standing)).await?;
    if results.iter().any(|result| matches!(result, PermitResult::Refused)) {
        return Err(not_allowed("on_permit returned false"));
    }
    Ok(())
}

fn not_allowed(internal_message: &'static str) -> Denial {
    let message = "You are not allowed to do this.";
    Denial::message(Phase::Permit, StatusCode::FORBIDDEN, "PERMISSION_DENIED", message)
        .with_internal_message(internal_message)
}

fn method_not_allowed(internal_message: &'static str) -> Denial {
    Denial::message(
        Phase::Permit,
        StatusCode::FORBIDDEN,
        "AUTHENTICATION_METHOD_NOT_ALLOWED",
        "The used authentication method is not allowed on this route.",
    )
    .with_internal_message(internal_message)
}

fn require_permission(identity: &Identity<'_>, permission: &str) -> Result<(), Denial> {
    if identity.has(permission) {
        return Ok(());
    }
    Err(Denial::message(
        Phase::Permit,
        StatusCode::FORBIDDEN,
        "PERMISSION_REQUIRED",
        format!("The '{permission}' permission is required."),
    ))
}
