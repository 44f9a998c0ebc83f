//! Collects the findings of the phases about a request, for the audit trail if the request is
//! refused.

use std::{net::IpAddr, time::Duration};

use http::StatusCode;

use super::{
    Action, Candidate, Denial, Grant, Identity, Presented, Request, RequestContext,
    record::{Observation, RequestFacts, Target},
};
use crate::{
    limits::{DeniedRequest, Object, Subject, Verification},
    model::{Detail, Mode},
};

/// The findings of the phases that have run. They contain no text from the client, because such a
/// text could be a credential.
#[derive(Clone, Copy, Default)]
pub(super) struct DenialAudit<'a> {
    application: Option<&'a str>,
    /// Whether the application gives clients no details ([`Detail::Uniform`]).
    is_uniform: bool,
    subject: Subject,
}

impl<'a> DenialAudit<'a> {
    pub fn note_presented(&mut self, presented: &Presented<'a>) {
        let Some(credential) = presented.credential() else { return };
        let record = &credential.application.record;
        self.application = Some(record.id.as_str());
        self.is_uniform = record.detail == Detail::Uniform;
    }

    pub fn note_candidate(&mut self, candidate: &Candidate<'a>) {
        let user = candidate.unverified().and_then(|unverified| unverified.user.as_ref());
        self.subject.uid = user.map(|user| user.uid);
    }

    pub fn note_identity(&mut self, identity: &Identity<'a>) {
        let (uid, key) = (identity.uid(), identity.key());
        self.application = identity.application().map(|application| &*application.record.id);
        self.subject = Subject { uid, key, verification: Verification::Proven };
    }

    pub fn is_uniform(&self) -> bool {
        self.is_uniform
    }

    /// The user whom a denial is about, or who was authorized.
    pub fn subject_of(&self, denial: Option<&Denial>) -> Subject {
        denial
            .map(|denial| denial.subject)
            .filter(|known| known.uid.is_some())
            .unwrap_or(self.subject)
    }

    /// The findings for the record of the request.
    pub fn facts(
        &self,
        observation: Observation,
        decided_in: Duration,
        object: Object<'_>,
        result: Result<&Identity<'_>, &Denial>,
    ) -> RequestFacts {
        let subject = self.subject_of(result.err());
        let decided_in = Some(decided_in);
        if observation < Observation::Full {
            return RequestFacts { decided_in, subject, ..RequestFacts::default() };
        }
        let target = Some(match object {
            Object::Resource(id) => Target::Resource(id.to_owned()),
            Object::Admin => Target::Admin,
            Object::Program => Target::Program,
            Object::Nowhere => Target::Nowhere,
        });
        let application = self.application.map(str::to_owned);
        let user = result.ok().and_then(Identity::name).map(str::to_owned);
        RequestFacts { decided_in, target, application, subject, user, upstream: None }
    }

    /// Queues an entry for the audit trail, except in a dry run. A background task writes the
    /// entry.
    pub fn record(
        self,
        context: &RequestContext,
        client: IpAddr,
        object: Object<'_>,
        denial: &Denial,
    ) {
        if context.mode == Mode::DryRun {
            return;
        }
        let subject = self.subject_of(Some(denial));
        context.counters().denied(DeniedRequest {
            code: &denial.code,
            status: denial.status.as_u16(),
            client,
            object,
            application: self.application,
            subject,
        });
    }
}

/// The target of a request, as the audit trail names it.
pub(super) fn object<'a>(action: &'a Action<'_>) -> Object<'a> {
    match action {
        Action::Use(rule) | Action::Misuse(rule, _) => Object::Resource(&rule.resource.id),
        Action::Administer(_) => Object::Admin,
        Action::NoRoute(_) => Object::Nowhere,
        Action::Enter(_) => Object::Program,
    }
}

/// The findings about a request that passed all phases, for the audit trail if the handler refuses
/// the request.
#[derive(Clone, Copy)]
pub struct AuditScope<'a> {
    context: &'a RequestContext,
    client: IpAddr,
    object: Object<'a>,
    findings: DenialAudit<'a>,
}

impl<'a> AuditScope<'a> {
    /// The findings about a request that passed all phases with this grant.
    pub fn new(context: &'a RequestContext, request: &Request<'_>, grant: &Grant<'a>) -> Self {
        let object = grant.rule().map_or(Object::Admin, |rule| Object::Resource(&rule.resource.id));
        let mut findings = DenialAudit::default();
        findings.note_identity(grant.identity());
        Self { context, client: request.client, object, findings }
    }

    /// Records a denial with the status 401 or 403. Other statuses do not mean that the user was
    /// refused, so the audit trail ignores denials with such a status.
    pub fn record(&self, denial: &Denial) {
        if matches!(denial.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            self.findings.record(self.context, self.client, self.object, denial);
        }
    }
}
