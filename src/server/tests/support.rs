//! A public listener on a free port with a store in memory, and a client that sends given bytes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};

use crate::{
    accounts::{Accounts, NewKey, NewUser, Passwords},
    handlers::{BodyLimits, Handlers},
    model::{Actor, Clock, Entropy, Pepper, Resource, Role},
    pipeline::Gate,
    server::{BoundSocket, ConnectionLimits, Listener, Public, Verify, serve},
    store::MemoryStore,
};

/// How long an operation may take before a test gives up. No test asserts that anything is faster.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Limits of request bodies that no test reaches, unless the test sets a lower limit.
const BODIES: BodyLimits = BodyLimits { bytes: 1 << 20, read: PATIENCE };

/// A server with the users `ada`, who has the role `reader` with the permission `read`, and `bob`,
/// who has no roles.
pub struct TestServer {
    pub address: SocketAddr,
    /// The verify listener, which trusts proxies on this machine.
    pub verify: SocketAddr,
    pub accounts: Accounts,
    /// The value of `API-KEY` for a request of ada.
    pub ada_credential: String,
    pub ada_key: String,
    /// The value of `API-KEY` for a request of bob.
    pub bob_credential: String,
    pub stop: Option<oneshot::Sender<()>>,
    pub ended: tokio::task::JoinHandle<()>,
}

impl TestServer {
    /// A server with these resources. Each value contains some fields of a resource. The other
    /// fields get default values.
    pub async fn new(resources: &[Value]) -> Self {
        Self::with(resources, |public| public).await
    }

    pub async fn with(resources: &[Value], change: impl FnOnce(Public) -> Public) -> Self {
        Self::with_listener(Listener::from, resources, change).await
    }

    /// A server whose listener is built by `listener`.
    pub async fn with_listener(
        listener: impl FnOnce(BoundSocket) -> Listener,
        resources: &[Value],
        change: impl FnOnce(Public) -> Public,
    ) -> Self {
        Self::build(listener, limits(), BODIES, resources, change).await
    }

    /// A server with these limits of its connections.
    pub async fn with_limits(limits: ConnectionLimits, resources: &[Value]) -> Self {
        Self::build(Listener::from, limits, BODIES, resources, |public| public).await
    }

    /// A server with these limits of request bodies.
    pub async fn with_body_limits(bodies: BodyLimits, resources: &[Value]) -> Self {
        Self::build(Listener::from, limits(), bodies, resources, |public| public).await
    }

    async fn build(
        listener: impl FnOnce(BoundSocket) -> Listener,
        limits: ConnectionLimits,
        bodies: BodyLimits,
        resources: &[Value],
        change: impl FnOnce(Public) -> Public,
    ) -> Self {
        let store = Arc::new(MemoryStore::new());
        let pepper = Pepper::from_bytes([7; 32]);
        let (passwords, clock) = (Passwords::new(1), Clock::system());
        let accounts = Accounts::with(store, pepper, passwords, clock, Entropy::seeded(1)).unwrap();
        accounts.first_start().await.unwrap();
        let permissions = ["read".to_owned()].into();
        let (id, label) = ("reader".to_owned(), "Reader".to_owned());
        accounts
            .as_actor(Actor::Program)
            .create(Role { id, label, weight: 0, is_admin: false, permissions })
            .await
            .unwrap();
        let (ada_credential, ada_key) = user(&accounts, "ada", &["reader"]).await;
        let (bob_credential, _) = user(&accounts, "bob", &[]).await;
        for resource in resources {
            accounts.as_actor(Actor::Program).create(complete(resource)).await.unwrap();
        }
        let handlers = Handlers::new(accounts.clone(), bodies);
        let loopback = ["127.0.0.0/8".parse().unwrap()];
        let verify = listen_for_verify(&accounts, handlers.clone(), loopback).await;
        let public = change(Public::new(Gate::new(&accounts, 4096), handlers, None));
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve(
            listener(BoundSocket::Tcp(socket)),
            limits,
            Arc::new(Semaphore::new(2000)),
            public,
            async {
                let _ = stopped.await;
            },
        );
        let ended = tokio::spawn(serving);
        Self {
            address,
            verify,
            accounts,
            ada_credential,
            ada_key,
            bob_credential,
            stop: Some(stop),
            ended,
        }
    }

