//! The credential of a request as an upstream must not see it: which parts of the request carry it,
//! and how they are removed.
//!
//! The fields of the default application and of the chosen application are removed from every
//! request, even if the request was not authenticated. So a resource that admits anonymous requests
//! does not pass on a credential that nobody looked at.

mod challenge;
mod choice;
pub(super) mod hints;
mod removal;

pub use challenge::{declared_header, scripted_challenge};
pub(super) use choice::Choice;
use http::{HeaderMap, HeaderName};

use super::{AUTH_METHOD, Denial, Phase, Request, RequestContext, scripts::script_views};
use crate::{
    directory::{CompiledApplication, Rule},
    model::CredentialParts,
};

/// The parts of a request that are removed before the request reaches an upstream, or the service
/// behind the layer.
#[derive(Debug)]
pub struct CredentialRemoval<'a> {
    /// The header fields of the default application and of the chosen application.
    headers: [Option<&'a HeaderName>; 2],
    /// The parts that scripts have read or declared, and the fields of the other applications of
    /// the resource. `None` means that there are none.
    more: Option<Box<CredentialParts>>,
}

impl RequestContext {
    /// The parts to remove from a request to this resource. `None` means that the resource keeps
    /// the credential. Must be called after the decision, because a script finds its credential
    /// while the request is decided.
    pub fn credential_removal(
        &self,
        headers: &HeaderMap,
        rule: Option<&Rule>,
    ) -> Option<CredentialRemoval<'_>> {
        if rule.is_some_and(|rule| rule.resource.keeps_credential()) {
            return None;
        }
        let applications = &self.policy.applications;
        let chosen = headers.get(AUTH_METHOD).and_then(|id| id.to_str().ok());
        let chosen = chosen.and_then(|id| applications.get(id.trim()));
        let applications = [applications.default(), chosen];
        let mut more = CredentialParts::default();
        for application in applications.into_iter().flatten() {
            self.add_declared(application, &mut more);
        }
        for id in rule.iter().flat_map(|rule| &rule.resource.applications) {
            if let Some(application) = self.policy.applications.get(id) {
                more.add_header(&application.header);
                self.add_declared(application, &mut more);
            }
        }
        if let Some(request) = self.script_request_if_any() {
            more.add(&request.credential_reads());
        }
        let more = (more != CredentialParts::default()).then(|| Box::new(more));
        let headers = applications.map(|application| application.map(|found| &found.header));
        Some(CredentialRemoval { headers, more })
    }

    /// Adds the parts that the application's script declares.
    fn add_declared(&self, application: &CompiledApplication, parts: &mut CredentialParts) {
        let name = application.record.auth_type.script();
        let script = name.and_then(|name| self.scripts.auth(name));
        if let Some(declared) = script.and_then(|script| script.credential()) {
            parts.add(&declared.parts);
        }
    }
}

impl CredentialRemoval<'_> {
    /// Checks that the credential can be removed.
    ///
    /// # Errors
    /// A script looked for the credential in the body, from which it cannot be removed.
    pub fn check(&self) -> Result<(), Denial> {
        match &self.more {
            Some(parts) if parts.body => {
                let message = "the authentication script reads the body in header or decode, and a credential in the body cannot be removed; read the body in verify, or set keep_credential = true for the resource";
                Err(script_views::script_error(Phase::Handler, message.into()))
            }
            _ => Ok(()),
        }
    }
}
