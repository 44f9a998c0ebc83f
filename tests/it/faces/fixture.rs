//! Accounts for the tests in `tests/it/faces.rs`: users of all kinds, a few resources, and a
//! service behind the layer.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use keyward::{
    ClientSource, GuardLayer,
    accounts::{AccountError, Accounts, NewKey, NewUser, Passwords},
    layer::Identity,
    model::{Actor, Clock, Entropy, Handler, Pepper, RateLimit, Resource, Role, Timestamp, User},
    pipeline::Gate,
    scripting::{ScriptLimits, Secrets},
    store::MemoryStore,
};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};

pub const TIMEOUT: Duration = Duration::from_secs(20);
const HOOKS: &str = r#"
fn on_request(req) { if req.path == "/orders/closed" { deny(403, "CLOSED", "Closed."); } }
fn on_permit(req, identity, resource) { if resource.id == "buffered" { return req.body == "please"; } }
fn on_denied(req, denial) { denial.set_header("x-denied-in", denial.status.to_string()); }
fn on_response(req, identity, response) {
    if req.path == "/orders/secret" { deny(403, "KEPT", "Kept back."); }
    response.set_header("x-responded", "yes");
}
"#;

/// Accounts with the users `ada`, who has the permission `read`, and `bob`, who has none.
pub struct Fixture {
    pub accounts: Accounts,
    pub gate: Gate,
    pub ada: String,
    pub bob: String,
    _scripts: tempfile::TempDir,
}

impl Fixture {
    pub async fn new() -> Self {
        Self::with_hooks(HOOKS).await
    }

    /// Accounts with these hooks.
    pub async fn with_hooks(hooks: &str) -> Self {
        let pepper = Pepper::from_bytes([7; 32]);
        let (passwords, entropy) = (Passwords::new(1), Entropy::seeded(1));
        let clock = Clock::fixed(Timestamp(1_800_000_000));
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::with(store, pepper, passwords, clock, entropy).unwrap();
        accounts.first_start().await.unwrap();
        let scripts = tempfile::tempdir().unwrap();
        std::fs::write(scripts.path().join("hooks.rhai"), hooks).unwrap();
        accounts
            .load_scripts(scripts.path(), ScriptLimits::default(), Secrets::default(), None)
            .unwrap();
        let role = Role {
            id: "reader".into(),
            label: "Reader".into(),
            weight: 0,
            is_admin: false,
            permissions: ["read".to_owned()].into(),
        };
        accounts.as_actor(Actor::Program).create(role).await.unwrap();
        for resource in resources() {
            accounts.as_actor(Actor::Program).create(resource).await.unwrap();
        }
        let ada = user(&accounts, "ada", &["reader"], NewKey::default()).await;
        let bob = user(&accounts, "bob", &[], NewKey::default()).await;
        let gate = Gate::new(&accounts, 4096);
        Self { accounts, gate, ada, bob, _scripts: scripts }
    }

    /// Creates six restricted credentials, in this order: an expired key, a key for another
    /// network, a key with an empty list of scopes, a key whose rate limit is used up, a revoked
    /// key, and the key of a blocked user.
    pub async fn restricted_credentials(&self) -> [String; 6] {
        let accounts = &self.accounts;
        let create = async |name: &str, key: NewKey| user(accounts, name, &["reader"], key).await;
        let soon = accounts.clock().now().plus(60);
        let expired = create("expired", NewKey { expires: Some(soon), ..NewKey::default() }).await;
        accounts.clock().set(soon);
        let networks = vec!["203.0.113.0/24".parse().unwrap()];
        let network_bound = create("remote", NewKey { networks, ..NewKey::default() }).await;
        let scoped = create("scoped", NewKey { scopes: Some(vec![]), ..NewKey::default() }).await;
        let rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
        let used_up = create("spent", NewKey { rate_limit, ..NewKey::default() }).await;
        let layer = GuardLayer::new(self.gate.clone(), ClientSource::unknown()).requires_user();
        let once = Request::get("/").header("api-key", &used_up).body(Full::default()).unwrap();
        assert_eq!(send_through(&layer, once).await.0.status(), 200);

        let revoked = create("revoked", NewKey::default()).await;
        let blocked = create("blocked", NewKey::default()).await;
        let writer = accounts.as_actor(Actor::Program);
        for user in accounts.users(None, 100).unwrap().items {
            let uid = user.record.uid;
            let key = accounts.keys_of(uid, None, 1).unwrap().items.pop();
            let block = |user: &mut User| {
                user.status = false;
                Ok::<_, AccountError>(())
            };
            match (user.record.name.as_str(), key) {
                ("blocked", _) => drop(writer.change_user(uid, None, block).await.unwrap()),
                ("revoked", Some(key)) => drop(writer.revoke_key(key.record.id).await.unwrap()),
                _ => {}
            }
        }
        [expired, network_bound, scoped, used_up, revoked, blocked]
    }

