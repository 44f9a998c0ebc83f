//! What scripts see of a request and of those who make it, and what becomes of it when one of them says no.

use http::{HeaderValue, StatusCode};

use super::{Denial, Identity, Request, Room};
use crate::{
    hooks::{
        Fault, Person, PersonParts, RequestParts, ResourceParts, ResourceView, Script,
        ScriptRequest,
    },
    store::{HeldApplication, Rule},
};

/// Hooks that are to be called, one after another, with the request.
pub(super) struct Hooked<'a> {
    pub scripts: Vec<&'a Script>,
    pub asked: &'a ScriptRequest,
}

/// The request as scripts see it.
pub(super) fn request(request: &Request<'_>) -> ScriptRequest {
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

/// Who is asking, as scripts see it.
pub(super) fn person(identity: &Identity<'_>) -> Person {
    Person::new(PersonParts {
        uid: identity.uid(),
        name: identity.name().unwrap_or_default().to_owned(),
        roles: identity.roles().to_vec(),
        key_id: identity.key().map(|id| id.to_string()),
        application: identity.application().map(|held| held.record.id.clone()),
        attributes: identity.attributes(),
        allows: identity.allows(),
    })
}

/// What is asked for, as scripts see it.
pub(super) fn resource(rule: &Rule, request: &Request<'_>) -> ResourceView {
    ResourceView::new(ResourceParts {
        id: rule.resource.id.clone(),
        handler: rule.resource.handler.name().to_string(),
        path: rule.path.clone(),
        host: rule.resource.host.clone(),
        method: request.method.as_str().to_owned(),
    })
}

/// What a script's fault is for the client: what it threw on purpose, or 503 and nothing else.
pub(super) fn denied(room: Room, application: Option<&HeldApplication>, fault: Fault) -> Denial {
    match fault {
        Fault::Refused(refusal) => {
            let mut denial =
                Denial::new(room, refusal.status, refusal.code, refusal.description)
                    .with_detail(format!("refused by {}", refusal.place))
                    .with_headers(refusal.headers);
            if refusal.status == StatusCode::UNAUTHORIZED
                && let Some(application) = application
            {
                denial = denial.with_challenge(application.challenge.clone());
            }
            denial
        }
        Fault::Broken { detail } => broken(room, detail),
    }
}

/// A script that failed lets nobody in.
pub(super) fn broken(room: Room, detail: String) -> Denial {
    Denial::new(
        room,
        StatusCode::SERVICE_UNAVAILABLE,
        "SCRIPT_ERROR",
        "The request could not be decided.",
    )
    .with_detail(detail)
}

/// The challenge of a 401 that belongs to no application.
pub(crate) const SOME_CHALLENGE: HeaderValue = HeaderValue::from_static("ApiKey realm=\"Keyward\"");
