//! The challenge of an application, and the description of a missing credential: both name the
//! place where the application looks for the credential.

use http::HeaderValue;

use super::{CompiledApplication, Denial, Phase, RequestContext};
use crate::{
    model::{Application, CredentialParts, title},
    scripting::{CredentialDeclaration, Function, ScriptSet},
};

/// The place of the credential of an authentication type that a script defines.
pub(in crate::pipeline) struct ScriptedPlace<'a> {
    application: &'a CompiledApplication,
    declaration: Option<&'a CredentialDeclaration>,
    /// The parts that the script has declared, or else the parts that it has read.
    parts: CredentialParts,
}

impl RequestContext {
    /// The place where the application's script looks for the credential. `None` means that the
    /// built-in phase reads the application's header field.
    pub(in crate::pipeline) fn scripted_place<'a>(
        &'a self,
        application: &'a CompiledApplication,
    ) -> Option<ScriptedPlace<'a>> {
        let reads = || self.script_request_if_any().map(|request| request.credential_reads());
        ScriptedPlace::of(application, &self.scripts, || reads().unwrap_or_default())
    }

    /// Replaces the challenge of a scripted application by a challenge that names the place where
    /// the script looks for the credential.
    pub(in crate::pipeline) fn complete_challenge(&self, mut denial: Denial) -> Denial {
        let id = denial.fields_mut().challenger.take();
        let application = id.and_then(|id| self.policy.applications.get(&id));
        let Some(place) = application.and_then(|application| self.scripted_place(application))
        else {
            return denial;
        };
        let challenge = place.challenge(denial.phase);
        denial.with_challenges(vec![challenge])
    }

    /// The challenge for a request without a credential.
    pub(in crate::pipeline) fn challenge_of(
        &self,
        application: &CompiledApplication,
    ) -> HeaderValue {
        match self.scripted_place(application) {
            Some(place) => place.challenge(Phase::Header),
            None => application.challenge.clone(),
        }
    }
}

/// The challenge of an application, if its authentication type is a script that finds the
/// credential itself.
pub fn scripted_challenge(record: &Application, scripts: &ScriptSet) -> Option<String> {
    let application = CompiledApplication::new(record.clone(), None);
    let place = ScriptedPlace::of(&application, scripts, CredentialParts::default)?;
    place.challenge(Phase::Header).to_str().ok().map(str::to_owned)
}

/// The first header field in which a script looks for the credential, as the script declares it.
pub fn declared_header(name: &str, scripts: &ScriptSet) -> Option<String> {
    let declaration = scripts.auth(name)?.credential()?;
    declaration.parts.headers.first().map(title)
}

impl<'a> ScriptedPlace<'a> {
    /// `reads` returns the parts that the script has read.
    fn of(
        application: &'a CompiledApplication,
        scripts: &'a ScriptSet,
        reads: impl FnOnce() -> CredentialParts,
    ) -> Option<Self> {
        let script = scripts.auth(application.record.auth_type.script()?);
        let script = script.filter(|script| script.defines(Function::Header))?;
        let declaration = script.credential().map(|declaration| &**declaration);
        let parts = declaration.map_or_else(reads, |declaration| declaration.parts.clone());
        Some(Self { application, declaration, parts })
    }

    /// The place in words: `header field Authorization`.
    pub fn name(&self) -> String {
        self.parts.first().unwrap_or_else(|| format!("header field {}", self.application.header))
    }

    /// Whether the credential is in `Authorization`.
    pub fn is_authorization(&self) -> bool {
        self.parts.headers.first().is_some_and(|name| name == "authorization")
    }

    /// The description of a missing credential.
    pub fn description(&self) -> String {
        let scheme = self.declaration.and_then(|declaration| declaration.scheme.as_ref());
        let scheme = scheme.map(|scheme| format!(" with the scheme {scheme}")).unwrap_or_default();
        format!("The credential is missing. Send it in the {}{scheme}.", self.name())
    }

    /// The value of `WWW-Authenticate` (RFC 9110, section 11.6.1). A scheme that the script does
    /// not declare has the script's name.
    fn challenge(&self, phase: Phase) -> HeaderValue {
        let application = self.application;
        let declared = self.declaration.and_then(|declaration| declaration.scheme.as_deref());
        let scheme = declared.or(application.record.auth_type.script()).unwrap_or("ApiKey");
        let mut parameters = match self.parts.headers.as_slice() {
            // A scheme of `Authorization` needs no name of a field.
            [first, ..] if declared.is_some() && *first == "authorization" => String::new(),
            [] => String::new(),
            names => format!(", header=\"{}\"", join(names.iter().map(title))),
        };
        // A query and cookies have no names that need escaping, or they are left out.
        for (name, values) in [("query", &self.parts.parameters), ("cookie", &self.parts.cookies)] {
            let text = join(values.iter().cloned());
            let is_plain = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
            if !text.is_empty() && text.bytes().all(is_plain) {
                parameters.push_str(&format!(", {name}=\"{text}\""));
            }
        }
        if parameters.is_empty() && declared.is_none() {
            parameters = format!(", header=\"{}\"", application.record.header);
        }
        if scheme.eq_ignore_ascii_case("bearer") && phase != Phase::Header {
            parameters.push_str(", error=\"invalid_token\"");
        }
        let text = format!("{scheme} realm=\"{}\"{parameters}", application.quoted_realm());
        HeaderValue::from_str(&text).unwrap_or_else(|_| application.challenge.clone())
    }
}

fn join(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(" ")
}