    /// Sends bytes on a new connection and reads until the server closes it.
    pub async fn send(&self, bytes: &[u8]) -> TestResponse {
        send_to(self.address, bytes).await
    }

    /// Sends a request as ada. `more` contains additional header lines.
    pub async fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> TestResponse {
        let credential = format!("API-KEY: {}\r\n", self.ada_credential);
        self.ask_as(&credential, method, path, more, body).await
    }

    pub async fn ask_as(
        &self,
        credential: &str,
        method: &str,
        path: &str,
        more: &str,
        body: &str,
    ) -> TestResponse {
        let length = match body {
            "" => String::new(),
            body => format!("Content-Length: {}\r\n", body.len()),
        };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n{credential}{more}{length}\r\n{body}"
        );
        self.send(text.as_bytes()).await
    }
}

/// Starts a verify listener that trusts these proxies.
pub async fn listen_for_verify(
    accounts: &Accounts,
    handlers: Handlers,
    trusted: impl IntoIterator<Item = ipnet::IpNet>,
) -> SocketAddr {
    let verify = Verify::new(Gate::new(accounts, 4096), handlers).with_trusted_proxies(trusted);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let connections = Arc::new(Semaphore::new(2000));
    let socket = BoundSocket::Tcp(socket);
    tokio::spawn(serve(socket, limits(), connections, verify, std::future::pending()));
    address
}

/// Sends bytes on a new connection and reads until the server closes it.
pub async fn send_to(address: SocketAddr, bytes: &[u8]) -> TestResponse {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    TestResponse::read(&mut stream).await
}

pub fn limits() -> ConnectionLimits {
    ConnectionLimits {
        header_bytes: 16_384,
        headers: 100,
        header_read: PATIENCE,
        idle: PATIENCE,
        http2_streams: 128,
        drain: Duration::from_millis(200),
    }
}

/// Creates a user with a key. Returns the credential and the key's text.
async fn user(accounts: &Accounts, name: &str, roles: &[&str]) -> (String, String) {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let user = accounts.as_actor(Actor::Program).create_user(new).await.unwrap().record;
    let issued =
        accounts.as_actor(Actor::Program).issue_key(user.uid, NewKey::default()).await.unwrap();
    let key = issued.text.expose().to_owned();
    (STANDARD.encode(format!("{name}:{key}")), key)
}

fn complete(resource: &Value) -> Resource {
    let mut record = json!({
        "enabled": true,
        "granularity": "resource",
        "methods": ["GET", "POST", "PATCH", "PUT", "DELETE"],
        "formats": ["any"],
        "authentication": ["*"],
    });
    for (name, value) in resource.as_object().unwrap() {
        record[name] = value.clone();
    }
    serde_json::from_value(record).unwrap()
}

/// A parsed response.
#[derive(Debug)]
pub struct TestResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body is complete.
    pub is_complete: bool,
}

impl TestResponse {
    pub async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let reading = async {
            // A reset after the response also counts as the end of the response.
            let _ = stream.read_to_end(&mut bytes).await;
        };
        tokio::time::timeout(PATIENCE, reading)
            .await
            .expect("the server should close the connection");
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {text}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status: u16 = lines.next().unwrap()[9..12].parse().unwrap();
        if status == 100 {
            return Self::parse(&bytes[end + 4..]);
        }
        let headers: Vec<_> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut response = Self { status, headers, body: Vec::new(), is_complete: true };
        let rest = &bytes[end + 4..];
        (response.body, response.is_complete) = match response.header("transfer-encoding") {
            Some(_) => chunks(rest),
            None => {
                let length = response.header("content-length").map(|text| text.parse().unwrap());
                (rest.to_vec(), length.is_none_or(|length: usize| length == rest.len()))
            }
        };
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|problem| panic!("{problem}: {self:?}"))
    }
}

/// The data of a chunked body, and whether its last chunk was received.
fn chunks(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else {
            return (data, false);
        };
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (data, true);
        }
        let Some(chunk) = rest.get(end + 2..end + 2 + size) else { return (data, false) };
        data.extend_from_slice(chunk);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
}
