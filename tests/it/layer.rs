//! The layer: what it decides, and that it decides as the server does.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use keyward::{
    Layer,
    accounts::{AccountError, Accounts, NewKey, NewUser, Passwords},
    handlers::{BodyLimits, Handlers},
    hooks::{Limits as ScriptLimits, Secrets},
    http::{Limits, Listener, Public, serve},
    layer::{Client, Identity},
    model::{Actor, Application, Clock, Entropy, Pepper, RateLimit, Resource, Role},
    pipeline::Gate,
    store::MemoryStore,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

const PATIENCE: Duration = Duration::from_secs(20);
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
struct House {
    accounts: Accounts,
    gate: Gate,
    ada: String,
    bob: String,
    _scripts: tempfile::TempDir,
}

impl House {
    async fn new() -> Self {
        Self::with(HOOKS).await
    }

    async fn with(hooks: &str) -> Self {
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
        for resource in resources() {
            accounts.acting(Actor::Program).create(resource).await.unwrap();
        }
        let ada = user(&accounts, "ada", &["reader"], NewKey::default()).await;
        let bob = user(&accounts, "bob", &[], NewKey::default()).await;
        let gate = Gate::new(&accounts, 4096);
        Self { accounts, gate, ada, bob, _scripts: scripts }
    }
}

/// Makes a user with a key, and returns the credential.
async fn user(accounts: &Accounts, name: &str, roles: &[&str], key: NewKey) -> String {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let uid = accounts.acting(Actor::Program).create_user(new).await.unwrap().record.uid;
    let issued = accounts.acting(Actor::Program).issue_key(uid, key).await.unwrap();
    STANDARD.encode(format!("{name}:{}", issued.text.expose()))
}

fn resources() -> Vec<Resource> {
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
            "enabled": true, "handler": "respond", "granularity": "resource", "formats": ["any"], "authentication": ["*"], "respond": fixed,
        });
        for (name, value) in usual.as_object().unwrap() {
            record.as_object_mut().unwrap().entry(name).or_insert(value.clone());
        }
        serde_json::from_value(record).unwrap()
    })
    .collect()
}

/// What the service behind a layer saw.
type Seen = Arc<Mutex<Vec<(Identity, http::Uri, HeaderMap, Bytes)>>>;

