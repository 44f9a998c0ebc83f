//! One world and the requests that every face is asked about in it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use keyward::{
    Layer,
    accounts::{Accounts, NewKey, NewUser, Passwords},
    handlers::{BodyLimits, Handlers},
    hooks::{Limits as ScriptLimits, Secrets},
    http::{Limits, Listener, Public, serve},
    layer::Identity,
    model::{Actor, Clock, Entropy, Pepper, Resource, Role},
    pipeline::Gate,
    store::MemoryStore,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

pub const PATIENCE: Duration = Duration::from_secs(20);
const HOOKS: &str = r#"
fn on_request(req) { if req.path == "/orders/closed" { deny(403, "CLOSED", "Closed."); } }
fn on_permit(req, identity, resource) { if resource.id == "said" { return req.body == "please"; } }
fn on_denied(req, denial) { denial.set_header("x-refused-in", denial.status.to_string()); }
fn on_response(req, identity, response) {
    if req.path == "/orders/secret" { deny(403, "KEPT", "Kept back."); }
    response.set_header("x-answered", "yes");
}
"#;

/// Accounts with the users `ada`, who has the permission `read`, and `bob`, who has none.
pub struct House {
    pub accounts: Accounts,
    pub gate: Gate,
    pub ada: String,
    pub bob: String,
    _scripts: tempfile::TempDir,
}

impl House {
    pub async fn new() -> Self {
        Self::with(HOOKS).await
    }

    /// With these hooks.
    pub async fn with(hooks: &str) -> Self {
        Self::made(hooks, None).await
    }

    /// Whose resources are an application's at this address: the same keys, behind the handler `proxy`.
    pub async fn in_front_of(application: SocketAddr) -> Self {
        Self::made(HOOKS, Some(application)).await
    }

    async fn made(hooks: &str, application: Option<SocketAddr>) -> Self {
        let pepper = Pepper::from_bytes([7; 32]);
        let (passwords, entropy) = (Passwords::new(1), Entropy::seeded(1));
        let store = Arc::new(MemoryStore::new());
        let accounts = Accounts::with(store, pepper, passwords, Clock::system(), entropy).unwrap();
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
        accounts.acting(Actor::Program).create(role).await.unwrap();
        for resource in resources(application) {
            accounts.acting(Actor::Program).create(resource).await.unwrap();
        }
        let ada = user(&accounts, "ada", &["reader"], NewKey::default()).await;
        let bob = user(&accounts, "bob", &[], NewKey::default()).await;
        let gate = Gate::new(&accounts, 4096);
        Self { accounts, gate, ada, bob, _scripts: scripts }
    }
}

impl House {
    /// Serves it on a free port, until the task is ended.
    pub async fn listen(&self) -> (SocketAddr, JoinHandle<()>) {
        let handlers =
            Handlers::new(self.accounts.clone(), BodyLimits { bytes: 1 << 20, read: PATIENCE });
        let public = Public::new(self.gate.clone(), handlers, None)
            .trusting(["127.0.0.0/8".parse().unwrap()]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            header_bytes: 16_384,
            headers: 100,
            header_read: PATIENCE,
            idle: PATIENCE,
            http2_streams: 16,
            drain: Duration::from_millis(100),
        };
        let connections = Arc::new(Semaphore::new(64));
        let never = std::future::pending();
        let server = serve(Listener::Tcp(listener), limits, connections, public, never);
        (address, tokio::spawn(server))
    }
}

/// Makes a user with a key, and returns the credential.
pub async fn user(accounts: &Accounts, name: &str, roles: &[&str], key: NewKey) -> String {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let uid = accounts.acting(Actor::Program).create_user(new).await.unwrap().record.uid;
    let issued = accounts.acting(Actor::Program).issue_key(uid, key).await.unwrap();
    STANDARD.encode(format!("{name}:{}", issued.text.expose()))
}

