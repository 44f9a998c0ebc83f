//! Explains how a request is decided: runs the request through every phase, and reports the result
//! of each phase.
//!
//! The phases and their order are the same as for a real request, but the run has no lasting
//! effect: `rate_limit()` and `once()` do not record the call, scripts store no keys, and no
//! handler runs. The report contains no part of a credential. Parts of credentials are removed from
//! texts of scripts.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, header::ORIGIN};

use super::{
    Action, Candidate, Credential, Denial, Gate, Grant, Identity, Phase, Presented, Request,
    RequestContext,
    decode::{self, CredentialContent},
    header::{self, AUTH_METHOD},
    lookup::{self, KeyMatch, Proof},
    permit, verify,
};
use crate::model::{KeyId, PermissionSource, Secret};

/// A request to explain.
pub struct ExplainRequest {
    /// The method.
    pub method: Method,
    /// The path, with the query if there is one.
    pub target: String,
    /// The host, with the port if there is one.
    pub host: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// The body.
    pub body: Bytes,
}

/// The return type of [`Explain::explain`].
pub type ExplainFuture<'a> = Pin<Box<dyn Future<Output = Explanation> + Send + 'a>>;

/// Finds the route of a request and explains the decision. Implemented in a higher layer, because
/// this module does not know the routes.
pub trait Explain: Send + Sync {
    /// Runs a request through every phase.
    fn explain<'a>(&'a self, request: &'a ExplainRequest) -> ExplainFuture<'a>;
}

/// The result of a request, phase by phase.
#[derive(Debug)]
pub struct Explanation {
    /// The phases in their order. The first is the edge, which finds the route.
    pub phases: Vec<PhaseReport>,
    /// The denial that the client would get; `None` means that the handler would run.
    pub denial: Option<Denial>,
}

/// The result of one phase.
#[derive(Debug)]
pub struct PhaseReport {
    /// The phase.
    pub phase: Phase,
    /// The verdict of the phase.
    pub verdict: PhaseVerdict,
    /// The duration of the phase; `None` means that the request did not reach the phase.
    pub time: Option<Duration>,
    /// The findings of the phase.
    pub found: Vec<Finding>,
}

/// The verdict of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PhaseVerdict {
    /// The request passed.
    Passed,
    /// The request was refused.
    Refused,
    /// An earlier phase refused the request.
    NotReached,
}

/// A name and a value.
pub type Finding = (&'static str, String);

const PHASES: [Phase; 6] =
    [Phase::Edge, Phase::Header, Phase::Decode, Phase::Lookup, Phase::Verify, Phase::Permit];
/// The minimum length of a text that is treated as a secret, in bytes.
const MIN_SECRET: usize = 6;

impl Explanation {
    /// The explanation of a request that is refused before the first phase.
    pub fn unreadable(denial: Denial) -> Self {
        let mut reports = Reports::default();
        let result = Err::<(), _>(denial);
        let result = reports.add(Phase::Edge, Instant::now(), result, |()| Vec::new());
        Self { phases: reports.finish(), denial: result.err() }
    }

    /// The explanation of a preflight, which the edge treats without authentication.
    #[cfg(feature = "server")]
    pub(crate) fn of_preflight(found: Vec<Finding>) -> Self {
        let mut reports = Reports::default();
        let _ = reports.add(Phase::Edge, Instant::now(), Ok(()), |()| found);
        Self { phases: reports.finish(), denial: None }
    }

    /// Removes these secrets from all texts.
    fn redact(mut self, secrets: &[Secret]) -> Self {
        for (_, text) in self.phases.iter_mut().flat_map(|report| &mut report.found) {
            *text = redact(text, secrets);
        }
        if let Some(denial) = &mut self.denial {
            let fields = denial.fields_mut();
            fields.external_message = redact(&fields.external_message, secrets).into();
            fields.internal_message =
                fields.internal_message.take().map(|text| redact(&text, secrets).into());
            fields.code = redact(&fields.code, secrets).into();
            fields.headers.clear();
            fields.body = None;
        }
        self
    }
}

impl Gate {
    /// Runs a request through every phase. The context must be a [`Gate::dry_run_context`].
    pub async fn explain<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
    ) -> Explanation {
        let mut reports = Reports::default();
        // The edge lets every request pass, because the phase `permit` reports a missing route.
        let found = |action: &&Action<'_>| {
            let mut found = route(action);
            found.extend(cors(action, request));
            found
        };
        let _ = reports.add(Phase::Edge, Instant::now(), Ok(action), found);
        let result = self.explain_phases(context, request, action, &mut reports).await;
        let denial = match result.map_err(|denial| context.complete_challenge(denial)) {
            Ok(()) => None,
            Err(denial) => Some(self.on_denied(context, request, action.rule(), denial).await),
        };
        Explanation { phases: reports.finish(), denial }.redact(&secrets(request))
    }

    async fn explain_phases<'a>(
        &self,
        context: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        reports: &mut Reports,
    ) -> Result<(), Denial> {
        let start = Instant::now();
        let result = header::read(self, context, request, action).await;
        let found = |ticket: &Presented<'_>| presented(context, ticket);
        let presented = reports.add(Phase::Header, start, result, found)?;
        let start = Instant::now();
        let result = decode::parse(context, request, presented).await;
        let credential = reports.add(Phase::Decode, start, result, credential)?;
        let start = Instant::now();
        let result = lookup::find(self, context, request, credential).await;
        let candidate = reports.add(Phase::Lookup, start, result, candidate)?;
        let start = Instant::now();
        let result = verify::check(self, context, request, action, candidate).await;
        let identity = reports.add(Phase::Verify, start, result, identity)?;
        let start = Instant::now();
        let result = permit::decide(context, request, identity, action).await;
        reports.add(Phase::Permit, start, result, grant).map(drop)
    }
}

