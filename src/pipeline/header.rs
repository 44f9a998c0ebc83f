//! Phase 1, header: chooses the application, and reads the credential from its header field.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    Action, Denial, Face, Gate, Phase, Request, RequestContext,
    credentials::{Choice, hints},
    scripts::script_views,
};
use crate::{
    directory::{CompiledApplication, Policy, Rule},
    limits::Standing,
    model::{AuthType, Secret},
    scripting::{Function, Script},
};

/// The header field that names the application.
pub const AUTH_METHOD: HeaderName = HeaderName::from_static("auth-method");

/// The result of this phase, and the input of the decode phase: a credential as presented, or an
/// anonymous request.
#[derive(Debug)]
pub struct Presented<'a> {
    credential: Option<PresentedCredential<'a>>,
}

/// A credential that was presented to an application.
pub(super) struct PresentedCredential<'a> {
    pub application: &'a CompiledApplication,
    /// The script of the application's authentication type. `None` means a built-in type.
    pub script: Option<&'a Script>,
    pub text: PresentedText<'a>,
}

/// The text of a credential as presented.
pub(super) enum PresentedText<'a> {
    /// The value of the header field, without the authentication scheme.
    Field(&'a str),
    /// The return value of the script's `header` function.
    Scripted(Secret),
}

impl PresentedText<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Field(text) => text,
            Self::Scripted(text) => text.expose(),
        }
    }
}

impl std::fmt::Debug for PresentedCredential<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PresentedCredential({})", self.application.record.id)
    }
}

impl<'a> Presented<'a> {
    const ANONYMOUS: Self = Self { credential: None };

    pub(super) fn credential(&self) -> Option<&PresentedCredential<'a>> {
        self.credential.as_ref()
    }

    pub(super) fn into_credential(self) -> Option<PresentedCredential<'a>> {
        self.credential
    }
}

/// Reads the credential.
///
/// The result is an anonymous request in three cases:
/// - the chosen application is disabled;
/// - no application is chosen, and the action admits anonymous requests;
/// - the credential is missing, and the action admits anonymous requests.
///
/// If the action does not admit anonymous requests, the second and the third case are errors. A
/// request to a disabled application goes on, and the permit phase decides whether it may pass.
///
/// # Errors
/// No application is chosen, the application is unknown, the credential is missing, the header
/// field is malformed, or a script refuses the request.
pub async fn read<'a>(
    gate: &Gate,
    context: &'a RequestContext,
    request: &Request<'a>,
    action: &Action<'a>,
) -> Result<Presented<'a>, Denial> {
    if let Some(hooks) = context.hooks(Function::OnRequest, request, action.rule()) {
        Box::pin(hooks.on_request()).await?;
    }
    read_credential(gate, context, request, action).await
}

/// [`read`] for a request whose `on_request` hooks have run.
pub(super) async fn read_credential<'a>(
    gate: &Gate,
    context: &'a RequestContext,
    request: &Request<'a>,
    action: &Action<'a>,
) -> Result<Presented<'a>, Denial> {
    let application = match listing_rule(action) {
        Some(rule) => match choose_listed(context, request, rule)? {
            Choice::Application(application) => Some(application),
            Choice::NoCredential { first: None, .. } => return Ok(Presented::ANONYMOUS),
            Choice::NoCredential { .. } if action.admits_anonymous() => {
                return Ok(Presented::ANONYMOUS);
            }
            Choice::NoCredential { first: Some(first), challenges } => {
                let mut denial = missing(context, request, first).with_challenges(challenges);
                denial.fields_mut().challenger = None;
                return Err(denial);
            }
        },
        None => choose_application(&context.policy, request)?,
    };
    let Some(application) = application else {
        if action.admits_anonymous() {
            return Ok(Presented::ANONYMOUS);
        }
        return Err(Denial::new(
            Phase::Header,
            StatusCode::BAD_REQUEST,
            "MISSING_HEADER",
            "Missing required unique header. It should contain the application ID, or a default application must be configured.",
        ));
    };
    if !application.record.enabled {
        return Ok(Presented::ANONYMOUS);
    }
    let script = context.script_of(application)?;
    let text = match script.filter(|script| script.defines(Function::Header)) {
        Some(script) => {
            context.wait_for_body(script, Function::Header, Standing::Unknown).await?;
            let text = Box::pin(script.header(context.script_request(request))).await;
            let denied = |fault| script_views::denial_of(Phase::Header, Some(application), fault);
            text.map_err(denied)?.map(PresentedText::Scripted)
        }
        None => {
            let limit = gate.0.credential_bytes;
            field_text(application, request, limit)?.map(PresentedText::Field)
        }
    };
    match text {
        Some(text) => {
            Ok(Presented { credential: Some(PresentedCredential { application, script, text }) })
        }
        None if action.admits_anonymous() => Ok(Presented::ANONYMOUS),
        None => Err(missing(context, request, application)),
    }
}

/// The credential in the header field that the application reads; `None` means there is no such
/// field.
fn field_text<'a>(
    application: &CompiledApplication,
    request: &Request<'a>,
    limit: usize,
) -> Result<Option<&'a str>, Denial> {
    single_value(request.headers, &application.header)
        .map_err(|Duplicate| malformed(application, "the header field is present more than once"))?
        .map(|value| credential_text(application, value, limit))
        .transpose()
}

/// The rule of a resource that lists applications.
fn listing_rule<'a>(action: &Action<'a>) -> Option<&'a Rule> {
    action.rule().filter(|rule| !rule.resource.applications.is_empty())
}

