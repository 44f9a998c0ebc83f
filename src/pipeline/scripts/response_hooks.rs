//! What hooks do after the decision: to a refusal, and to an answer.

use http::HeaderMap;

use super::script_views::{self, Hooked};
use crate::{
    directory::Rule,
    pipeline::{Denial, Gate, Grant, Phase, Request, RequestContext, ScriptedBody},
    scripting::{
        DenialParts, Fault, Function, Person, ResponseParts, ScriptDenial, ScriptResponse,
    },
};

/// The hooks that an answer goes through.
pub struct ResponseHooks<'a> {
    hooked: Hooked<'a>,
    person: Person,
}

impl Gate {
    /// What hooks make of a refusal. It stays one: when a hook fails, the refusal is what it was.
    pub async fn on_denied(
        &self,
        scene: &RequestContext,
        request: &Request<'_>,
        rule: Option<&Rule>,
        denial: Denial,
    ) -> Denial {
        let Some(hooked) = scene.hooks(Function::OnDenied, request, rule) else { return denial };
        let mut denial = denial;
        for script in hooked.scripts() {
            let shown = ScriptDenial::new(shown(&denial));
            match script.on_denied(hooked.asked, &shown).await {
                Ok(()) => take(&mut denial, shown.take()),
                Err(fault @ Fault::Refused(_)) => {
                    denial = script_views::denied(denial.room, None, fault)
                }
                Err(Fault::Broken { detail }) => {
                    tracing::error!(detail, "on_denied failed; the refusal stays as it was");
                }
            }
        }
        denial
    }

    /// The hooks that the answer to a request will go through. Asked before the request is handed to its handler.
    pub fn aftermath<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'_>,
        grant: &Grant<'_>,
    ) -> Option<ResponseHooks<'a>> {
        let hooked = scene.hooks(Function::OnResponse, request, grant.rule())?;
        Some(ResponseHooks { hooked, person: script_views::person(grant.identity()) })
    }
}

impl ResponseHooks<'_> {
    /// What the hooks make of an answer.
    ///
    /// # Errors
    /// One of them refused or failed: nothing of the answer may be sent.
    pub async fn answer(&self, mut answer: ResponseParts) -> Result<ResponseParts, Denial> {
        for script in self.hooked.scripts() {
            let shown = ScriptResponse::new(answer);
            let said = script.on_response(self.hooked.asked, &self.person, &shown).await;
            said.map_err(|fault| script_views::denied(Phase::Handler, None, fault))?;
            answer = shown.take();
        }
        Ok(answer)
    }
}

fn shown(denial: &Denial) -> DenialParts {
    let body = denial.body.as_ref();
    DenialParts {
        room: denial.room.name().to_owned(),
        status: denial.status,
        code: denial.code.clone().into_owned(),
        description: denial.description.clone().into_owned(),
        body: body.map(|body| body.text.clone()),
        content_type: body.and_then(|body| body.content_type.clone()),
        headers: HeaderMap::clone(&denial.headers),
    }
}

fn take(denial: &mut Denial, made: DenialParts) {
    let parts = denial.parts_mut();
    parts.status = made.status;
    parts.description = made.description.into();
    parts.headers = made.headers;
    let content_type = made.content_type;
    parts.body = made.body.map(|text| ScriptedBody { text, content_type });
}
