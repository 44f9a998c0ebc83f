//! The real request pipeline with one loaded script and a store in memory, and requests that try to
//! pass the pipeline.
//!
//! The corpus test, the mutant test and the fuzz target share this module.

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
    handlers::{
        BodyLimits, HandlerRequest, Handlers, Hop, Origin, Payload, RequestBody, UrlScheme,
    },
    http::response,
    model::{
        Actor, Application, AuthType, Clock, Entropy, Handler, Pepper, PermissionSource, Resource,
        Respond, Role, Rules, Secret, Timestamp,
    },
    pipeline::{Action, Denial, Face, Gate, Request},
    scripting::{ResponseParts, ScriptKind, ScriptLimits, Secrets},
    store::MemoryStore,
};
use tokio::runtime::Runtime;

/// Each text is loaded as a script of each of these kinds.
pub const KINDS: [ScriptKind; 4] =
    [ScriptKind::Auth, ScriptKind::Hooks, ScriptKind::Resource, ScriptKind::Handler];
/// A configured secret, which must never appear in a response or in the log.
pub const SECRET: &str = "the partner's secret of 32 bytes!";
/// The key of user `llama` in an older system. Only scripts can check this key.
pub const LEGACY: &str = "old-system-key-of-the-llama-0123456789";
/// The name of the script, if scripts of its kind have names.
const NAME: &str = "hostile";
/// The id of the resource to which a script of kind `Resource` belongs.
const ORDERS: &str = "orders";
const NOW: Timestamp = Timestamp(1_767_614_400);

/// A request to send through the pipeline.
pub struct Attempt {
    /// The name to print when a test fails.
    pub name: &'static str,
    /// Whether the request may pass.
    pub entitlement: Entitlement,
    face: Face,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Whether a request may pass the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    /// The request may pass, by the built-in checks or by a script that checks the older system's
    /// key.
    Entitled,
    /// The request must be denied.
    NotEntitled,
}

/// The result of an attempt.
pub struct Outcome {
    /// The uid of the authorized user. `Some(None)` means that the request was authorized without a
    /// user, and `None` means that the request was denied.
    pub passed: Option<Option<u64>>,
    /// The response's status.
    pub status: StatusCode,
    /// The response's header fields.
    pub headers: HeaderMap,
    /// The response's body.
    pub body: Bytes,
    /// The detail of a denial, which goes to the operator's log.
    pub detail: String,
    /// Duration of the attempt.
    pub took: Duration,
}

/// Values of the credential header field, one for each kind of attempt.
struct Credentials {
    llama: String,
    legacy: String,
    wrong: String,
    damaged: String,
    with_other_name: String,
    blocked: String,
    without_permission: String,
}

/// The real pipeline with one loaded script.
pub struct ScriptedGate {
    /// The kind that the script was loaded as.
    pub kind: ScriptKind,
    /// The uid of the only user who is entitled.
    pub llama_id: u64,
    runtime: Runtime,
    gate: Gate,
    handlers: Handlers,
    credentials: Credentials,
}

/// The default limits, except a shorter time for scripts that block, because the corpus has many
/// scripts of that sort.
fn limits() -> ScriptLimits {
    ScriptLimits { blocking_time: Duration::from_millis(200), ..ScriptLimits::default() }
}

