//! The fifth room: whether they may do this.

use http::StatusCode;

use super::{Action, Denial, Identity, Room};
use crate::store::Rule;

/// The right to do what was asked. Whatever guards something asks for one.
#[derive(Debug)]
pub struct Grant<'a> {
    identity: Identity<'a>,
    rule: Option<&'a Rule>,
}

impl<'a> Grant<'a> {
    /// Who may.
    pub fn identity(&self) -> &Identity<'a> {
        &self.identity
    }

    /// The method of the resource that may be used; none: the admin API was asked for.
    pub fn rule(&self) -> Option<&'a Rule> {
        self.rule
    }
}

/// Decides whether somebody may do something.
///
/// # Errors
/// There is nothing to do it with; the application is not one of the resource's; a permission is missing.
pub fn decide<'a>(identity: Identity<'a>, action: &Action<'a>) -> Result<Grant<'a>, Denial> {
    match action {
        Action::Nowhere(denial) | Action::Misuse(_, denial) => Err(denial.clone()),
        Action::Use(rule) => of_resource(rule, identity),
        Action::Administer(permission) => {
            if identity.is_anonymous() {
                return Err(not_admitted("the request is anonymous"));
            }
            needs(&identity, permission)?;
            Ok(Grant { identity, rule: None })
        }
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
    for permission in &rule.permissions {
        needs(&identity, permission)?;
    }
    Ok(Grant { identity, rule: Some(rule) })
}

fn not_admitted(detail: &'static str) -> Denial {
    Denial::message(
        Room::Permit,
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
        Room::Permit,
        StatusCode::FORBIDDEN,
        "PERMISSION_REQUIRED",
        format!("The '{permission}' permission is required."),
    ))
}