/// The application that `AUTH-METHOD` names, or else the listed application whose credential the
/// request carries. A listed application must be named.
fn choose_listed<'a>(
    context: &'a RequestContext,
    request: &Request<'a>,
    rule: &Rule,
) -> Result<Choice<'a>, Denial> {
    let Some(application) = named_application(&context.policy, request)? else {
        return context.choose_listed(request, rule);
    };
    if !rule.resource.lists_application(&application.record.id) {
        return Err(unknown("AUTH-METHOD names an application that the resource does not list"));
    }
    Ok(Choice::Application(application))
}

/// The application that `AUTH-METHOD` names, or else the default application.
fn choose_application<'a>(
    policy: &'a Policy,
    request: &Request<'a>,
) -> Result<Option<&'a CompiledApplication>, Denial> {
    let named = named_application(policy, request)?;
    Ok(named.or_else(|| policy.applications.default().map(|application| &**application)))
}

fn unknown(internal_message: &'static str) -> Denial {
    Denial::new(
        Phase::Header,
        StatusCode::BAD_REQUEST,
        "INVALID_APPLICATION_ID",
        "The provided application ID is not valid or not configured.",
    )
    .with_internal_message(internal_message)
}

/// The application that `AUTH-METHOD` names.
fn named_application<'a>(
    policy: &'a Policy,
    request: &Request<'a>,
) -> Result<Option<&'a CompiledApplication>, Denial> {
    let id_field = single_value(request.headers, &AUTH_METHOD)
        .map_err(|Duplicate| unknown("AUTH-METHOD is present more than once"))?;
    let Some(value) = id_field else { return Ok(None) };
    let id = value.to_str().map_err(|_| unknown("AUTH-METHOD is not text"))?.trim();
    let operator = policy.applications.operator();
    if request.face == Face::Admin && id == operator.record.id {
        return Ok(Some(operator));
    }
    match policy.applications.get(id) {
        Some(application) => Ok(Some(application)),
        None => Err(unknown("AUTH-METHOD names an application that does not exist")),
    }
}

/// The credential in the header field's value.
fn credential_text<'a>(
    application: &CompiledApplication,
    value: &'a HeaderValue,
    limit: usize,
) -> Result<&'a str, Denial> {
    let reject = |message| malformed(application, message);
    if value.len() > limit {
        return Err(reject("the header field is larger than limits.credential_bytes"));
    }
    let mut text = value.to_str().map_err(|_| reject("the header field is not text"))?.trim();
    if application.record.reads_authorization() {
        text = after_scheme(application, text)?;
    }
    if text.is_empty() {
        return Err(reject("the header field contains no credential"));
    }
    Ok(text)
}

/// The text after the name of the authentication scheme. The name is case-insensitive (RFC 9110,
/// section 11.1).
fn after_scheme<'a>(application: &CompiledApplication, text: &'a str) -> Result<&'a str, Denial> {
    let (scheme, message) = match &application.record.auth_type {
        AuthType::ApiKey | AuthType::Basic => {
            ("Basic", "Authorization header must be of type Basic.")
        }
        AuthType::Bearer => ("Bearer", "Authorization header must be of type Bearer."),
        // The script may accept any scheme.
        AuthType::Script(_) => {
            return Ok(text.split_once(' ').map_or("", |(_, rest)| rest.trim_start()));
        }
    };
    let (given, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !given.eq_ignore_ascii_case(scheme) {
        let code = "INVALID_AUTHORIZATION_HEADER_TYPE";
        let denial = Denial::unauthorized(Phase::Header, application, code, message);
        return Err(denial.with_hint_of(application, || hints::wanted(application)));
    }
    Ok(rest.trim_start())
}

fn missing(
    context: &RequestContext,
    request: &Request<'_>,
    application: &CompiledApplication,
) -> Denial {
    let place = context.scripted_place(application);
    let is_authorization = match &place {
        Some(place) => place.is_authorization(),
        None => application.record.reads_authorization(),
    };
    let deny = |code: &'static str, message: Cow<'static, str>| {
        let hint = || hints::missing(application, request.headers, is_authorization);
        Denial::unauthorized(Phase::Header, application, code, message)
            .with_hint_of(application, hint)
    };
    if is_authorization {
        let message = "Authorization header not received".into();
        return deny("MISSING_AUTHORIZATION_HEADER", message);
    }
    let code = "MISSING_API_KEY_HEADER";
    match place {
        Some(place) => deny(code, place.description().into()),
        None => deny(code, "API key header is missing.".into()),
    }
}

/// The denial of a malformed credential. Both this phase and the decode phase use it. The denial
/// always names the decode phase, so that each error code belongs to one phase.
pub(super) fn malformed(
    application: &CompiledApplication,
    internal_message: &'static str,
) -> Denial {
    let (code, message) = if application.record.reads_authorization() {
        ("INVALID_AUTHORIZATION_HEADER", "Authorization header format is invalid.")
    } else {
        ("INVALID_API_KEY_FORMAT", "API key format is invalid.")
    };
    Denial::unauthorized(Phase::Decode, application, code, message)
        .with_internal_message(internal_message)
        .with_hint_of(application, || hints::wanted(application))
}

/// The error for a header field that is present more than once. A proxy in front of Keyward may
/// have checked one value while Keyward checks the other value, so Keyward refuses the request.
struct Duplicate;

fn single_value<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Duplicate> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Duplicate),
    }
}