    /// A pipeline for other accounts, with the same scripts.
    pub fn gate_for(&self, accounts: &Accounts) -> Gate {
        let (limits, secrets) = (ScriptLimits::default(), Secrets::default());
        accounts.load_scripts(self._scripts.path(), limits, secrets, None).unwrap();
        Gate::new(accounts, 4096)
    }

    /// Changes the handler of all resources.
    pub async fn set_handler(&self, handler: &Handler, upstream: &str) {
        for listed in resources() {
            let change = |resource: &mut Resource| {
                resource.handler = handler.clone();
                resource.respond = None;
                let proxy = json!({ "upstreams": [upstream] });
                let is_proxy = *handler == Handler::Proxy;
                resource.proxy = is_proxy.then(|| serde_json::from_value(proxy).unwrap());
                Ok::<_, AccountError>(())
            };
            self.accounts.as_actor(Actor::Program).change(&listed.id, None, change).await.unwrap();
        }
    }
}

/// Creates a user with a key, and returns the credential.
pub async fn user(accounts: &Accounts, name: &str, roles: &[&str], key: NewKey) -> String {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let uid = accounts.as_actor(Actor::Program).create_user(new).await.unwrap().record.uid;
    let issued = accounts.as_actor(Actor::Program).issue_key(uid, key).await.unwrap();
    STANDARD.encode(format!("{name}:{}", issued.text.expose()))
}

fn resources() -> Vec<Resource> {
    let fixed = json!({ "status": 200, "content_type": "text/plain", "body": "in" });
    [
        json!({ "id": "orders", "path": "/orders/{id}", "methods": ["GET", "POST"], "permissions": { "POST": ["read"] } }),
        json!({ "id": "news", "path": "/news", "methods": ["GET"], "authentication": ["*", "anonymous"] }),
        json!({ "id": "data", "path": "/data", "methods": ["GET", "POST"], "formats": ["json"] }),
        json!({ "id": "other", "path": "/other", "host": "other.example", "methods": ["GET"] }),
        json!({ "id": "buffered", "path": "/buffered", "methods": ["POST"], "buffer_body": true }),
    ]
    .into_iter()
    .map(|mut record| {
        let defaults = json!({
            "enabled": true, "handler": "respond", "granularity": "resource", "formats": ["any"], "authentication": ["*"], "respond": fixed,
        });
        for (name, value) in defaults.as_object().unwrap() {
            record.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        serde_json::from_value(record).unwrap()
    })
    .collect()
}

/// The requests that reached the service behind a layer.
pub type Received = Arc<Mutex<Vec<(Identity, http::Uri, HeaderMap, Bytes)>>>;

/// Sends a request through a layer to a service that responds with `in`.
pub async fn send_through(
    layer: &GuardLayer,
    request: Request<Full<Bytes>>,
) -> (Response<Bytes>, Received) {
    let received = Received::default();
    let log = received.clone();
    let inner = service_fn(move |request: Request<Full<Bytes>>| {
        let log = log.clone();
        async move {
            let (parts, body) = request.into_parts();
            let identity = parts.extensions.get::<Identity>().cloned().expect("an identity");
            let body = body.collect().await.unwrap().to_bytes();
            log.lock().unwrap().push((identity, parts.uri, parts.headers, body));
            let response = Response::builder().header("content-type", "text/plain");
            Ok::<_, Infallible>(response.body(Full::new(Bytes::from("in"))).unwrap())
        }
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, body), received)
}
