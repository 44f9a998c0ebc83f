//! One request through every room, and what each room said: for an administrator who asks why.
//!
//! It is the same five rooms, called in the same order. What differs is what would stay behind: `rate_limit()` and `once()` look and do not count,
//! no key is taken over, and no handler runs. Nothing of a credential is told, and what scripts say is searched for it.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::{
    Action, Candidate, Credential, Denial, Gate, Grant, Identity, Phase, Presented, Request,
    RequestContext,
    decode::{self, DecodedProof},
    header::{self, AUTH_METHOD},
    lookup::{self, KeyMatch, Proof},
    permit, verify,
};
use crate::model::{PermissionSource, Secret};

/// A request that somebody asks about.
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path, with the query if there is one.
    pub target: String,
    /// The host, with the port if there is one.
    pub host: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// Where it comes from.
    pub client: IpAddr,
    /// The body.
    pub body: Bytes,
}

/// What [`Explain::explain`] returns.
pub type Explaining<'a> = Pin<Box<dyn Future<Output = Explanation> + Send + 'a>>;

/// Whoever knows where requests lead.
pub trait Explain: Send + Sync {
    /// Leads a request through every room.
    fn explain<'a>(&'a self, asked: &'a Asked) -> Explaining<'a>;
}

/// What became of a request, room by room.
#[derive(Debug)]
pub struct Explanation {
    /// The rooms, in their order. The first is the edge: where the request leads.
    pub steps: Vec<Step>,
    /// What the client would be told; none: the request goes on to its handler.
    pub denial: Option<Denial>,
}

/// What one room said.
#[derive(Debug)]
pub struct Step {
    /// The room.
    pub room: Phase,
    /// What it said.
    pub verdict: Verdict,
    /// How long it took; none: nobody came so far.
    pub time: Option<Duration>,
    /// What it found.
    pub found: Vec<Fact>,
}

/// What a room says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may go on.
    Passed,
    /// It is refused.
    Refused,
    /// Another room has refused it before.
    NotReached,
}

/// A name and what stands there.
pub type Fact = (&'static str, String);

const ROOMS: [Phase; 6] =
    [Phase::Edge, Phase::Header, Phase::Decode, Phase::Lookup, Phase::Verify, Phase::Permit];
/// The fewest bytes of a text that is searched for as a secret.
const SECRET: usize = 6;

impl Explanation {
    /// A request that is refused before any room.
    pub fn unreadable(denial: Denial) -> Self {
        let mut steps = Steps::default();
        let refused =
            steps.take(Phase::Edge, Instant::now(), Err::<(), _>(denial), |()| Vec::new());
        Self { steps: steps.finish(), denial: refused.err() }
    }

    /// Takes secrets out of all that is said.
    fn without(mut self, hidden: &[Secret]) -> Self {
        for (_, text) in self.steps.iter_mut().flat_map(|step| &mut step.found) {
            *text = blotted(text, hidden);
        }
        if let Some(denial) = &mut self.denial {
            let parts = denial.parts_mut();
            parts.description = blotted(&parts.description, hidden).into();
            parts.detail = parts.detail.take().map(|text| blotted(&text, hidden).into());
            parts.code = blotted(&parts.code, hidden).into();
            parts.headers.clear();
            parts.body = None;
        }
        self
    }
}

impl Gate {
    /// Leads a request through every room. The scene is one of [`Gate::dry_run_context`].
    pub async fn explain<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
    ) -> Explanation {
        let mut steps = Steps::default();
        let begun = Instant::now();
        // It never refuses: where nothing is, is told to those who may come in.
        let _ = steps.take(Phase::Edge, begun, Ok(action), |action| aimed(action));
        let walked = self.walk(scene, request, action, &mut steps).await;
        let denial = match walked {
            Ok(()) => None,
            Err(denial) => Some(self.on_denied(scene, request, action.rule(), denial).await),
        };
        Explanation { steps: steps.finish(), denial }.without(&hidden(request))
    }

    async fn walk<'a>(
        &self,
        scene: &'a RequestContext,
        request: &Request<'a>,
        action: &Action<'a>,
        steps: &mut Steps,
    ) -> Result<(), Denial> {
        let begun = Instant::now();
        let said = header::read(self, scene, request, action).await;
        let presented = steps.take(Phase::Header, begun, said, presented)?;
        let begun = Instant::now();
        let said = decode::parse(scene, request, presented).await;
        let credential = steps.take(Phase::Decode, begun, said, credential)?;
        let begun = Instant::now();
        let said = lookup::find(self, scene, request, credential).await;
        let candidate = steps.take(Phase::Lookup, begun, said, candidate)?;
        let begun = Instant::now();
        let said = verify::check(self, scene, request, action, candidate).await;
        let identity = steps.take(Phase::Verify, begun, said, identity)?;
        let begun = Instant::now();
        let said = permit::decide(scene, request, identity, action).await;
        steps.take(Phase::Permit, begun, said, granted).map(drop)
    }
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    /// Writes down what a room said, and hands it on.
    fn take<T>(
        &mut self,
        room: Phase,
        begun: Instant,
        said: Result<T, Denial>,
        found: impl FnOnce(&T) -> Vec<Fact>,
    ) -> Result<T, Denial> {
        let time = Some(begun.elapsed());
        let (verdict, found) = match &said {
            Ok(ticket) => (Verdict::Passed, found(ticket)),
            Err(denial) => (Verdict::Refused, refused(denial)),
        };
        self.0.push(Step { room, verdict, time, found });
        said
    }

    fn finish(mut self) -> Vec<Step> {
        for room in ROOMS.into_iter().skip(self.0.len()) {
            let verdict = Verdict::NotReached;
            self.0.push(Step { room, verdict, time: None, found: Vec::new() });
        }
        self.0
    }
}