/// Sends a request through a layer to a service that answers `in`.
async fn ask(layer: &Layer, request: Request<Full<Bytes>>) -> (Response<Bytes>, Seen) {
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
struct Asked {
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

impl Asked {
    fn new(method: Method, path: &'static str, headers: &[(&'static str, &str)]) -> Self {
        let headers =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>();
        Self { method, path, headers, body: "" }
    }

    fn request(&self) -> Request<Full<Bytes>> {
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
    async fn send(&self, address: SocketAddr) -> Response<Bytes> {
        let request = self.request();
        let mut text = format!("{} {} HTTP/1.1\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        text += &format!("content-length: {}\r\n\r\n{}", self.body.len(), self.body);
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
}

/// What a client can tell two answers apart by, beside the date and the framing.
fn shown(response: &Response<Bytes>) -> Value {
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    let names = [
        "content-type",
        "www-authenticate",
        "allow",
        "cache-control",
        "x-keyward-hint",
        "x-refused-in",
        "x-answered",
    ];
    let headers: Vec<_> = names.iter().map(|name| text(name)).collect();
    json!([response.status().as_u16(), headers, String::from_utf8_lossy(response.body())])
}

/// Requests of all kinds: more than 500.
fn corpus(house: &House) -> Vec<Asked> {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_corpus_is_decided_as_the_server_decides_it() {
    let house = House::new().await;
    let handlers =
        Handlers::new(house.accounts.clone(), BodyLimits { bytes: 1 << 20, read: PATIENCE });
    let public = Public::new(house.gate.clone(), handlers, None);
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
    let server =
        serve(Listener::Tcp(listener), limits, connections, public, std::future::pending());
    let server = tokio::spawn(server);

    let layer = Layer::new(house.gate.clone()).rewriting_paths();
    let strict = Layer::new(house.gate.clone());
    let (mut statuses, corpus) = (std::collections::BTreeMap::<u16, usize>::new(), corpus(&house));
    for asked in &corpus {
        let by_server = shown(&asked.send(address).await);
        let (response, seen) = ask(&layer, asked.request()).await;
        let mut by_layer = shown(&response);
        if asked.method == Method::HEAD {
            // What the service has made for HEAD is for whoever writes it to the wire.
            by_layer[2] = json!("");
        }
        assert_eq!(by_layer, by_server, "{asked:?}");
        // Nothing gets to the service that was refused, but where a hook keeps its answer back.
        let is_kept = by_server[2].as_str().unwrap().contains("KEPT")
            || asked.method == Method::HEAD && asked.path.ends_with("secret");
        if !is_kept {
            assert_eq!(seen.lock().unwrap().len(), usize::from(response.status() == 200));
        }
        *statuses.entry(response.status().as_u16()).or_default() += 1;
        let (refused, _) = ask(&strict, asked.request()).await;
        if by_server != shown(&refused) && asked.method != Method::HEAD {
            let said = String::from_utf8_lossy(refused.body()).into_owned();
            assert!(said.contains("normal form"), "{asked:?} {said}");
        }
    }
    server.abort();
    assert!(corpus.len() > 500, "{}", corpus.len());
    for status in [200, 400, 401, 403, 404, 405, 406, 415] {
        assert!(statuses.get(&status).is_some_and(|count| *count > 1), "{statuses:?}");
    }
}

#[tokio::test]
async fn the_service_learns_who_asks_and_nothing_that_a_client_made_up() {
    let house = House::new().await;
    let layer = Layer::new(house.gate.clone()).rewriting_paths();
    let forged = [
        ("api-key", house.ada.as_str()),
        ("x-keyward-user", "root"),
        ("x_keyward_roles", "administrator"),
        ("x-mine", "kept"),
    ];
    let asked = Asked::new(Method::POST, "/x/../orders/%37?q=%2e", &forged);
    let (response, seen) = ask(&layer, Asked { body: "whole", ..asked }.request()).await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, b"in".as_slice()));
    let seen = seen.lock().unwrap();
    let (who, uri, headers, body) = &seen[0];
    assert_eq!((who.name(), who.roles()), (Some("ada"), ["reader".to_owned()].as_slice()));
    assert_eq!((who.application(), who.is_anonymous()), (Some("default"), false));
    assert!(who.key().is_some() && who.uid().is_some());
    assert!(who.has("read") && !who.has("write"));
    assert_eq!((uri.to_string().as_str(), &body[..]), ("/orders/7?q=%2e", b"whole".as_slice()));
    let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["host", "api-key", "x-mine"]);
}

#[tokio::test]
async fn a_program_without_resources_says_itself_who_may() {
    let house = House::new().await;
    let known = Layer::new(house.gate.clone()).requires_user();
    let reads = Layer::new(house.gate.clone()).requires("read");
    let both = reads.clone().requires("write");
    let anyone = Layer::new(house.gate.clone()).admits_anyone();
    let none_reads = anyone.clone().requires("read");
    for (layer, who, status) in [
        (&known, "", 401),
        (&known, "!", 401),
        (&known, &house.bob, 200),
        (&reads, "", 401),
        (&reads, &house.bob, 403),
        (&reads, &house.ada, 200),
        (&both, &house.ada, 403),
        (&anyone, "", 200),
        (&anyone, "!", 401),
        (&anyone, &house.bob, 200),
        (&none_reads, "", 403),
        (&none_reads, &house.ada, 200),
    ] {
        // No resource describes this path, and no host is named.
        let mut request = Request::get("/anything/at/all");
        if !who.is_empty() {
            request = request.header("api-key", who);
        }
        let request = request.body(Full::default()).unwrap();
        let (response, seen) = ask(layer, request).await;
        assert_eq!(response.status(), status, "{layer:?} {who}");
        assert_eq!(seen.lock().unwrap().len(), usize::from(status == 200));
        if let Some((identity, ..)) = seen.lock().unwrap().first() {
            assert_eq!(identity.is_anonymous(), who.is_empty());
        }
    }
    // Switched off, the application's requests are anonymous: nobody is known by them.
    let acting = house.accounts.acting(Actor::Program);
    let off = acting.change("default", None, |one: &mut Application| {
        one.enabled = false;
        Ok::<_, AccountError>(())
    });
    off.await.unwrap();
    let request = Request::get("/").header("api-key", &house.ada).body(Full::default()).unwrap();
    assert_eq!(ask(&known, request).await.0.status(), 403);
}

#[tokio::test]
async fn a_route_that_was_chosen_by_another_spelling_is_not_entered() {
    use axum::{Router, routing::get};
    let house = House::with("fn on_request(req) {}").await;
    // The route is for somebody else, and the resource of the path that it would become is open.
    let routes = || Router::new().route("/orders/{*rest}", get(async || "orders"));
    let inside = routes().layer(Layer::new(house.gate.clone()));
    let outside = Layer::new(house.gate.clone()).rewriting_paths().layer(routes());
    let sneaky = || {
        let request = Request::get("/orders/../news").header("host", "api.example");
        request.body(axum::body::Body::empty()).unwrap()
    };
    assert_eq!(inside.oneshot(sneaky()).await.unwrap().status(), 400);
    // Outside, the router sees what was checked, and has nothing there.
    assert_eq!(outside.oneshot(sneaky()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn keys_that_are_bound_to_networks_need_an_address() {
    let house = House::new().await;
    let key = NewKey { networks: vec!["203.0.113.0/24".parse().unwrap()], ..NewKey::default() };
    let eve = user(&house.accounts, "eve", &[], key).await;
    let layer = Layer::new(house.gate.clone()).requires_user();
    let peer: SocketAddr = "203.0.113.9:1".parse().unwrap();
    let found = layer.clone().client_from(|parts| Some(parts.extensions.get::<SocketAddr>()?.ip()));
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(ask(&layer, request()).await.0.status(), 401);
    for (layer, address, status) in [(&layer, "203.0.113.9", 200), (&layer, "127.0.0.1", 401)] {
        let mut request = request();
        request.extensions_mut().insert(Client(address.parse::<IpAddr>().unwrap()));
        assert_eq!(ask(layer, request).await.0.status(), status, "{address}");
    }
    let mut by_peer = request();
    by_peer.extensions_mut().insert(peer);
    assert_eq!(ask(&found, by_peer).await.0.status(), 200);
}

#[tokio::test]
async fn a_limit_is_kept_and_told_where_a_program_says_who_may() {
    let house = House::new().await;
    let rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
    let key = NewKey { rate_limit, ..NewKey::default() };
    let eve = user(&house.accounts, "eve", &[], key).await;
    let layer = Layer::new(house.gate.clone()).requires_user();
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    for status in [200, 429] {
        let (response, _) = ask(&layer, request()).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["ratelimit-policy"], "\"key\";q=1;w=3600");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
}

#[tokio::test]
async fn only_a_body_that_scripts_are_to_see_is_bounded() {
    let house = House::new().await;
    let limits = BodyLimits { bytes: 4, read: PATIENCE };
    let layer = Layer::new(house.gate.clone()).body_limits(limits);
    for (path, status) in [("/said", 413), ("/orders/7", 200)] {
        let asked = Asked::new(Method::POST, path, &[("api-key", &house.ada)]);
        let (response, _) = ask(&layer, Asked { body: "please", ..asked }.request()).await;
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_program_can_ask_only_who_it_is() {
    use keyward::pipeline::{Face, Request as Asks};
    let house = House::new().await;
    let scene = house.gate.scene();
    for (credential, name) in [(&house.ada, Some("ada")), (&"!".to_owned(), None)] {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("api-key"), credential.parse().unwrap())]
                .into_iter()
                .collect();
        let request = Asks {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            host: None,
            body: None,
            client: [127, 0, 0, 1].into(),
            face: Face::Public,
        };
        let found = house.gate.authenticate(&scene, &request).await;
        assert_eq!(found.ok().and_then(|who| who.name().map(str::to_owned)).as_deref(), name);
    }
}