impl ScriptedGate {
    /// Loads a script as this kind.
    ///
    /// # Errors
    /// The reasons why the script was rejected.
    pub fn load(kind: ScriptKind, text: &str) -> Result<Self, String> {
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
            folder.path().join(kind.file(if kind == ScriptKind::Resource { ORDERS } else { NAME }));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        let secrets = Secrets::new([("partner".to_owned(), Secret::new(SECRET))]);
        accounts.load_scripts(folder.path(), limits(), secrets, None).map_err(|problems| {
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        })?;
        let (llama_id, credentials) = runtime.block_on(create_records(&accounts, kind));
        let gate = Gate::new(&accounts, 8192);
        let body_limits = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(5) };
        let handlers = Handlers::new(accounts, body_limits);
        Ok(Self { kind, llama_id, runtime, gate, handlers, credentials })
    }

    /// The requests that are sent to every script.
    pub fn attempts(&self) -> Vec<Attempt> {
        use Entitlement::{Entitled, NotEntitled};
        let keys = &self.credentials;
        let path =
            if self.kind == ScriptKind::Handler { "/handled?q=1&q=%ff" } else { "/orders?q=1" };
        let attempt = |name, entitlement, path: &str, key: &str| {
            self.attempt(name, entitlement, path, key.as_bytes())
        };
        let mut attempts = vec![
            attempt("the right key", Entitled, path, &keys.llama),
            attempt("no key", NotEntitled, path, ""),
            attempt("a wrong key", NotEntitled, path, &keys.wrong),
            attempt("a damaged key", NotEntitled, path, &keys.damaged),
            attempt(
                "the right key with another user's name",
                NotEntitled,
                path,
                &keys.with_other_name,
            ),
            attempt("the key of a blocked user", NotEntitled, path, &keys.blocked),
            attempt(
                "the key of a user without permission",
                NotEntitled,
                path,
                &keys.without_permission,
            ),
            attempt("a key that is not base64", NotEntitled, path, "llama:llama"),
            attempt("an empty pair", NotEntitled, path, "Og=="),
            self.attempt("a key that is not UTF-8", NotEntitled, path, b"\xff\xfe"),
            attempt("the right key, permission by script", Entitled, "/scripted", &keys.llama),
            attempt("no key, permission by script", NotEntitled, "/scripted", ""),
            Attempt {
                face: Face::Admin,
                ..attempt("the admin API", NotEntitled, "/api/v1/users", &keys.llama)
            },
        ];
        let mut two_keys = attempt("two keys", NotEntitled, path, &keys.llama);
        two_keys.headers.append("api-key", HeaderValue::from_static("x"));
        attempts.push(two_keys);
        if self.kind == ScriptKind::Auth {
            attempts.push(attempt("the older system's key", Entitled, path, &keys.legacy));
        }
        attempts
    }

    /// A request with this path and query, and with `key` as the value of the credential header
    /// field.
    pub fn attempt(
        &self,
        name: &'static str,
        entitlement: Entitlement,
        path: &str,
        key: &[u8],
    ) -> Attempt {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(key)
            && !key.is_empty()
        {
            headers.insert(HeaderName::from_static("api-key"), value);
        }
        if self.kind == ScriptKind::Auth {
            headers.insert("auth-method", HeaderValue::from_static(NAME));
        }
        headers.insert("x-text", HeaderValue::from_static("a, b"));
        let body = Bytes::from_static(b"{\"a\":[1,2,{\"b\":null}]}");
        Attempt { name, entitlement, face: Face::Public, path: path.to_owned(), headers, body }
    }

    /// Sends a request through the pipeline and the handler, and then the response or the denial
    /// through the hooks of the script.
    pub fn run(&self, attempt: &Attempt) -> Outcome {
        let begun = Instant::now();
        let mut outcome = self.runtime.block_on(self.send(attempt));
        // Run the tasks that the pipeline spawned to run after the response.
        self.runtime.block_on(async {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
        });
        outcome.took = begun.elapsed();
        outcome
    }

    /// Credentials that must not appear in the log.
    pub fn credentials(&self) -> [&str; 3] {
        [&self.credentials.llama, &self.credentials.legacy, LEGACY]
    }

    async fn send(&self, attempt: &Attempt) -> Outcome {
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
        let context = self.gate.request_context();
        let found = context.policy.routes.find("api.example.com", path);
        let action = match (attempt.face, found.as_ref().and_then(|found| found.rule("GET"))) {
            (Face::Public, Some(rule)) => Action::Use(rule),
            (Face::Public, None) => Action::NoRoute(route_not_found()),
            (Face::Admin, _) => Action::Administer("administer users"),
        };
        let rule = match action {
            Action::Use(rule) => Some(rule),
            _ => None,
        };
        let mut passed = None;
        let result = async {
            let grant = self.gate.authorize(&context, &request, &action).await?;
            passed = Some(grant.identity().uid());
            let response_hooks = self.gate.response_hooks(&context, &request, &grant);
            if attempt.face == Face::Admin {
                return Ok(ResponseParts {
                    status: StatusCode::OK,
                    headers: HeaderMap::new(),
                    body: Some(Bytes::new()),
                });
            }
            let client = request.client;
            let hop = Hop::direct(client, UrlScheme::Http, "x");
            let call = HandlerRequest {
                grant,
                request,
                context: &context,
                params: matchit::Params::default(),
                origin: Origin::Configured("http://x"),
                hop,
                body: RequestBody::Full(attempt.body.clone()),
                upgrade: None,
            };
            let response = response_parts(self.handlers.respond(call).await?);
            match response_hooks {
                Some(hooks) => hooks.run(response).await,
                None => Ok(response),
            }
        };
        let result: Result<ResponseParts, Denial> = result.await;
        let (response, detail) = match result {
            Ok(response) => (response, String::new()),
            Err(denial) => {
                let denial = self.gate.on_denied(&context, &request, rule, denial).await;
                let detail = denial.internal_message.as_deref().unwrap_or_default().to_owned();
                (response_parts(response::from_denial(&denial)), detail)
            }
        };
        let ResponseParts { status, headers, body } = response;
        let body = body.unwrap_or_default();
        Outcome { passed, status, headers, body, detail, took: Duration::ZERO }
    }
}