fn refused(denial: &Denial) -> Vec<Fact> {
    let mut found = vec![
        ("status", denial.status.as_u16().to_string()),
        ("error", denial.code.clone().into_owned()),
        ("description", denial.description.clone().into_owned()),
    ];
    found.extend(denial.detail.clone().map(|detail| ("detail", detail.into_owned())));
    found
}

fn aimed(action: &Action<'_>) -> Vec<Fact> {
    let Some(rule) = action.rule() else {
        return vec![("resource", "none: there is no such path, or not with this method".into())];
    };
    let mut found = vec![
        ("resource", rule.resource.id.clone()),
        ("path", rule.path.clone()),
        ("handler", rule.resource.handler.name().into_owned()),
    ];
    if let Action::Misuse(_, denial) = action {
        found.push(("misuse", denial.description.clone().into_owned()));
    }
    found
}

fn anonymous() -> Vec<Fact> {
    vec![("credential", "none: the request is anonymous".into())]
}

fn bytes(what: &str, text: &str) -> String {
    format!("{what} ({} bytes)", text.len())
}

fn presented(presented: &Presented<'_>) -> Vec<Fact> {
    let Some(given) = presented.given() else { return anonymous() };
    let record = &given.application.record;
    let mut found = vec![
        ("application", record.id.clone()),
        ("type", record.auth_type.name().to_owned()),
        ("credential", bytes(&record.header, given.text.as_str())),
    ];
    found.extend(given.script.map(|script| ("script", script.file().to_owned())));
    found
}

/// The user's name is not told here: who has mixed up the two would see the key.
fn credential(credential: &Credential<'_>) -> Vec<Fact> {
    let Some(claim) = credential.claim() else { return anonymous() };
    let key_id = |id: &Option<crate::model::KeyId>| id.map(|id| ("key", id.to_string()));
    match &claim.proof {
        DecodedProof::NamedKey { pair, id } => {
            let mut found = vec![
                ("user", bytes("a name", pair.user())),
                ("secret", bytes("a key", pair.secret())),
            ];
            found.extend(key_id(id));
            found
        }
        DecodedProof::Key { text, id } => {
            let mut found = vec![("secret", bytes("a key", text.expose()))];
            found.extend(key_id(id));
            found
        }
        DecodedProof::Password { pair } => {
            vec![("user", bytes("a name", pair.user())), ("secret", "a password".to_owned())]
        }
        DecodedProof::Scripted(scripted) => vec![("script", scripted.script.file().to_owned())],
    }
}

fn candidate(candidate: &Candidate<'_>) -> Vec<Fact> {
    let Some(suspect) = candidate.suspect() else { return anonymous() };
    let mut found = Vec::new();
    match &suspect.member {
        Some(member) => {
            found.push(("user", member.name.to_string()));
            found.push(("uid", member.uid.to_string()));
        }
        None => found.push(("user", "none; the next room refuses, and takes as long".into())),
    }
    match &suspect.evidence {
        Proof::Key { held: KeyMatch::Held(Some((id, _))), .. }
        | Proof::Scripted(_, KeyMatch::Held(Some((id, _)))) => {
            found.push(("key", id.to_string()));
        }
        Proof::Key { held: KeyMatch::Held(None), .. } => {
            found.push(("key", "none of this id".into()));
        }
        Proof::Key { held: KeyMatch::Slow(keys), .. }
        | Proof::Scripted(_, KeyMatch::Slow(keys)) => {
            found.push(("key", format!("one of {} that are slow to check", keys.ids.len())));
        }
        Proof::Password(..) | Proof::Scripted(_, KeyMatch::Held(None)) => {}
    }
    found
}

fn identity(identity: &Identity<'_>) -> Vec<Fact> {
    let Some(name) = identity.name() else { return anonymous() };
    let mut found = vec![("user", name.to_owned()), ("roles", identity.roles().join(", "))];
    found.extend(identity.key().map(|id| ("key", id.to_string())));
    found.extend(identity.scopes().map(|scopes| ("scopes", scopes.join(", "))));
    found
}

fn granted(grant: &Grant<'_>) -> Vec<Fact> {
    let limits = grant.quota().told().into_iter().map(|told| ("limit", told));
    let Some(rule) = grant.rule() else { return limits.collect() };
    let permission = match rule.resource.permission {
        PermissionSource::Script => "a script has said yes".to_owned(),
        PermissionSource::Records if rule.permissions.is_empty() => "none is asked for".to_owned(),
        PermissionSource::Records => rule.permissions.join(", "),
    };
    std::iter::once(("permission", permission)).chain(limits).collect()
}

/// All of the request that may be a credential, in the forms in which a script may repeat it.
fn hidden(request: &Request<'_>) -> Vec<Secret> {
    const SAFE: [&str; 5] = ["accept", "content-type", "content-length", "host", "user-agent"];
    let mut texts = Vec::new();
    for (name, value) in request.headers {
        if SAFE.contains(&name.as_str()) || *name == AUTH_METHOD {
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
    let mut hidden: Vec<Secret> =
        texts.into_iter().filter(|text| text.len() >= SECRET).map(Secret::new).collect();
    // The whole before its parts.
    hidden.sort_by_key(|text| std::cmp::Reverse(text.expose().len()));
    hidden
}

fn blotted(text: &str, hidden: &[Secret]) -> String {
    hidden.iter().fold(text.to_owned(), |text, one| text.replace(one.expose(), "…"))
}
