//! What the rooms have found of a request, for the audit trail: who it was, in case that it is refused.

use crate::model::Mode;
use std::net::IpAddr;

use http::StatusCode;

use super::{Action, Candidate, Denial, Grant, Identity, Presented, Request, RequestContext};
use crate::{
    limits::{self, Object, Standing, Suspect},
    model::Detail,
};

/// What was found so far. Nothing of it is text that a client wrote: a credential could stand there.
#[derive(Clone, Copy, Default)]
pub(super) struct DenialAudit<'a> {
    application: Option<&'a str>,
    /// Whether the application tells no details.
    is_uniform: bool,
    suspect: Suspect,
}

impl<'a> DenialAudit<'a> {
    pub fn presented(&mut self, presented: &Presented<'a>) {
        let Some(given) = presented.given() else { return };
        let record = &given.application.record;
        self.application = Some(record.id.as_str());
        self.is_uniform = record.detail == Detail::Uniform;
    }

    pub fn is_uniform(&self) -> bool {
        self.is_uniform
    }

    pub fn candidate(&mut self, candidate: &Candidate<'a>) {
        let member = candidate.suspect().and_then(|suspect| suspect.member.as_ref());
        self.suspect.uid = member.map(|member| member.uid);
    }

    pub fn identity(&mut self, identity: &Identity<'a>) {
        let (uid, key) = (identity.uid(), identity.key());
        self.application = identity.application().map(|one| one.record.id.as_str());
        self.suspect = Suspect { uid, key, standing: Standing::Proven };
    }

    /// Tells the audit trail of a refusal, unless somebody only wants to know. Nothing is written now.
    pub fn tell(self, scene: &RequestContext, client: IpAddr, object: Object<'_>, why: &Denial) {
        if scene.mode == Mode::DryRun {
            return;
        }
        let suspect = match why.suspect.uid {
            Some(_) => why.suspect,
            None => self.suspect,
        };
        scene.ledger().denied(limits::Denial {
            code: &why.code,
            status: why.status.as_u16(),
            client,
            object,
            application: self.application,
            suspect,
        });
    }
}

/// What a request is for, as the audit trail names it.
pub(super) fn object<'a>(action: &'a Action<'_>) -> Object<'a> {
    match action {
        Action::Use(rule) | Action::Misuse(rule, _) => Object::Resource(&rule.resource.id),
        Action::Administer(_) => Object::Admin,
        Action::Nowhere(_) => Object::Nowhere,
        Action::Enter(_) => Object::Program,
    }
}

/// Who came through the Gate, for the audit trail, in case that what comes behind it refuses them.
#[derive(Clone, Copy)]
pub struct AuditScope<'a> {
    scene: &'a RequestContext,
    client: IpAddr,
    object: Object<'a>,
    seen: DenialAudit<'a>,
}

impl<'a> AuditScope<'a> {
    /// Of a request that was let through.
    pub fn new(scene: &'a RequestContext, request: &Request<'_>, grant: &Grant<'a>) -> Self {
        let object = grant.rule().map_or(Object::Admin, |rule| Object::Resource(&rule.resource.id));
        let mut seen = DenialAudit::default();
        seen.identity(grant.identity());
        Self { scene, client: request.client, object, seen }
    }

    /// Tells the audit trail if this says that somebody may not. What cannot be done for another reason is no denial.
    pub fn hear(&self, why: &Denial) {
        if matches!(why.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.seen.tell(self.scene, self.client, self.object, why);
        }
    }
}
