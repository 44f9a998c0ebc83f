//! A gate with scripted applications, behind the server, the proxy, the verify endpoint and the
//! layer. The upstream and the service behind the layer report the request that they get.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Full;
use keyward::{
    GuardLayer,
    accounts::{Accounts, NewKey, Passwords},
    handlers::{BodyLimits, Handlers},
    model::{Actor, Application, AuthType, Clock, Entropy, Pepper, Secret},
    pipeline::Gate,
    scripting::{ScriptLimits, Secrets},
    server::{BoundSocket, ConnectionLimits, Public, Service, Verify, serve},
    store::MemoryStore,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::faces::{
    corpus::exchange,
    fixture::{TIMEOUT, send_through, user},
};

/// A script that reads two header fields and a cookie, and declares nothing.
const OWN: &str = r#"
fn header(req) {
    let clients = req.headers("X-Client");
    let session = req.cookie("session");
    if clients.is_empty() || session == () { return; }
    clients[0] + " " + session
}
fn decode(req, presented) {
    #{ user: presented.split(" ")[0], session: presented.split(" ")[1], proof: req.headers("X-Proof") }
}
fn verify(req, user, credential) {
    req.headers("X-Read-Later");
    credential.session == "s3cret" && credential.proof == ["pr00f"]
}
"#;
pub const JWT_SECRET: &str = "a secret of thirty-two bytes or more";
pub const HMAC_SECRET: &str = "a-secret-that-both-sides-know";

pub struct Fixture {
    pub accounts: Accounts,
    pub gate: Gate,
    /// The value of `API-KEY` for ada.
    pub ada: String,
    /// The text of a key of ada.
    pub key: String,
    pub address: SocketAddr,
    /// The address of the verify listener.
    verify: SocketAddr,
    /// The URL of the upstream.
    pub upstream: String,
    pub store: Arc<MemoryStore>,
    _scripts: tempfile::TempDir,
}

impl Fixture {
    /// A fixture with the user ada, with the shipped scripts, and with an application for each of
    /// them, of the same name.
    pub async fn new() -> Self {
        let (pepper, passwords) = (Pepper::from_bytes([7; 32]), Passwords::new(1));
        let store = Arc::new(MemoryStore::new());
        let accounts =
            Accounts::with(store.clone(), pepper, passwords, Clock::system(), Entropy::seeded(1))
                .unwrap();
        accounts.first_start().await.unwrap();
        let scripts = tempfile::tempdir().unwrap();
        let folder = scripts.path().join("auth");
        std::fs::create_dir(&folder).unwrap();
        for name in ["jwt", "hmac", "query_key"] {
            let path = format!("{}/scripts/auth/{name}.rhai", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            // The tests send requests without a body.
            let text = text.replace("CHECKS_BODY = false", "CHECKS_BODY = true");
            std::fs::write(folder.join(format!("{name}.rhai")), text).unwrap();
        }
        std::fs::write(folder.join("own.rhai"), OWN).unwrap();
        // The reads of hooks do not count.
        let hooks = "fn on_request(req) { req.headers(\"X-Mine\"); req.param(\"page\"); req.query; return; }";
        std::fs::write(scripts.path().join("hooks.rhai"), hooks).unwrap();
        let body = "fn header(req) { req.body } fn decode(req, p) { #{ user: \"ada\" } } fn verify(req, u, c) { true }";
        std::fs::write(folder.join("body.rhai"), body).unwrap();
        let query = "fn header(req) { if req.query.contains(\"k=1\") { \"ada\" } }
            fn decode(req, p) { #{ user: p } } fn verify(req, u, c) { true }";
        std::fs::write(folder.join("whole_query.rhai"), query).unwrap();
        let folder = scripts.path().join("handlers");
        std::fs::create_dir(&folder).unwrap();
        let who = "fn handle(req, identity) {
            #{ roles: identity.roles, scopes: identity.scopes, reader: identity.has_role(\"reader\") }
        }";
        std::fs::write(folder.join("who.rhai"), who).unwrap();
        let secrets = Secrets::new([
            ("jwt".to_owned(), Secret::new(JWT_SECRET)),
            ("hmac-ada".to_owned(), Secret::new(HMAC_SECRET)),
        ]);
        accounts.load_scripts(scripts.path(), ScriptLimits::default(), secrets, None).unwrap();
        let writer = accounts.as_actor(Actor::Program);
        for name in ["jwt", "hmac", "query_key", "own", "body", "whole_query"] {
            let mut application = Application::api_key(name, name);
            application.auth_type = AuthType::Script(name.into());
            writer.create(application).await.unwrap();
        }
        let mut token = Application::api_key("token", "Token");
        (token.auth_type, token.header) = (AuthType::Bearer, "Authorization".into());
        writer.create(token).await.unwrap();
        let mut password = Application::api_key("basic", "Basic");
        password.header = "Authorization".into();
        writer.create(password).await.unwrap();
        let ada = user(&accounts, "ada", &[], NewKey::default()).await;
        let pair = String::from_utf8(STANDARD.decode(&ada).unwrap()).unwrap();
        let key = pair.split_once(':').unwrap().1.to_owned();
        let gate = Gate::new(&accounts, 4096);
        let (address, verify) = listen(&accounts, &gate).await;
        let upstream = upstream().await;
        let url = upstream.clone();
        let fixture = Self {
            accounts,
            gate,
            ada,
            key,
            address,
            verify,
            upstream: url,
            store,
            _scripts: scripts,
        };
        let proxy = json!({ "upstreams": [upstream] });
        let keeping = json!({ "upstreams": [upstream], "keep_credential": true });
        fixture
            .add(json!({ "id": "p", "path": "/p/{*r}", "handler": "proxy", "proxy": proxy }))
            .await;
        fixture
            .add(json!({ "id": "k", "path": "/k/{*r}", "handler": "proxy", "proxy": keeping }))
            .await;
        fixture.add(json!({ "id": "d", "path": "/d/{*r}", "handler": "decide" })).await;
        let open = json!(["*", "anonymous"]);
        fixture
            .add(json!({ "id": "o", "path": "/o/{*r}", "handler": "proxy", "proxy": proxy, "authentication": open }))
            .await;
        let respond = json!({ "status": 200, "content_type": "text/plain", "body": "in" });
        fixture.add(json!({ "id": "w", "path": "/who", "handler": "script:who" })).await;
        fixture
            .add(json!({ "id": "s", "path": "/s/{*r}", "handler": "respond", "respond": respond }))
            .await;
        fixture
    }

    /// Creates a resource. Missing fields get default values.
    pub async fn add(&self, fields: Value) {
        let mut record = json!({
            "enabled": true, "granularity": "resource", "methods": ["GET", "POST"], "formats": ["any"],
            "authentication": ["*"],
        });
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let record: keyward::model::Resource = serde_json::from_value(record).unwrap();
        self.accounts.as_actor(Actor::Program).create(record).await.unwrap();
    }

    /// Sends a request to the server.
    pub async fn send(&self, target: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        exchange(self.address, &request_text(&format!("GET {target}"), fields)).await
    }

    /// Sends a request through the proxy, and returns the request that the upstream gets.
    pub async fn proxied(&self, target: &str, fields: &[(&str, &str)]) -> Seen {
        let response = self.send(target, fields).await;
        assert_eq!(response.status(), 200, "{target} {fields:?} {:?}", response.body());
        let seen: Value = serde_json::from_slice(response.body()).unwrap();
        Seen {
            target: seen["target"].as_str().unwrap().to_owned(),
            fields: serde_json::from_value(seen["fields"].clone()).unwrap(),
        }
    }

    /// Sends a verify request, as a proxy in front does.
    pub async fn verify(&self, target: &str, fields: &[(&str, &str)]) -> Response<Bytes> {
        let described = [
            ("X-Forwarded-Method", "GET"),
            ("X-Forwarded-Uri", target),
            ("X-Forwarded-Host", "api.example"),
            ("X-Forwarded-For", "203.0.113.7"),
        ];
        let fields = [&described, fields].concat();
        exchange(self.verify, &request_text("GET /-/verify", &fields)).await
    }

    /// Sends a request through a layer, and returns the request that the service gets.
    pub async fn through(&self, layer: &GuardLayer, target: &str, fields: &[(&str, &str)]) -> Seen {
        let (response, received) = send_through(layer, request(target, fields)).await;
        assert_eq!(response.status(), 200, "{target} {fields:?} {:?}", response.body());
        let (_, uri, headers, _) = received.lock().unwrap().pop().unwrap();
        Seen::new(&uri, &headers)
    }
}

pub fn request(target: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::get(target).header("host", "api.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Full::default()).unwrap()
}

fn request_text(line: &str, fields: &[(&str, &str)]) -> String {
    let mut text = format!("{line} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n");
    for (name, value) in fields {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}

/// A request, as an upstream or the service behind the layer sees it.
#[derive(Debug)]
pub struct Seen {
    pub target: String,
    pub fields: Vec<(String, String)>,
}

impl Seen {
    fn new(uri: &Uri, headers: &HeaderMap) -> Self {
        let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let target = uri.path_and_query().unwrap().to_string();
        Self { target, fields: headers.iter().map(field).collect() }
    }

    pub fn get(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(known, _)| known == name);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// The whole request as text.
    pub fn text(&self) -> String {
        format!("{self:?}")
    }
}

/// Starts the public listener and the verify listener.
async fn listen(accounts: &Accounts, gate: &Gate) -> (SocketAddr, SocketAddr) {
    let handlers = Handlers::new(accounts.clone(), BodyLimits { bytes: 1 << 20, read: TIMEOUT });
    let verify = Verify::new(gate.clone(), handlers.clone())
        .with_trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    let public = Public::new(gate.clone(), handlers, None);
    (listen_with(public).await, listen_with(verify).await)
}

async fn listen_with(service: impl Service) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = ConnectionLimits {
        header_bytes: 16_384,
        headers: 100,
        header_read: TIMEOUT,
        idle: TIMEOUT,
        http2_streams: 16,
        drain: Duration::from_millis(100),
    };
    let connections = Arc::new(Semaphore::new(64));
    let stop = std::future::pending();
    tokio::spawn(serve(BoundSocket::Tcp(listener), limits, connections, service, stop));
    address
}

/// Starts an upstream that responds with the request as JSON. Returns its URL.
async fn upstream() -> String {
    use axum::{Json, Router};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let echo = async |request: Request<axum::body::Body>| {
        use http_body_util::BodyExt as _;
        let (head, body) = request.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let Seen { target, fields } = Seen::new(&head.uri, &head.headers);
        let trailers = Seen::new(&head.uri, &trailers).fields;
        Json(json!({ "target": target, "fields": fields, "trailers": trailers }))
    };
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(echo)).await });
    url
}

/// A token for ada, as the shipped `jwt.rhai` accepts it.
pub fn token() -> String {
    use jsonwebtoken::{EncodingKey, Header, encode};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let claims = json!({
        "sub": "ada", "exp": now.as_secs() + 600, "aud": "keyward", "iss": "https://id.example.com",
    });
    let key = EncodingKey::from_secret(JWT_SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).unwrap()
}

/// The value of `Authorization` and of `X-Signature-Created` for a request to `hmac.rhai`.
pub fn signature(target: &str, nonce: &str) -> (String, String) {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let lines = format!("keyward-hmac-sha256\nGET\napi.example\n{target}\nada\n{nonce}\n{now}\n");
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(HMAC_SECRET.as_bytes()).unwrap();
    mac.update(lines.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    (format!("HMAC-SHA256 ada:{nonce}:{signature}"), now.to_string())
}
