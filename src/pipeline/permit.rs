//! The fifth room: whether they may do this.

use http::StatusCode;

use super::{
    Action, Anonymous, Denial, Entry, Identity, Phase, Quota, Request, RequestContext, limits,
    scripts::script_views,
};
use crate::{
    directory::Rule,
    model::PermissionSource,
    scripting::{Consent, Function},
};

/// The right to do what was asked. Whatever guards something asks for one.
#[derive(Debug)]
pub struct Grant<'a> {
    identity: Identity<'a>,
    rule: Option<&'a Rule>,
    quota: Quota,
}

impl<'a> Grant<'a> {
    /// Who may.
    pub fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// Who may, for whoever does it.
    pub fn into_identity(self) -> Identity<'a> {
        self.identity
    }

    /// What is left of the limits that the request is under.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// The method of the resource that may be used; none: what was asked for is no resource.
    pub fn rule(&self) -> Option<&'a Rule> {
        self.rule
    }
}

/// Decides whether somebody may do something.
///
/// # Errors
/// There is nothing to do it with; the application is not one of the resource's; a permission is missing; a script refuses; or a limit is reached.
pub async fn decide<'a>(
    scene: &'a RequestContext,
    request: &Request<'a>,
    identity: Identity<'a>,
    action: &Action<'a>,
) -> Result<Grant<'a>, Denial> {
    let mut grant = may(scene, request, identity, action).await?;
    grant.quota = limits::within(scene, request, &grant.identity, grant.rule)?;
    Ok(grant)
}

async fn may<'a>(
    scene: &'a RequestContext,
    request: &Request<'a>,
    identity: Identity<'a>,
    action: &Action<'a>,
) -> Result<Grant<'a>, Denial> {
    match action {
        Action::Nowhere(denial) | Action::Misuse(_, denial) => Err(denial.clone()),
        Action::Use(rule) => {
            let grant = of_resource(rule, identity)?;
            consent(scene, request, rule, &grant.identity).await?;
            Ok(grant)
        }
        Action::Administer(permission) => {
            if identity.is_anonymous() {
                return Err(not_admitted("the request is anonymous"));
            }
            needs(&identity, permission)?;
            Ok(Grant { identity, rule: None, quota: Quota::default() })
        }
        Action::Enter(entry) => enter(entry, identity),
    }
}

fn of_resource<'a>(rule: &'a Rule, identity: Identity<'a>) -> Result<Grant<'a>, Denial> {
    let is_admitted = match identity.application() {
        Some(application) => rule.admits.application(&application.record.id),
        None => rule.admits.anonymous,
    };
    if !is_admitted {
        return Err(not_admitted("the resource does not list the application, or anonymous"));
    }
    if rule.resource.permission == PermissionSource::Records {
        for permission in &rule.permissions {
            needs(&identity, permission)?;
        }
    }
    Ok(Grant { identity, rule: Some(rule), quota: Quota::default() })
}

fn enter<'a>(entry: &Entry<'_>, identity: Identity<'a>) -> Result<Grant<'a>, Denial> {
    // An application that is switched off makes its requests anonymous.
    if identity.is_anonymous() && entry.anonymous == Anonymous::Refused {
        return Err(not_admitted("the request is anonymous"));
    }
    for permission in entry.permissions {
        needs(&identity, permission)?;
    }
    Ok(Grant { identity, rule: None, quota: Quota::default() })
}

/// Asks the hooks. They can only take away; where the resource leaves the decision to a script, one of them must say yes.
async fn consent(
    scene: &RequestContext,
    request: &Request<'_>,
    rule: &Rule,
    identity: &Identity<'_>,
) -> Result<(), Denial> {
    let mut is_given = rule.resource.permission == PermissionSource::Records;
    if let Some(hooked) = scene.hooks(Function::OnPermit, request, Some(rule)) {
        let (person, resource) =
            (script_views::person(identity), script_views::resource(rule, request));
        for said in Box::pin(hooked.on_permit(&person, &resource)).await? {
            match said {
                Consent::Withheld => return Err(withheld("on_permit returned false")),
                Consent::Given => is_given = true,
                Consent::Silent => {}
            }
        }
    }
    match is_given {
        true => Ok(()),
        false => {
            Err(withheld("the resource says permission = script, and no on_permit returned true"))
        }
    }
}

fn withheld(detail: &'static str) -> Denial {
    let said = "You are not allowed to do this.";
    Denial::message(Phase::Permit, StatusCode::FORBIDDEN, "PERMISSION_DENIED", said)
        .with_detail(detail)
}

fn not_admitted(detail: &'static str) -> Denial {
    Denial::message(
        Phase::Permit,
        StatusCode::FORBIDDEN,
        "AUTHENTICATION_METHOD_NOT_ALLOWED",
        "The used authentication method is not allowed on this route.",
    )
    .with_detail(detail)
}

/// The refusal of somebody who lacks a permission.
pub fn needs(identity: &Identity<'_>, permission: &str) -> Result<(), Denial> {
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