fn response_parts(response: http::Response<Payload>) -> ResponseParts {
    let (parts, payload) = response.into_parts();
    let body = match payload {
        Payload::Full(bytes) => Some(bytes),
        Payload::Stream(_) => None,
    };
    ResponseParts { status: parts.status, headers: parts.headers, body }
}

fn route_not_found() -> Denial {
    let phase = keyward::pipeline::Phase::Edge;
    Denial::message(phase, StatusCode::NOT_FOUND, "ROUTE_NOT_FOUND", "There is nothing here.")
}

/// Creates users, keys and resources. Only user `llama` is entitled: `alpaca` lacks the permission,
/// and `guanaco` is blocked.
async fn create_records(accounts: &Accounts, kind: ScriptKind) -> (u64, Credentials) {
    accounts.first_start().await.unwrap();
    let herd = Role {
        id: "herd".into(),
        label: "The herd".into(),
        weight: 0,
        is_admin: false,
        permissions: BTreeSet::from(["graze".to_owned()]),
    };
    accounts.as_actor(Actor::Program).create(herd).await.unwrap();
    if kind == ScriptKind::Auth {
        let auth_type = AuthType::Script(NAME.into());
        let hostile = Application { auth_type, ..Application::api_key(NAME, "Hostile") };
        accounts.as_actor(Actor::Program).create(hostile).await.unwrap();
    }
    let handled =
        if kind == ScriptKind::Handler { Some(Handler::Script(NAME.into())) } else { None };
    let resources = [
        (ORDERS, Some(Handler::Respond), PermissionSource::Records),
        ("scripted", Some(Handler::Respond), PermissionSource::Script),
        ("handled", handled, PermissionSource::Records),
    ];
    for (id, handler, permission) in resources {
        if let Some(handler) = handler {
            accounts
                .as_actor(Actor::Program)
                .create(resource(id, handler, permission))
                .await
                .unwrap();
        }
    }
    let (llama_id, right_key) = create_user(accounts, "llama", true, &["herd"]).await;
    let (_, alpacas_key) = create_user(accounts, "alpaca", true, &[]).await;
    let (_, blocked) = create_user(accounts, "guanaco", false, &["herd"]).await;
    let mut damaged = right_key.clone();
    let last = damaged.pop().unwrap();
    damaged.push(if last == 'x' { 'y' } else { 'x' });
    let pair = |name: &str, key: &str| STANDARD.encode(format!("{name}:{key}"));
    let credentials = Credentials {
        llama: pair("llama", &right_key),
        legacy: pair("llama", LEGACY),
        wrong: pair("llama", &alpacas_key),
        damaged: pair("llama", &damaged),
        with_other_name: pair("admin", &right_key),
        blocked: pair("guanaco", &blocked),
        without_permission: pair("alpaca", &alpacas_key),
    };
    (llama_id, credentials)
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

async fn create_user(
    accounts: &Accounts,
    name: &str,
    status: bool,
    roles: &[&str],
) -> (u64, String) {
    // `LEGACY` is the key of `llama`. Longer names get another key.
    let legacy = format!("{LEGACY}{}", &name["llama".len()..]);
    let new = NewUser {
        name: name.into(),
        status,
        roles: roles.iter().map(|id| (*id).to_owned()).collect(),
        attributes: BTreeMap::from([("legacy".to_owned(), legacy)]),
        ..NewUser::default()
    };
    let uid = accounts.as_actor(Actor::Program).create_user(new).await.unwrap().record.uid;
    let issued = accounts.as_actor(Actor::Program).issue_key(uid, NewKey::default()).await.unwrap();
    (uid, issued.text.expose().to_owned())
}
