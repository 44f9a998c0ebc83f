//! A script in its place, and requests that try to get past it: through the real Gate, on a store in memory.
//!
//! The corpus, its mutants and the fuzz target share it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use keyward::{
    accounts::{Accounts, NewKey, NewUser, Passwords},
    front::answer,
    handlers::{Body, BodyLimits, Call, Handlers, Hop, Origin, Payload, Scheme},
    hooks::{Kind, Limits, ResponseParts, Secrets},
    model::{
        Actor, Application, AuthType, Clock, Entropy, Handler, Pepper, PermissionSource, Resource,
        Respond, Role, Rules, Secret, Timestamp,
    },
    pipeline::{Action, Denial, Face, Gate, Request},
    store::MemoryStore,
};
use tokio::runtime::Runtime;

/// The places that a script can be in.
pub const PLACES: [Kind; 4] = [Kind::Auth, Kind::Hooks, Kind::Resource, Kind::Handler];
/// The configured secret. Nobody may ever see it.
pub const SECRET: &str = "the partner's secret of 32 bytes!";
/// The llama's key of an older system, which only scripts can check.
pub const LEGACY: &str = "old-system-key-of-the-llama-0123456789";
/// The name of the script, where it has one.
const NAME: &str = "hostile";
/// The resource whose hooks it is.
const ORDERS: &str = "orders";
const NOW: Timestamp = Timestamp(1_767_614_400);

/// What somebody tries.
pub struct Attempt {
    /// For whoever reads a failure.
    pub name: &'static str,
    /// What the built-in path says of it.
    pub right: Right,
    face: Face,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Whether somebody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The built-in path would let it pass, or a script that checks the older system's key.
    Theirs,
    /// Nobody but a broken gate would.
    Nobodys,
}

/// What came of it.
pub struct Outcome {
    /// Who was let in, by number; none: nobody was.
    pub passed: Option<Option<u64>>,
    /// The answer's status.
    pub status: StatusCode,
    /// The answer's header fields.
    pub headers: HeaderMap,
    /// The answer's body.
    pub body: Bytes,
    /// What the operator's log is told of a refusal.
    pub detail: String,
    /// How long it took.
    pub took: Duration,
}

/// The credentials, ready for the header.
struct Credentials {
    llama: String,
    legacy: String,
    wrong: String,
    damaged: String,
    borrowed: String,
    blocked: String,
    powerless: String,
}

/// The Gate with one script behind it.
pub struct Arena {
    /// Where the script is.
    pub place: Kind,
    /// The number of the one user who may.
    pub llama: u64,
    runtime: Runtime,
    gate: Gate,
    handlers: Handlers,
    credentials: Credentials,
}

/// The usual limits, and less time for scripts on threads of their own: there are many.
fn limits() -> Limits {
    Limits { blocking_time: Duration::from_millis(200), ..Limits::default() }
}

impl Arena {
    /// Puts a script in a place.
    ///
    /// # Errors
    /// It is refused there: why.
    pub fn load(place: Kind, text: &str) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::with(
            store,
            Pepper::from_bytes([7; 32]),
            Passwords::new(1),
            Clock::fixed(NOW),
            Entropy::seeded(1),
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file =
            folder.path().join(place.file(if place == Kind::Resource { ORDERS } else { NAME }));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        let secrets = Secrets::new([("partner".to_owned(), Secret::new(SECRET))]);
        accounts.load_scripts(folder.path(), limits(), secrets, None).map_err(|problems| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let (llama, credentials) = runtime.block_on(furnish(&accounts, place));
        let gate = Gate::new(&accounts, 8192);
        let bounds = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(5) };
        let handlers = Handlers::new(accounts, bounds);
        Ok(Self { place, llama, runtime, gate, handlers, credentials })
    }

