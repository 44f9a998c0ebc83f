//! CORS: the fields with which a browser lets a page of another origin use a resource, and the
//! responses to preflights (Fetch standard, section 3.3).
//!
//! CORS protects the users of browsers. It is no access control: a request with an origin that is
//! not allowed is decided like any other request.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS,
        ACCESS_CONTROL_MAX_AGE, ORIGIN,
    },
};

use super::cache::vary_by;
use crate::{
    directory::{CompiledCors, Policy, RouteMatch, Rule},
    handlers::PayloadResponse,
    model::PreflightMode,
    pipeline::{Denial, Phase, Preflight, Request, may_pass_preflight},
};

const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");
/// The request fields on which the response to a preflight depends.
pub(crate) const PREFLIGHT_FIELDS: [&str; 3] =
    ["Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"];
const TRUE: HeaderValue = HeaderValue::from_static("true");
const EVERY: HeaderValue = HeaderValue::from_static("*");
/// The fields of denials that pages may read.
const DENIAL_FIELDS: [&str; 5] =
    ["WWW-Authenticate", "Retry-After", "RateLimit", "RateLimit-Policy", "X-Keyward-Hint"];

/// The way in which a preflight is treated.
pub(crate) enum PreflightResult<'a> {
    /// Keyward responds with these header fields.
    Allowed(HeaderMap),
    /// Keyward refuses.
    Refused(Denial),
    /// The application responds.
    Passed(&'a Rule),
}

/// The CORS fields of the response to one request.
pub(crate) struct CorsFields<'a> {
    cors: &'a CompiledCors,
    /// `None` means that the origin is not allowed, or that the request names none.
    allow_origin: Option<HeaderValue>,
}

/// The rule of a preflight at its path: the rule of the method that the page wants to use, or any
/// rule with CORS settings.
fn rule_of<'a>(found: &RouteMatch<'a, '_>, preflight: &Preflight<'_>) -> Option<&'a Rule> {
    let with_cors = |rule: &&Rule| rule.cors.is_some();
    let wanted = found.rule(preflight.method());
    wanted.filter(with_cors).or_else(|| found.rules().find(with_cors))
}

/// Decides about a request if the request is a preflight to a path with CORS settings. `None` means
/// that the request is treated like any other request.
pub(crate) fn preflight<'a>(
    policy: &Policy,
    request: &Request<'_>,
    found: &RouteMatch<'a, '_>,
) -> Option<PreflightResult<'a>> {
    let preflight = Preflight::of(request)?;
    let rule = rule_of(found, &preflight)?;
    let cors = rule.cors.as_ref()?;
    if cors.record().preflight == PreflightMode::Pass {
        return Some(PreflightResult::Passed(rule));
    }
    Some(match allow(policy, found, rule, cors, &preflight) {
        Ok(headers) => PreflightResult::Allowed(headers),
        Err(problem) => PreflightResult::Refused(refusal(&problem, &rule.resource.id)),
    })
}

/// The reason why a preflight is refused.
struct Problem {
    /// The part of the preflight that is not allowed.
    refused: String,
    /// The list in the resource's record that does not contain this part.
    list: &'static str,
}

fn allow(
    policy: &Policy,
    found: &RouteMatch<'_, '_>,
    rule: &Rule,
    cors: &CompiledCors,
    preflight: &Preflight<'_>,
) -> Result<HeaderMap, Problem> {
    let record = cors.record();
    let Some(origin) = allowed_origin(cors, Some(preflight.origin())) else {
        let origin = String::from_utf8_lossy(preflight.origin().as_bytes());
        return Err(Problem { refused: format!("origin {origin}"), list: "cors.origins" });
    };
    let methods = allowed_methods(found, rule);
    if !methods.contains(&preflight.method()) {
        let refused = format!("method {}", preflight.method());
        return Err(Problem { refused, list: "cors.methods" });
    }
    let mut headers = HeaderMap::new();
    let names = allowed_headers(policy, cors, preflight).map_err(|name| Problem {
        refused: format!("header field {name}"),
        list: "cors.headers",
    })?;
    if let Some(names) = names {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if record.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
    }
    if let Ok(methods) = HeaderValue::try_from(methods.join(", ")) {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, record.max_age.into());
    if record.private_network && preflight.asks_for_private_network() {
        headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
    vary_by(&mut headers, PREFLIGHT_FIELDS);
    Ok(headers)
}

/// The methods of the resource at this path that pages may use.
fn allowed_methods(found: &RouteMatch<'_, '_>, rule: &Rule) -> Vec<&'static str> {
    let mut methods = Vec::new();
    let Some(cors) = &rule.resource.cors else { return methods };
    for method in found.methods_of(&rule.resource.id) {
        let is_allowed = cors.allows_method(method);
        methods.extend(is_allowed.then_some(method));
        // `GET` includes `HEAD`.
        if method == "GET" && (is_allowed || cors.allows_method("HEAD")) {
            methods.push("HEAD");
        }
    }
    methods
}