#[derive(Default)]
struct Reports(Vec<PhaseReport>);

impl Reports {
    /// Adds the report of a phase and returns the phase's result.
    fn add<T>(
        &mut self,
        phase: Phase,
        start: Instant,
        result: Result<T, Denial>,
        found: impl FnOnce(&T) -> Vec<Finding>,
    ) -> Result<T, Denial> {
        let time = Some(start.elapsed());
        let (verdict, found) = match &result {
            Ok(ticket) => (PhaseVerdict::Passed, found(ticket)),
            Err(denial) => (PhaseVerdict::Refused, refusal(denial)),
        };
        self.0.push(PhaseReport { phase, verdict, time, found });
        result
    }

    fn finish(mut self) -> Vec<PhaseReport> {
        for phase in PHASES.into_iter().skip(self.0.len()) {
            let verdict = PhaseVerdict::NotReached;
            self.0.push(PhaseReport { phase, verdict, time: None, found: Vec::new() });
        }
        self.0
    }
}

fn refusal(denial: &Denial) -> Vec<Finding> {
    let mut found = vec![
        ("status", denial.status.as_u16().to_string()),
        ("error", denial.code.to_string()),
        ("description", denial.external_message.to_string()),
    ];
    found.extend(denial.internal_message.as_ref().map(|message| ("detail", message.to_string())));
    found.extend(denial.hint.map(|hint| ("hint", hint.to_owned())));
    found
}

fn route(action: &Action<'_>) -> Vec<Finding> {
    let Some(rule) = action.rule() else {
        return vec![("resource", "none: no resource has this path and method".into())];
    };
    let mut found = vec![
        ("resource", rule.resource.id.clone()),
        ("path", rule.path.clone()),
        ("handler", rule.resource.handler.name().into_owned()),
    ];
    if !rule.resource.applications.is_empty() {
        found.push(("applications", rule.resource.applications.join(", ")));
    }
    if let Action::Misuse(_, denial) = action {
        found.push(("misuse", denial.external_message.to_string()));
    }
    found
}

/// Whether a page of the request's origin may read the response. `None` means that the request has
/// no origin, or that the resource has no CORS settings.
fn cors(action: &Action<'_>, request: &Request<'_>) -> Option<Finding> {
    let (cors, origin) = (action.rule()?.cors.as_ref()?, request.headers.get(ORIGIN)?);
    let verdict = if cors.allows_origin(origin) {
        "the origin is allowed, so its page may read the response"
    } else {
        "the origin is not among cors.origins, so its page may not read the response"
    };
    Some(("cors", verdict.into()))
}

fn anonymous() -> Vec<Finding> {
    vec![("credential", "none: the request is anonymous".into())]
}

fn length(name: &str, text: &str) -> String {
    format!("{name} ({} bytes)", text.len())
}

fn presented(context: &RequestContext, presented: &Presented<'_>) -> Vec<Finding> {
    let Some(credential) = presented.credential() else { return anonymous() };
    let record = &credential.application.record;
    let place = match context.scripted_place(credential.application) {
        Some(place) => place.name(),
        None => record.header.clone(),
    };
    let mut found = vec![
        ("application", record.id.clone()),
        ("type", record.auth_type.name().to_owned()),
        ("credential", length(&place, credential.text.as_str())),
    ];
    found.extend(credential.script.map(|script| ("script", script.file().to_owned())));
    found
}

