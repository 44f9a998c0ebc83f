//! The first room: which application serves the request, and is there a credential in the header field that it reads.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Action, Denial, Face, Gate, Phase, Request, RequestContext, scripts::script_views};
use crate::{
    directory::{CompiledApplication, Policy},
    model::{AuthType, Secret},
    scripting::{Function, Script},
};

/// The header field that names the application.
pub const AUTH_METHOD: HeaderName = HeaderName::from_static("auth-method");

const DROPPED: &str = "If the client did send Authorization, a proxy in between has dropped it: have it passed on, or use an application that reads another header.";

/// A credential as it came, or the fact that the request is anonymous.
#[derive(Debug)]
pub struct Presented<'a> {
    given: Option<Given<'a>>,
}

/// A credential of an application.
pub(super) struct Given<'a> {
    pub application: &'a CompiledApplication,
    /// The script that the application's authentication type is made of.
    pub script: Option<&'a Script>,
    /// The field's value, without the scheme; or what the script has found.
    pub text: Text<'a>,
}

/// A credential as it came, wherever it came from.
pub(super) enum Text<'a> {
    Field(&'a str),
    Found(Secret),
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Field(text) => text,
            Self::Found(text) => text.expose(),
        }
    }
}

impl std::fmt::Debug for Given<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Given({})", self.application.record.id)
    }
}

impl<'a> Presented<'a> {
    const ANONYMOUS: Self = Self { given: None };

    pub(super) fn given(&self) -> Option<&Given<'a>> {
        self.given.as_ref()
    }

    pub(super) fn into_given(self) -> Option<Given<'a>> {
        self.given
    }
}

/// Reads the credential.
///
/// The request is anonymous where its application is switched off, and where it brings no credential to a resource that lists `anonymous`.
///
/// # Errors
/// No application, an unknown one, no credential, or a field that cannot hold one; or a script refuses.
pub async fn read<'a>(
    gate: &Gate,
    scene: &'a RequestContext,
    request: &Request<'a>,
    action: &Action<'a>,
) -> Result<Presented<'a>, Denial> {
    if let Some(hooked) = scene.hooks(Function::OnRequest, request, action.rule()) {
        Box::pin(hooked.on_request()).await?;
    }
    let Some(application) = choose(&scene.policy, request)? else {
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
    let script = scene.script_of(application)?;
    let found = match script.filter(|script| script.defines(Function::Header)) {
        Some(script) => {
            let found = Box::pin(script.header(scene.asked(request))).await;
            let found = found
                .map_err(|fault| script_views::denied(Phase::Header, Some(application), fault))?;
            found.map(Text::Found)
        }
        None => field(application, request, gate.0.credential_bytes)?.map(Text::Field),
    };
    match found {
        Some(text) => Ok(Presented { given: Some(Given { application, script, text }) }),
        None if action.admits_anonymous() => Ok(Presented::ANONYMOUS),
        None => Err(missing(application)),
    }
}

/// The credential in the header field that the application reads, if it is there.
fn field<'a>(
    application: &CompiledApplication,
    request: &Request<'a>,
    limit: usize,
) -> Result<Option<&'a str>, Denial> {
    only(request.headers, &application.header)
        .map_err(|Duplicate| malformed(application, "the header came more than once"))?
        .map(|value| credential(application, value, limit))
        .transpose()
}

/// The application that `AUTH-METHOD` names, or else the default one.
fn choose<'a>(
    policy: &'a Policy,
    request: &Request<'a>,
) -> Result<Option<&'a CompiledApplication>, Denial> {
    let unknown = |detail: &'static str| {
        Denial::new(
            Phase::Header,
            StatusCode::BAD_REQUEST,
            "INVALID_APPLICATION_ID",
            "The provided application ID is not valid or not configured.",
        )
        .with_detail(detail)
    };
    let named = only(request.headers, &AUTH_METHOD)
        .map_err(|Duplicate| unknown("AUTH-METHOD came more than once"))?;
    let Some(value) = named else {
        return Ok(policy.applications.default().map(|held| &**held));
    };
    let id = value.to_str().map_err(|_| unknown("AUTH-METHOD is not text"))?.trim();
    let operator = policy.applications.operator();
    if request.face == Face::Admin && id == operator.record.id {
        return Ok(Some(operator));
    }
    match policy.applications.get(id) {
        Some(held) => Ok(Some(held)),
        None => Err(unknown("there is no application of the name in AUTH-METHOD")),
    }
}

/// The credential in the header field's value.
fn credential<'a>(
    application: &CompiledApplication,
    value: &'a HeaderValue,
    limit: usize,
) -> Result<&'a str, Denial> {
    if value.len() > limit {
        return Err(malformed(application, "the header is larger than limits.credential_bytes"));
    }
    let text = value.to_str().map_err(|_| malformed(application, "the header is not text"))?.trim();
    let text = match application.record.reads_authorization() {
        true => after_scheme(application, text)?,
        false => text,
    };
    if text.is_empty() {
        return Err(malformed(application, "the header holds no credential"));
    }
    Ok(text)
}

/// What follows the authentication scheme, whose name has no case (RFC 9110, section 11.1).
fn after_scheme<'a>(application: &CompiledApplication, text: &'a str) -> Result<&'a str, Denial> {
    let (scheme, description) = match &application.record.auth_type {
        AuthType::ApiKey | AuthType::Basic => {
            ("Basic", "Authorization header must be of type Basic.")
        }
        AuthType::Bearer => ("Bearer", "Authorization header must be of type Bearer."),
        // Which schemes it takes is the script's business.
        AuthType::Script(_) => {
            return Ok(text.split_once(' ').map_or("", |(_, rest)| rest.trim_start()));
        }
    };
    let (given, rest) = text.split_once(' ').unwrap_or((text, ""));
    if !given.eq_ignore_ascii_case(scheme) {
        let code = "INVALID_AUTHORIZATION_HEADER_TYPE";
        return Err(Denial::unauthorized(Phase::Header, application, code, description));
    }
    Ok(rest.trim_start())
}

fn missing(application: &CompiledApplication) -> Denial {
    if application.record.reads_authorization() {
        let code = "MISSING_AUTHORIZATION_HEADER";
        let said = "Authorization header not received";
        Denial::unauthorized(Phase::Header, application, code, said).with_hint(DROPPED)
    } else {
        let code = "MISSING_API_KEY_HEADER";
        Denial::unauthorized(Phase::Header, application, code, "API key header is missing.")
    }
}

/// A credential that cannot be read, in this room or the next.
pub(super) fn malformed(application: &CompiledApplication, detail: &'static str) -> Denial {
    let (code, said) = if application.record.reads_authorization() {
        ("INVALID_AUTHORIZATION_HEADER", "Authorization header format is invalid.")
    } else {
        ("INVALID_API_KEY_FORMAT", "API key format is invalid.")
    };
    Denial::unauthorized(Phase::Decode, application, code, said).with_detail(detail)
}

/// A header field that came more than once: whoever passed the request on may have looked at the other one.
struct Duplicate;

fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Duplicate> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Duplicate),
    }
}