    /// What is tried with every script.
    pub fn attempts(&self) -> Vec<Attempt> {
        use Right::{Nobodys, Theirs};
        let keys = &self.credentials;
        let guarded =
            if self.place == Kind::Handler { "/handled?q=1&q=%ff" } else { "/orders?q=1" };
        let one =
            |name, right, path: &str, key: &str| self.attempt(name, right, path, key.as_bytes());
        let mut all = vec![
            one("the right key", Theirs, guarded, &keys.llama),
            one("no key", Nobodys, guarded, ""),
            one("a wrong key", Nobodys, guarded, &keys.wrong),
            one("a damaged key", Nobodys, guarded, &keys.damaged),
            one("a key with another's name", Nobodys, guarded, &keys.borrowed),
            one("the key of a blocked user", Nobodys, guarded, &keys.blocked),
            one("the key of somebody who may not", Nobodys, guarded, &keys.powerless),
            one("no base64", Nobodys, guarded, "llama:llama"),
            one("an empty pair", Nobodys, guarded, "Og=="),
            self.attempt("no text", Nobodys, guarded, b"\xff\xfe"),
            one("a script decides", Theirs, "/scripted", &keys.llama),
            one("a script decides about nobody", Nobodys, "/scripted", ""),
            Attempt {
                face: Face::Admin,
                ..one("the admin API", Nobodys, "/api/v1/users", &keys.llama)
            },
        ];
        let mut twice = one("two keys", Nobodys, guarded, &keys.llama);
        twice.headers.append("api-key", HeaderValue::from_static("x"));
        all.push(twice);
        if self.place == Kind::Auth {
            all.push(one("the older system's key", Theirs, guarded, &keys.legacy));
        }
        all
    }

    /// A request with this path and query, and this in the header that holds the credential.
    pub fn attempt(&self, name: &'static str, right: Right, path: &str, key: &[u8]) -> Attempt {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(key)
            && !key.is_empty()
        {
            headers.insert(HeaderName::from_static("api-key"), value);
        }
        if self.place == Kind::Auth {
            headers.insert("auth-method", HeaderValue::from_static(NAME));
        }
        headers.insert("x-text", HeaderValue::from_static("a, b"));
        let body = Bytes::from_static(b"{\"a\":[1,2,{\"b\":null}]}");
        Attempt { name, right, face: Face::Public, path: path.to_owned(), headers, body }
    }

    /// Sends a request through the Gate and to its handler, and its answer or refusal through the hooks.
    pub fn run(&self, attempt: &Attempt) -> Outcome {
        let begun = Instant::now();
        let mut outcome = self.runtime.block_on(self.walk(attempt));
        // What was left to be done after the answer is done now.
        self.runtime.block_on(async {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        });
        outcome.took = begun.elapsed();
        outcome
    }

    /// The text of the credentials, which no log may repeat.
    pub fn credentials(&self) -> [&str; 3] {
        [&self.credentials.llama, &self.credentials.legacy, LEGACY]
    }

    async fn walk(&self, attempt: &Attempt) -> Outcome {
        let (path, query) = match attempt.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (attempt.path.as_str(), None),
        };
        let request = Request {
            method: &Method::GET,
            path,
            query,
            headers: &attempt.headers,
            host: Some("api.example.com"),
            body: Some(&attempt.body),
            client: [192, 0, 2, 1].into(),
            face: attempt.face,
        };
        let scene = self.gate.scene();
        let found = scene.policy.routes.find("api.example.com", path);
        let action = match (attempt.face, found.as_ref().and_then(|found| found.rule("GET"))) {
            (Face::Public, Some(rule)) => Action::Use(rule),
            (Face::Public, None) => Action::Nowhere(nowhere()),
            (Face::Admin, _) => Action::Administer("administer users"),
        };
        let rule = match action {
            Action::Use(rule) => Some(rule),
            _ => None,
        };
        let mut passed = None;
        let led = async {
            let grant = self.gate.authorize(&scene, &request, &action).await?;
            passed = Some(grant.identity().uid());
            let aftermath = self.gate.aftermath(&scene, &request, &grant);
            if attempt.face == Face::Admin {
                return Ok(ResponseParts {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: Some(Bytes::new()),
                });
            }
            let client = request.client;
            let hop = Hop { scheme: Scheme::Http, authority: "x", peer: client, is_trusted: false };
            let call = Call {
                grant,
                request,
                scene: &scene,
                params: matchit::Params::default(),
                origin: Origin::Configured("http://x"),
                hop,
                body: Body::Full(attempt.body.clone()),
                upgrade: None,
            };
            let made = parts(self.handlers.answer(call).await?);
            match aftermath {
                Some(aftermath) => aftermath.answer(made).await,
                None => Ok(made),
            }
        };
        let led: Result<ResponseParts, Denial> = led.await;
        let (made, detail) = match led {
            Ok(made) => (made, String::new()),
            Err(denial) => {
                let denial = self.gate.on_denied(&scene, &request, rule, denial).await;
                let detail = denial.detail.as_deref().unwrap_or_default().to_owned();
                (parts(answer::denial(&denial)), detail)
            }
        };
        let ResponseParts { status, headers, body } = made;
        let body = body.unwrap_or_default();
        Outcome { passed, status, headers, body, detail, took: Duration::ZERO }
    }
}

