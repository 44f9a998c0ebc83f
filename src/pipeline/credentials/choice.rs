//! Chooses the application of a request to a resource that lists several applications, by the
//! credential that the request carries.

use http::{HeaderName, HeaderValue, StatusCode, header::AUTHORIZATION};

use super::{CompiledApplication, Denial, Phase, Request, RequestContext};
use crate::{
    directory::Rule,
    model::AuthType,
    scripting::{CredentialDeclaration, Function},
};

/// The application that serves a request.
pub(in crate::pipeline) enum Choice<'a> {
    /// The request carries a credential of this application.
    Application(&'a CompiledApplication),
    /// The request carries no credential of the listed applications.
    NoCredential {
        /// The first application that is enabled. `None` means that all are disabled.
        first: Option<&'a CompiledApplication>,
        /// The challenges of all enabled applications, in the order of the list.
        challenges: Vec<HeaderValue>,
    },
}

/// The parts of a request in which an application finds its credential.
type Places = Vec<(&'static str, String)>;

impl RequestContext {
    /// Chooses among the applications that the resource lists.
    ///
    /// If the request carries the credentials of two applications in different places, it is
    /// refused: a program behind Keyward could read the other credential. Two applications that
    /// read the same place are not ambiguous, and the first of them is chosen.
    ///
    /// # Errors
    /// The request is ambiguous, or a listed application does not exist.
    pub(in crate::pipeline) fn choose_listed(
        &self,
        request: &Request<'_>,
        rule: &Rule,
    ) -> Result<Choice<'_>, Denial> {
        let mut listed = Vec::with_capacity(rule.resource.applications.len());
        for id in &rule.resource.applications {
            let application = self.policy.applications.get(id);
            let application = application.ok_or_else(|| missing_application(rule, id))?;
            listed.push((&**application, self.places(application, request)));
        }
        let mut found = listed.iter().filter(|(_, places)| !places.is_empty());
        if let Some((application, places)) = found.next() {
            let mut ids = vec![application.record.id.as_str()];
            ids.extend(
                found.filter(|(_, others)| others != places).map(|(other, _)| &*other.record.id),
            );
            if ids.len() > 1 {
                return Err(ambiguous_credential(&ids.join(", ")));
            }
            return Ok(Choice::Application(application));
        }
        let enabled = listed.iter().map(|(application, _)| *application);
        let enabled: Vec<_> = enabled.filter(|application| application.record.enabled).collect();
        let challenges = enabled.iter().map(|application| self.challenge_of(application)).collect();
        Ok(Choice::NoCredential { first: enabled.first().copied(), challenges })
    }

    /// The places in which the request carries a credential of the application.
    fn places(&self, application: &CompiledApplication, request: &Request<'_>) -> Places {
        let scheme = match &application.record.auth_type {
            AuthType::ApiKey | AuthType::Basic => Some("Basic"),
            AuthType::Bearer => Some("Bearer"),
            AuthType::Script(name) => {
                let script = self.scripts.auth(name);
                let script = script.filter(|script| script.defines(Function::Header));
                if let Some(declared) = script.and_then(|script| script.credential()) {
                    return declared_places(declared, request);
                }
                None
            }
        };
        header_place(&application.header, scheme, request).into_iter().collect()
    }
}

/// The places in which the request carries a credential that a script has declared.
fn declared_places(declared: &CredentialDeclaration, request: &Request<'_>) -> Places {
    if let Some(scheme) = &declared.scheme {
        return header_place(&AUTHORIZATION, Some(scheme), request).into_iter().collect();
    }
    let parts = &declared.parts;
    let mut places = Places::new();
    places.extend(parts.headers.iter().filter_map(|name| header_place(name, None, request)));
    let query = request.query.unwrap_or_default();
    for name in &parts.parameters {
        if form_urlencoded::parse(query.as_bytes()).any(|(known, _)| known == *name) {
            places.push(("query", name.clone()));
        }
    }
    let cookies = request.headers.get_all(http::header::COOKIE).iter();
    let cookies: Vec<_> = cookies.map(|field| String::from_utf8_lossy(field.as_bytes())).collect();
    for name in &parts.cookies {
        let mut pairs = cookies.iter().flat_map(|field| field.split(';'));
        if pairs.any(|pair| pair.split('=').next().is_some_and(|known| known.trim() == name)) {
            places.push(("cookie", name.clone()));
        }
    }
    places
}

/// The header field, if the request has it. In `Authorization`, the scheme must match.
fn header_place(
    name: &HeaderName,
    scheme: Option<&str>,
    request: &Request<'_>,
) -> Option<(&'static str, String)> {
    let has_scheme = |value: &HeaderValue| {
        let Some(scheme) = scheme.filter(|_| *name == AUTHORIZATION) else { return true };
        let given = value.as_bytes().trim_ascii_start().split(|byte| *byte == b' ').next();
        given.is_some_and(|given| given.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    let mut values = request.headers.get_all(name).iter();
    values.any(has_scheme).then(|| ("header", name.as_str().to_owned()))
}

fn ambiguous_credential(ids: &str) -> Denial {
    Denial::new(
        Phase::Header,
        StatusCode::BAD_REQUEST,
        "AMBIGUOUS_CREDENTIAL",
        "The request has the credentials of several applications. Send only one, or choose the application with AUTH-METHOD.",
    )
    .with_internal_message(format!("the request has credentials of the applications {ids}"))
}

/// The denial if the resource lists an application that does not exist. Without its record, nobody
/// knows whether the request carries its credential.
fn missing_application(rule: &Rule, id: &str) -> Denial {
    Denial::new(
        Phase::Header,
        StatusCode::SERVICE_UNAVAILABLE,
        "APPLICATION_UNAVAILABLE",
        "The request could not be decided.",
    )
    .with_internal_message(format!(
        "the resource {} lists the application {id}, which does not exist; create the application, or remove it from the resource's applications",
        rule.resource.id
    ))
}
