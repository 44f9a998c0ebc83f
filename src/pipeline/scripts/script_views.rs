//! What scripts see of a request and of those who make it, and what becomes of it when one of them says no.

use std::sync::Arc;

use http::StatusCode;

use crate::{
    directory::{CachedUser, CompiledApplication, Rule},
    pipeline::{Denial, Identity, Phase, Request, RequestContext},
    scripting::{
        Consent, Fault, Person, PersonParts, RequestParts, ResourceParts, ResourceView, Script,
        ScriptRequest, UserParts, UserView,
    },
};

/// Hooks that are to be called, one after another, with the request.
pub(in crate::pipeline) struct Hooked<'a> {
    /// Those of all requests, and those of the resource.
    pub scripts: [Option<&'a Script>; 2],
    pub asked: &'a ScriptRequest,
}

impl Hooked<'_> {
    /// The scripts, in the order in which they are called.
    pub fn scripts(&self) -> impl Iterator<Item = &Script> {
        self.scripts.iter().flatten().copied()
    }

    pub async fn on_request(&self) -> Result<(), Denial> {
        for script in self.scripts() {
            let said = script.on_request(self.asked).await;
            said.map_err(|fault| denied(Phase::Header, None, fault))?;
        }
        Ok(())
    }

    pub async fn on_authenticated(&self, person: &Person) -> Result<(), Denial> {
        for script in self.scripts() {
            let said = script.on_authenticated(self.asked, person).await;
            said.map_err(|fault| denied(Phase::Verify, None, fault))?;
        }
        Ok(())
    }

    pub async fn on_permit(
        &self,
        person: &Person,
        resource: &ResourceView,
    ) -> Result<Vec<Consent>, Denial> {
        let mut said = Vec::new();
        for script in self.scripts() {
            let one = script.on_permit(self.asked, person, resource).await;
            said.push(one.map_err(|fault| denied(Phase::Permit, None, fault))?);
        }
        Ok(said)
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

/// Who is asking, as scripts see it: made for the first of them.
pub(in crate::pipeline) fn person(identity: &Identity<'_>) -> Person {
    identity.person.get_or_init(|| person_of(identity)).clone()
}

fn person_of(identity: &Identity<'_>) -> Person {
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

/// A user, as scripts see it.
pub(in crate::pipeline) fn user(member: &CachedUser, scene: &RequestContext) -> UserView {
    let table = scene.policy.roles.clone();
    let roles = member.roles(&table).clone();
    UserView::new(UserParts {
        uid: member.uid,
        name: member.name.to_string(),
        is_active: member.is_active,
        roles: roles.ids.to_vec(),
        attributes: member.attributes().clone(),
        allows: Arc::new(move |permission| table.allows(&roles, permission)),
    })
}

/// What is asked for, as scripts see it.
pub(in crate::pipeline) fn resource(rule: &Rule, request: &Request<'_>) -> ResourceView {
    ResourceView::new(ResourceParts {
        id: rule.resource.id.clone(),
        handler: rule.resource.handler.name().to_string(),
        path: rule.path.clone(),
        host: rule.resource.host.clone(),
        method: request.method.as_str().to_owned(),
    })
}

/// What a script's fault is for the client: what it threw on purpose, or 503 and nothing else.
pub(in crate::pipeline) fn denied(
    room: Phase,
    application: Option<&CompiledApplication>,
    fault: Fault,
) -> Denial {
    match fault {
        Fault::Refused(refusal) => {
            let mut denial = Denial::new(room, refusal.status, refusal.code, refusal.description)
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

/// What the fault of a script behind the Gate is for the client.
pub fn script_denial(fault: Fault) -> Denial {
    denied(Phase::Handler, None, fault)
}

/// A script that failed lets nobody in.
pub(in crate::pipeline) fn broken(room: Phase, detail: String) -> Denial {
    Denial::new(
        room,
        StatusCode::SERVICE_UNAVAILABLE,
        "SCRIPT_ERROR",
        "The request could not be decided.",
    )
    .with_detail(detail)
}