fn parts(reply: http::Response<Payload>) -> ResponseParts {
    let (parts, payload) = reply.into_parts();
    let body = match payload {
        Payload::Full(bytes) => Some(bytes),
        Payload::Stream(_) => None,
    };
    ResponseParts { status: parts.status, headers: parts.headers, body }
}

fn nowhere() -> Denial {
    let room = keyward::pipeline::Room::Edge;
    Denial::message(room, StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND", "There is nothing here.")
}

/// Users, keys and resources: the llama may, the alpaca may not, the guanaco is blocked.
async fn furnish(accounts: &Accounts, place: Kind) -> (u64, Credentials) {
    accounts.first_start().await.unwrap();
    let herd = Role {
        id: "herd".into(),
        label: "The herd".into(),
        weight: 0,
        is_admin: false,
        permissions: BTreeSet::from(["graze".to_owned()]),
    };
    accounts.acting(Actor::Program).create(herd).await.unwrap();
    if place == Kind::Auth {
        let auth_type = AuthType::Script(NAME.into());
        let hostile = Application { auth_type, ..Application::api_key(NAME, "Hostile") };
        accounts.acting(Actor::Program).create(hostile).await.unwrap();
    }
    let handled = if place == Kind::Handler { Some(Handler::Script(NAME.into())) } else { None };
    let resources = [
        (ORDERS, Some(Handler::Respond), PermissionSource::Records),
        ("scripted", Some(Handler::Respond), PermissionSource::Script),
        ("handled", handled, PermissionSource::Records),
    ];
    for (id, handler, permission) in resources {
        if let Some(handler) = handler {
            accounts
                .acting(Actor::Program)
                .create(resource(id, handler, permission))
                .await
                .unwrap();
        }
    }
    let (llama, right) = user(accounts, "llama", true, &["herd"]).await;
    let (_, powerless) = user(accounts, "alpaca", true, &[]).await;
    let (_, blocked) = user(accounts, "guanaco", false, &["herd"]).await;
    let mut damaged = right.clone();
    let last = damaged.pop().unwrap();
    damaged.push(if last == 'x' { 'y' } else { 'x' });
    let pair = |name: &str, key: &str| STANDARD.encode(format!("{name}:{key}"));
    let credentials = Credentials {
        llama: pair("llama", &right),
        legacy: pair("llama", LEGACY),
        wrong: pair("llama", &powerless),
        damaged: pair("llama", &damaged),
        borrowed: pair("admin", &right),
        blocked: pair("guanaco", &blocked),
        powerless: pair("alpaca", &powerless),
    };
    (llama, credentials)
}

fn resource(id: &str, handler: Handler, permission: PermissionSource) -> Resource {
    let set = |item: &str| BTreeSet::from([item.to_owned()]);
    let respond = (handler == Handler::Respond)
        .then(|| Respond { body: "[1,2,3]".into(), ..Respond::default() });
    Resource {
        id: id.into(),
        handler,
        path: Some(format!("/{id}")),
        rules: Rules::Resource {
            methods: set("GET"),
            formats: set("any"),
            authentication: set("*"),
            permissions: BTreeMap::from([("GET".to_owned(), set("graze"))]),
        },
        permission,
        buffer_body: true,
        respond,
        ..Resource::entity_user()
    }
}

async fn user(accounts: &Accounts, name: &str, status: bool, roles: &[&str]) -> (u64, String) {
    let new = NewUser {
        name: name.into(),
        status,
        roles: roles.iter().map(|id| (*id).to_owned()).collect(),
        attributes: BTreeMap::from([("legacy".to_owned(), format!("{LEGACY}{}", &name[5..]))]),
        ..NewUser::default()
    };
    let uid = accounts.acting(Actor::Program).create_user(new).await.unwrap().record.uid;
    let issued = accounts.acting(Actor::Program).issue_key(uid, NewKey::default()).await.unwrap();
    (uid, issued.text.expose().to_owned())
}
