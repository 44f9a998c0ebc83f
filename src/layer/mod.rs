//! The Gate inside another Rust program: a [`tower_layer::Layer`] round its service.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//!
//! use axum::{Extension, Router, routing::get};
//! use keyward::{Layer, accounts::{Accounts, Passwords}, layer::Identity, model::{Clock, Entropy, Pepper}, pipeline::Gate, store::MemoryStore};
//!
//! // A program that keeps its users opens a `SledStore`, with `Accounts::open`.
//! let (store, entropy) = (Arc::new(MemoryStore::new()), Entropy::system());
//! let pepper = Pepper::from_bytes(entropy.bytes());
//! let accounts = Accounts::with(store, pepper, Passwords::new(2), Clock::system(), entropy)?;
//! let first = accounts.first_start().await?.expect("the store is empty");
//!
//! async fn hello(Extension(who): Extension<Identity>) -> String {
//!     format!("Hello, {}.", who.name().unwrap_or("whoever you are"))
//! }
//! let guard = Layer::new(Gate::new(&accounts, 4096)).requires("read reports");
//! let app = Router::new().route("/reports", get(hello)).layer(guard);
//!
//! // What a client would send.
//! use base64::Engine as _;
//! use tower::ServiceExt as _;
//! let credential = format!("{}:{}", first.username, first.key.expose());
//! let credential = base64::engine::general_purpose::STANDARD.encode(credential);
//! let request = || http::Request::get("/reports");
//! let without = app.clone().oneshot(request().body(axum::body::Body::empty())?).await?;
//! assert_eq!(without.status(), 401);
//! let with = app.oneshot(request().header("API-KEY", credential).body(axum::body::Body::empty())?).await?;
//! assert_eq!(with.status(), 200);
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! Two ways to say who may:
//! - the *resources* of the store, as the server has them ([`Layer::new`]): what none of them describes is refused;
//! - the *program* itself ([`Layer::requires`], [`Layer::requires_user`], [`Layer::admits_anyone`]), which has routes of its own.
//!
//! It runs on tokio, with the runtime's timer (`enable_time`): scripts are bounded by it, and refusals of applications that tell no details wait for it.
//!
//! A program without tower calls [`Layer::around`]; one that only wants to know who asks, [`Gate::authenticate`](crate::pipeline::Gate::authenticate).
//!
//! Authentication, scripts, texts and forms of refusals are those of the server. The service behind finds an [`Identity`] among the request's
//! extensions, and none of the header fields that could be taken for one.

mod around;
mod body;
mod identity;
mod service;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ::http::request::Parts;

pub use body::Body;
pub use identity::Identity;
pub use service::Guarded;

use crate::{
    handlers::{BodyLimits, IdentityFields},
    pipeline::{Anonymous, Gate},
};

/// The Gate in front of a service. A cheap handle.
#[derive(Clone)]
pub struct Layer(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    gate: Gate,
    admission: Admission,
    paths: Paths,
    client: Arc<FindClient>,
    fields: IdentityFields,
    bodies: BodyLimits,
}

type FindClient = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

/// Who says what may be done.
#[derive(Clone)]
enum Admission {
    /// The resources.
    Resources,
    /// The program, everywhere the same.
    Program { permissions: Vec<String>, anonymous: Anonymous },
}

/// What becomes of a path that is not in its one spelling.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Paths {
    /// It is refused: a router outside may have read it in another way than we would.
    Refused,
    /// It is put right, before anybody reads it.
    Rewritten,
}

/// Where a request comes from, as an extension of the request: the address of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(pub IpAddr);

/// What a body may take that scripts are to see.
const BODIES: BodyLimits = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(30) };

impl Layer {
    /// The Gate, with the resources of its store for rules. Requests need a host, as they do for the server.
    pub fn new(gate: Gate) -> Self {
        Self(Arc::new(Settings {
            gate,
            admission: Admission::Resources,
            paths: Paths::Refused,
            client: Arc::new(|parts| Some(parts.extensions.get::<Client>()?.0)),
            fields: IdentityFields::default(),
            bodies: BODIES,
        }))
    }

    /// Asks for a permission, in the place of the resources; for each of several when it is called again.
    #[must_use]
    pub fn requires(self, permission: impl Into<String>) -> Self {
        self.with_program(|permissions, _| permissions.push(permission.into()))
    }

    /// Asks for no more than that somebody is known, in the place of the resources.
    #[must_use]
    pub fn requires_user(self) -> Self {
        self.with_program(|_, anonymous| *anonymous = Anonymous::Refused)
    }

    /// Lets those through as well who bring no credential, in the place of the resources. A credential that is brought must be right. Where a permission
    /// is required, the role `anonymous` must have it.
    #[must_use]
    pub fn admits_anyone(self) -> Self {
        self.with_program(|_, anonymous| *anonymous = Anonymous::Admitted)
    }

    /// Puts paths into their one spelling instead of refusing those that are not, for a layer that stands round a whole router, which then sees only what was
    /// checked. Inside of a router, as with axum's `Router::layer`, the route has been chosen by then: never there.
    #[must_use]
    pub fn rewriting_paths(self) -> Self {
        self.with(|settings| settings.paths = Paths::Rewritten)
    }

    /// Finds the client's address, which bounds keys to networks. Without this it is the extension [`Client`]; where none is found, it is the
    /// unspecified address, which lies in no network that anybody would name.
    ///
    /// With axum: `|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip())`.
    #[must_use]
    pub fn client_from(
        self,
        find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.client = Arc::new(find))
    }

    /// More names of header fields that tell who asks, which are taken away when a client sends them. Those that begin with `x-keyward-` always are.
    #[must_use]
    pub fn hiding(self, fields: IdentityFields) -> Self {
        self.with(|settings| settings.fields = fields)
    }

    /// What a body may take where a resource has it read for scripts. Other bodies are not looked at. Without this: 1 MiB, and 30 s.
    #[must_use]
    pub fn body_limits(self, limits: BodyLimits) -> Self {
        self.with(|settings| settings.bodies = limits)
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Arc::unwrap_or_clone(self.0);
        change(&mut settings);
        Self(Arc::new(settings))
    }

    fn with_program(self, change: impl FnOnce(&mut Vec<String>, &mut Anonymous)) -> Self {
        self.with(|settings| {
            let (mut permissions, mut anonymous) = match &settings.admission {
                Admission::Resources => (Vec::new(), Anonymous::Refused),
                Admission::Program { permissions, anonymous } => (permissions.clone(), *anonymous),
            };
            change(&mut permissions, &mut anonymous);
            settings.admission = Admission::Program { permissions, anonymous };
        })
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.admission {
            Admission::Resources => f.write_str("Layer(resources)"),
            Admission::Program { permissions, .. } => write!(f, "Layer({permissions:?})"),
        }
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { layer: self.clone(), inner }
    }
}