/// The report omits the user's name: a client that swaps name and key by mistake sends the key as
/// the name.
fn credential(credential: &Credential<'_>) -> Vec<Finding> {
    let Some(decoded) = credential.decoded() else { return anonymous() };
    let key_id = |id: &Option<KeyId>| id.map(|id| ("key", id.to_string()));
    match &decoded.content {
        CredentialContent::NamedKey { pair, id } => {
            let mut found = vec![
                ("user", length("a name", pair.user())),
                ("secret", length("a key", pair.secret())),
            ];
            found.extend(key_id(id));
            found
        }
        CredentialContent::Key { text, id } => {
            let mut found = vec![("secret", length("a key", text.expose()))];
            found.extend(key_id(id));
            found
        }
        CredentialContent::Password { pair } => {
            vec![("user", length("a name", pair.user())), ("secret", "a password".to_owned())]
        }
        CredentialContent::Scripted(scripted) => {
            vec![("script", scripted.script.file().to_owned())]
        }
    }
}

fn candidate(candidate: &Candidate<'_>) -> Vec<Finding> {
    let Some(unverified) = candidate.unverified() else { return anonymous() };
    let mut found = match &unverified.user {
        Some(user) => vec![("user", user.name.to_string()), ("uid", user.uid.to_string())],
        None => vec![(
            "user",
            "none; the next phase refuses the request, and takes as long as for a user who exists"
                .into(),
        )],
    };
    match &unverified.proof {
        Proof::Key { key: KeyMatch::Indexed(Some((id, _))), .. }
        | Proof::Scripted(_, KeyMatch::Indexed(Some((id, _)))) => {
            found.push(("key", id.to_string()));
        }
        Proof::Key { key: KeyMatch::Indexed(None), .. } => {
            found.push(("key", "none with this id".into()));
        }
        Proof::Key { key: KeyMatch::Slow { keys, .. }, .. }
        | Proof::Scripted(_, KeyMatch::Slow { keys, .. }) => {
            found.push(("key", format!("one of {} with slow digests", keys.ids.len())));
        }
        Proof::Password { .. } | Proof::Scripted(_, KeyMatch::Indexed(None)) => {}
    }
    found
}

fn identity(identity: &Identity<'_>) -> Vec<Finding> {
    let Some(name) = identity.name() else { return anonymous() };
    let mut found = vec![("user", name.to_owned()), ("roles", identity.roles().join(", "))];
    found.extend(identity.key().map(|id| ("key", id.to_string())));
    found.extend(identity.scopes().map(|scopes| ("scopes", scopes.join(", "))));
    found
}

fn grant(grant: &Grant<'_>) -> Vec<Finding> {
    let permission = grant.rule().map(|rule| match rule.resource.permission {
        PermissionSource::Script => "granted by a script".to_owned(),
        PermissionSource::Records if rule.permissions.is_empty() => "none required".to_owned(),
        PermissionSource::Records => rule.permissions.join(", "),
    });
    let limits = grant.quota().describe().map(|limit| ("limit", limit));
    permission.map(|permission| ("permission", permission)).into_iter().chain(limits).collect()
}

/// All parts of the request that may be a credential, the longest part first. Each part is listed
/// in all forms in which a script may repeat it.
fn secrets(request: &Request<'_>) -> Vec<Secret> {
    /// Header fields that do not contain credentials.
    const HARMLESS: [&str; 5] = ["accept", "content-type", "content-length", "host", "user-agent"];
    let mut texts = Vec::new();
    for (name, value) in request.headers {
        if HARMLESS.contains(&name.as_str()) || *name == AUTH_METHOD {
            continue;
        }
        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        for part in text.split([' ', ',', ';', '=', '"']) {
            texts.push(part.to_owned());
            let Ok(pair) = STANDARD.decode(part) else { continue };
            let Ok(pair) = String::from_utf8(pair) else { continue };
            texts.extend(pair.split_once(':').map(|(_, secret)| secret.to_owned()));
            texts.push(pair);
        }
        texts.push(text);
    }
    for (_, value) in form_urlencoded::parse(request.query.unwrap_or_default().as_bytes()) {
        texts.push(value.into_owned());
    }
    texts.extend(request.query.map(str::to_owned));
    let mut secrets: Vec<Secret> =
        texts.into_iter().filter(|text| text.len() >= MIN_SECRET).map(Secret::new).collect();
    // A longer text is redacted before the shorter texts that it contains.
    secrets.sort_by_key(|text| std::cmp::Reverse(text.expose().len()));
    secrets
}

fn redact(text: &str, secrets: &[Secret]) -> String {
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "…"))
}