fn resources(application: Option<SocketAddr>) -> Vec<Resource> {
    let fixed = json!({ "status": 200, "content_type": "text/plain", "body": "in" });
    [
        json!({ "id": "orders", "path": "/orders/{id}", "methods": ["GET", "POST"], "permissions": { "POST": ["read"] } }),
        json!({ "id": "news", "path": "/news", "methods": ["GET"], "authentication": ["*", "anonymous"] }),
        json!({ "id": "data", "path": "/data", "methods": ["GET", "POST"], "formats": ["json"] }),
        json!({ "id": "other", "path": "/other", "host": "other.example", "methods": ["GET"] }),
        json!({ "id": "said", "path": "/said", "methods": ["POST"], "buffer_body": true }),
    ]
    .into_iter()
    .map(|mut record| {
        let usual = json!({
            "enabled": true, "granularity": "resource", "formats": ["any"], "authentication": ["*"],
        });
        match application {
            Some(address) => {
                record["handler"] = json!("proxy");
                record["proxy"] = json!({ "upstreams": [format!("http://{address}")] });
            }
            None => {
                record["handler"] = json!("respond");
                record["respond"] = fixed.clone();
            }
        }
        for (name, value) in usual.as_object().unwrap() {
            record.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        serde_json::from_value(record).unwrap()
    })
    .collect()
}

/// What the service behind a layer saw.
pub type Seen = Arc<Mutex<Vec<(Identity, http::Uri, HeaderMap, Bytes)>>>;

/// Sends a request through a layer to a service that answers `in`.
pub async fn ask(layer: &Layer, request: Request<Full<Bytes>>) -> (Response<Bytes>, Seen) {
    let seen = Seen::default();
    let noted = seen.clone();
    let inner = service_fn(move |request: Request<keyward::layer::Body<Full<Bytes>>>| {
        let noted = noted.clone();
        async move {
            let (parts, body) = request.into_parts();
            let who = parts.extensions.get::<Identity>().cloned().expect("an identity");
            let body = body.collect().await.unwrap().to_bytes();
            noted.lock().unwrap().push((who, parts.uri, parts.headers, body));
            let answer = Response::builder().header("content-type", "text/plain");
            Ok::<_, Infallible>(answer.body(Full::new(Bytes::from("in"))).unwrap())
        }
    });
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(parts, body), seen)
}

/// A request of the corpus.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: &'static str,
}

impl Asked {
    pub fn new(method: Method, path: &'static str, headers: &[(&'static str, &str)]) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>();
        Self { method, path, headers, body: "" }
    }

    pub fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(&self.method).uri(self.path);
        if !self.headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "api.example");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.body(Full::new(Bytes::from(self.body))).unwrap()
    }

    /// The same over a socket; what came back, without the body of an answer to `HEAD`, which has none.
    pub async fn send(&self, address: SocketAddr) -> Response<Bytes> {
        let request = self.request();
        let fields = request.headers().iter();
        let fields: Vec<_> =
            fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        exchange(address, self.method.as_str(), self.path, &fields, self.body).await
    }
}

/// Sends a request over a socket of its own.
pub async fn exchange(
    address: SocketAddr,
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nconnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap().unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n");
    let mut response = Response::builder().status(&lines.next().unwrap()[9..12]);
    for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
        response = response.header(name, value);
    }
    response.body(Bytes::from(body.to_owned())).unwrap()
}

/// Requests of all kinds: more than 500.
pub fn corpus(house: &House) -> Vec<Asked> {
    let wrong = STANDARD.encode("ada:kw_wrong");
    let unknown = STANDARD.encode("eve:kw_wrong");
    let credentials: [Vec<(&str, &str)>; 8] = [
        vec![],
        vec![("api-key", house.ada.as_str())],
        vec![("api-key", house.bob.as_str())],
        vec![("api-key", wrong.as_str())],
        vec![("api-key", unknown.as_str())],
        vec![("api-key", "!")],
        vec![("api-key", house.ada.as_str()), ("api-key", house.ada.as_str())],
        vec![("auth-method", "nothing"), ("api-key", house.ada.as_str())],
    ];
    let paths = [
        "/orders/7",
        "/orders/7?_format=json",
        "/orders/closed",
        "/orders/secret",
        "/orders/",
        "/news",
        "/data?_format=xml",
        "/data",
        "/other",
        "/nowhere",
        "/said",
        "//orders//7",
        "/x/../orders/./7",
        "/%6frders/%37?a=%2e",
        "/orders/7%2f8",
        "/orders/7;a",
        "/orders/%zz",
        "/../orders/7",
        "/orders/%c3%bc",
    ];
    let mut all = Vec::new();
    for path in paths {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::OPTIONS] {
            for credential in &credentials {
                let one = Asked::new(method.clone(), path, credential);
                if path == "/data" || path == "/said" {
                    let mut more = one.clone();
                    more.headers.push(("content-type", "application/json".into()));
                    more.body = if path == "/said" { "please" } else { "{}" };
                    all.push(more);
                }
                all.push(one);
            }
        }
    }
    for host in ["other.example", "OTHER.example:80", "a b", ""] {
        let headers = [("host", host), ("api-key", house.ada.as_str())];
        all.push(Asked::new(Method::GET, "/other", &headers));
    }
    all
}