/// The value of `Access-Control-Allow-Headers`. `None` means that pages may set no field.
///
/// # Errors
/// The page wants to set this field, and may not.
fn allowed_headers(
    policy: &Policy,
    cors: &CompiledCors,
    preflight: &Preflight<'_>,
) -> Result<Option<HeaderValue>, String> {
    let mut wanted = Vec::new();
    for name in preflight.header_names() {
        wanted.push(name.map_err(|()| "with an invalid name".to_owned())?);
    }
    let record = cors.record();
    let names: Vec<&str> = if record.allows_every_header() {
        // A browser does not read `*` as `Authorization`, so the response repeats the names.
        wanted.iter().map(HeaderName::as_str).collect()
    } else {
        let mut names: Vec<&str> = match &record.headers {
            Some(names) => names.iter().map(String::as_str).collect(),
            None => {
                let fields = policy.applications.credential_fields();
                fields.to_str().unwrap_or_default().split(", ").collect()
            }
        };
        if record.headers.is_none() {
            names.push("Content-Type");
        }
        let is_missing = |wanted: &&HeaderName| {
            !names.iter().any(|name| name.eq_ignore_ascii_case(wanted.as_str()))
        };
        if let Some(name) = wanted.iter().find(is_missing) {
            return Err(name.to_string());
        }
        names
    };
    Ok((!names.is_empty()).then(|| HeaderValue::try_from(names.join(", ")).ok()).flatten())
}

/// The denial of a preflight. It has no CORS fields, which is how a browser learns that the page
/// may not send its request.
fn refusal(problem: &Problem, resource: &str) -> Denial {
    let Problem { refused, list } = problem;
    let message = format!("Pages of other origins may not use this resource: {refused}.");
    let internal = format!("the {refused} is not in {list} of the resource {resource}");
    let mut denial = Denial::new(Phase::Edge, StatusCode::FORBIDDEN, "CORS_REFUSED", message)
        .with_internal_message(internal);
    vary_by(denial.headers_mut(), PREFLIGHT_FIELDS);
    denial
}

/// The response to a preflight that is allowed.
pub(crate) fn preflight_response(headers: HeaderMap) -> PayloadResponse {
    let mut response = PayloadResponse::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    response
}

/// The header fields of a preflight that the application gets.
pub(crate) fn preflight_fields(headers: &HeaderMap) -> HeaderMap {
    let passed = headers.iter().filter(|(name, _)| may_pass_preflight(name));
    passed.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The value of `Access-Control-Allow-Origin`. `None` means that the origin is not allowed.
fn allowed_origin(cors: &CompiledCors, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    if cors.record().allows_every_origin() {
        return Some(EVERY);
    }
    origin.filter(|origin| cors.allows_origin(origin)).cloned()
}

impl<'a> CorsFields<'a> {
    pub fn new(cors: &'a CompiledCors, headers: &HeaderMap) -> Self {
        let mut origins = headers.get_all(ORIGIN).iter();
        let origin = origins.next().filter(|_| origins.next().is_none());
        Self { cors, allow_origin: allowed_origin(cors, origin) }
    }

    /// The request fields on which the response depends because of CORS.
    pub fn vary(&self) -> &'static [&'static str] {
        if self.cors.record().allows_every_origin() { &[] } else { &["Origin"] }
    }

    /// Replaces the CORS fields of a response.
    pub fn write(&self, headers: &mut HeaderMap) {
        self.write_with(self.cors.expose().cloned(), headers);
    }

    /// Adds the CORS fields to the fields of a denial.
    pub fn write_denial(&self, headers: &mut HeaderMap) {
        let exposed = self.cors.record().expose.iter().map(String::as_str);
        let names: Vec<&str> = exposed.chain(DENIAL_FIELDS).collect();
        self.write_with(HeaderValue::try_from(names.join(", ")).ok(), headers);
        vary_by(headers, self.vary().iter().copied());
    }

    fn write_with(&self, expose: Option<HeaderValue>, headers: &mut HeaderMap) {
        let replaced: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .cloned()
            .collect();
        for name in replaced {
            headers.remove(name);
        }
        let Some(origin) = &self.allow_origin else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.record().credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(expose) = expose {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
        }
    }
}
