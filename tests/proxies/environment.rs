//! Runs Keyward and an application in this process, on free ports. The application describes each
//! request in the response.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use keyward::{
    accounts::{Accounts, NewKey, NewUser, Passwords},
    handlers::{BodyLimits, Handlers},
    model::{Actor, Clock, Entropy, Pepper, RateLimit, Resource, Role},
    pipeline::Gate,
    server::{BoundSocket, ConnectionLimits, Envoy, Listener, Public, Service, Verify, serve},
    store::MemoryStore,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};

pub struct Environment {
    pub keyward: SocketAddr,
    /// The listener for proxies that ask.
    pub verify: SocketAddr,
    /// The gRPC listener for Envoy.
    pub grpc: SocketAddr,
    /// The listener for connections with the PROXY protocol.
    pub behind_proxy: SocketAddr,
    pub application: Application,
    /// The value of `API-KEY` for ada, who has the permission `write`.
    pub ada: String,
    /// The value of `API-KEY` for bob, who does not have the permission `write`.
    pub bob: String,
    /// The value of `API-KEY` with a key of ada that is only valid from this machine.
    pub ada_here: String,
    /// The value of `API-KEY` with a key of ada that is only valid from another network.
    pub ada_elsewhere: String,
    /// The value of `API-KEY` with a key of ada that has a rate limit of one request per hour.
    pub ada_once: String,
    stop: Option<watch::Sender<()>>,
    ended: Vec<JoinHandle<()>>,
}

#[derive(Clone)]
pub struct Application {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
}

impl Environment {
    pub async fn new() -> Self {
        let application = application().await;
        let accounts = Accounts::with(
            Arc::new(MemoryStore::new()),
            Pepper::from_bytes([7; 32]),
            Passwords::new(1),
            Clock::system(),
            Entropy::system(),
        )
        .unwrap();
        accounts.first_start().await.unwrap();
        let permissions = ["write".to_owned()].into();
        let (id, label) = ("writer".to_owned(), "Writer".to_owned());
        accounts
            .as_actor(Actor::Program)
            .create(Role { id, label, weight: 0, is_admin: false, permissions })
            .await
            .unwrap();
        let ada = user(&accounts, "ada", &["writer"]).await;
        let bob = user(&accounts, "bob", &[]).await;
        for resource in resources(application.address) {
            accounts.as_actor(Actor::Program).create(resource).await.unwrap();
        }
        let key = async |user, name, networks: &str| {
            let networks = networks.split(' ').map(|network| network.parse().unwrap()).collect();
            credential(&accounts, user, name, NewKey { networks, ..NewKey::default() }).await
        };
        let ada_here = key(ada, "ada", &format!("127.0.0.1/32 {}/32", machine_address())).await;
        let ada_elsewhere = key(ada, "ada", "203.0.113.0/24").await;
        let rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
        let once = NewKey { rate_limit, ..NewKey::default() };
        let ada_once = credential(&accounts, ada, "ada", once).await;
        let unrestricted = |user, name| credential(&accounts, user, name, NewKey::default());
        let (ada, bob) = (unrestricted(ada, "ada").await, unrestricted(bob, "bob").await);
        let (stop, stopped) = watch::channel(());
        let (public, verify_service) = services(accounts);
        let plain = Listener::from;
        let with_proxy_protocol = |listener| {
            Listener::from(listener).with_proxy_protocol(["127.0.0.0/8".parse().unwrap()])
        };
        let (keyward, keyward_task) = listen(plain, public.clone(), stopped.clone()).await;
        let (verify, verify_task) = listen(plain, verify_service.clone(), stopped.clone()).await;
        let (grpc, grpc_task) = listen(plain, Envoy::new(verify_service), stopped.clone()).await;
        let (behind_proxy, proxy_task) = listen(with_proxy_protocol, public, stopped).await;
        let (stop, ended) = (Some(stop), vec![keyward_task, verify_task, grpc_task, proxy_task]);
        Self {
            keyward,
            verify,
            grpc,
            behind_proxy,
            application,
            ada,
            bob,
            ada_here,
            ada_elsewhere,
            ada_once,
            stop,
            ended,
        }
    }

    /// Stops Keyward.
    pub async fn stop(&mut self) {
        drop(self.stop.take());
        for ended in self.ended.drain(..) {
            ended.await.unwrap();
        }
    }
}

/// The address of this machine in its network. Envoy reports this address for a client on the same
/// machine. The connected UDP socket sends nothing.
fn machine_address() -> std::net::IpAddr {
    let address = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("203.0.113.1:9")?;
        Ok(socket.local_addr()?.ip())
    });
    address.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
}

fn services(accounts: Accounts) -> (Public, Verify) {
    let bodies = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(30) };
    let handlers = Handlers::new(accounts.clone(), bodies);
    let gate = Gate::new(&accounts, 4096);
    let verify = Verify::new(gate.clone(), handlers.clone())
        .with_trusted_proxies(["127.0.0.0/8".parse().unwrap()]);
    (Public::new(gate, handlers, None), verify)
}

/// Runs a service on a free port until the sender of `stopped` is dropped.
async fn listen(
    make_listener: impl FnOnce(BoundSocket) -> Listener,
    service: impl Service,
    mut stopped: watch::Receiver<()>,
) -> (SocketAddr, JoinHandle<()>) {
    let limits = ConnectionLimits {
        header_bytes: 16_384,
        // As the verify listener of the program: a proxy adds fields to those of the client.
        headers: 116,
        header_read: Duration::from_secs(30),
        idle: Duration::from_secs(30),
        http2_streams: 128,
        drain: Duration::from_millis(200),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = make_listener(BoundSocket::Tcp(listener));
    let ended = tokio::spawn(async move {
        let connections = Arc::new(Semaphore::new(2000));
        let stopped = async { while stopped.changed().await.is_ok() {} };
        serve(listener, limits, connections, service, stopped).await;
    });
    (address, ended)
}

fn resources(application: SocketAddr) -> [Resource; 7] {
    let complete = |mut record: Value| -> Resource {
        for (name, value) in [
            ("enabled", json!(true)),
            ("granularity", json!("resource")),
            ("methods", json!(["GET", "POST"])),
            ("formats", json!(["any"])),
        ] {
            record[name] = value;
        }
        serde_json::from_value(record).unwrap()
    };
    let proxy = json!({ "upstreams": [format!("http://{application}")] });
    [
        complete(json!({
            "id": "orders", "handler": "decide", "host": "api.example", "path": "/orders/{id}",
            "authentication": ["*"], "permissions": { "POST": ["write"] },
        })),
        complete(json!({
            "id": "open", "handler": "decide", "path": "/open", "authentication": ["anonymous", "*"],
        })),
        complete(json!({
            "id": "secret", "handler": "decide", "path": "/secret/{*rest}", "authentication": ["*"],
        })),
        complete(json!({
            "id": "public", "handler": "decide", "path": "/public/{*rest}",
            "authentication": ["anonymous"],
        })),
        // One path on two hosts: only one of the hosts asks for a credential.
        complete(json!({
            "id": "host-private", "handler": "decide", "host": "api.example", "path": "/v/{x}",
            "authentication": ["*"],
        })),
        complete(json!({
            "id": "host-public", "handler": "decide", "host": "pub.example", "path": "/v/{x}",
            "authentication": ["anonymous"],
        })),
        // Keyward can forward the requests to this resource, or decide them for another proxy.
        complete(json!({
            "id": "files", "handler": "proxy", "path": "/files/{*rest}", "authentication": ["*"], "proxy": proxy,
        })),
    ]
}

async fn user(accounts: &Accounts, name: &str, roles: &[&str]) -> u64 {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    accounts.as_actor(Actor::Program).create_user(new).await.unwrap().record.uid
}

async fn credential(accounts: &Accounts, user: u64, name: &str, new: NewKey) -> String {
    let issued = accounts.as_actor(Actor::Program).issue_key(user, new).await.unwrap();
    STANDARD.encode(format!("{name}:{}", issued.text.expose()))
}

async fn application() -> Application {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = count.clone();
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    count.fetch_add(1, SeqCst);
                    describe(request)
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Application { address, requests }
}

/// Responds with a description of the request: the head, and a digest of the body.
async fn describe(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let headers: Vec<Value> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let description = json!({
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "length": body.len(),
        "digest": blake3::hash(&body).to_hex().as_str(),
    });
    Ok(Response::new(Full::new(Bytes::from(description.to_string()))))
}
