//! Keyward inside another Rust program: a [`tower_layer::Layer`] that authorizes each request
//! before the program's service gets it.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//!
//! use axum::{Extension, Router, routing::get};
//! use keyward::{
//!     Layer,
//!     accounts::{Accounts, Passwords},
//!     layer::CallerIdentity,
//!     model::{Clock, Entropy, Pepper},
//!     pipeline::Gate,
//!     store::MemoryStore,
//! };
//!
//! // A program that stores its users on disk opens a `SledStore`, with `Accounts::open`.
//! let (store, entropy) = (Arc::new(MemoryStore::new()), Entropy::system());
//! let pepper = Pepper::from_bytes(entropy.bytes());
//! let accounts = Accounts::with(store, pepper, Passwords::new(2), Clock::system(), entropy)?;
//! let first = accounts.first_start().await?.expect("the store is empty");
//!
//! async fn hello(Extension(caller): Extension<CallerIdentity>) -> String {
//!     format!("Hello, {}.", caller.name().unwrap_or("stranger"))
//! }
//! let guard = Layer::new(Gate::new(&accounts, 4096)).requires("read reports");
//! let app = Router::new().route("/reports", get(hello)).layer(guard);
//!
//! // The requests of a client.
//! use base64::Engine as _;
//! use tower::ServiceExt as _;
//! let credential = format!("{}:{}", first.username, first.key.expose());
//! let credential = base64::engine::general_purpose::STANDARD.encode(credential);
//! let request = || http::Request::get("/reports");
//! let without = app.clone().oneshot(request().body(axum::body::Body::empty())?).await?;
//! assert_eq!(without.status(), 401);
//! let request = request().header("API-KEY", credential).body(axum::body::Body::empty())?;
//! let with = app.oneshot(request).await?;
//! assert_eq!(with.status(), 200);
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! There are two kinds of rules for access:
//! - The *resources* of the store decide, as in the server ([`Layer::new`]). A request that matches
//!   no resource is denied.
//! - The *program* decides which permission its routes need ([`Layer::requires`],
//!   [`Layer::requires_user`], [`Layer::admits_anyone`]). The resources of the store are not used.
//!
//! The layer needs a tokio runtime with a timer (`enable_time`). The timer limits the time of
//! scripts, and delays the denials of applications with uniform errors.
//!
//! A program without tower calls [`Layer::handle`]. A program that only needs the identity of the
//! caller calls [`Gate::authenticate`](crate::pipeline::Gate::authenticate).
//!
//! Authentication, scripts, and the texts and forms of denials are those of the server. The service
//! behind the layer gets a [`CallerIdentity`] among the request's extensions. The service never
//! gets a header field of the client that could be mistaken for an identity field, and no
//! credential, unless the program calls [`Layer::keeping_credential`].

mod body;
mod handle;
mod identity;
mod service;
mod withheld;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ::http::request::Parts;

pub use body::LayerBody;
pub use identity::CallerIdentity;
use ipnet::IpNet;
pub use service::Guarded;

use crate::{
    handlers::{BodyLimits, IdentityFields},
    pipeline::{Anonymous, Gate},
};

/// Authorizes each request before a service gets it. Cheap to clone.
#[derive(Clone)]
pub struct Layer(Arc<LayerSettings>);

#[derive(Clone)]
struct LayerSettings {
    gate: Gate,
    access: AccessRules,
    paths: PathPolicy,
    find_client: Arc<FindClient>,
    /// The addresses of the trusted proxies in front of the program.
    trusted: Arc<[IpNet]>,
    identity_fields: IdentityFields,
    body_limits: BodyLimits,
    keeps_credential: bool,
}

type FindClient = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

/// The source of the rules for access.
#[derive(Clone)]
enum AccessRules {
    /// The resources of the store.
    Resources,
    /// The program, with the same rule for all requests.
    Program { permissions: Vec<String>, anonymous: Anonymous },
}

/// The treatment of a path that is not in its normal form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathPolicy {
    /// Reject the path, because a router around the layer may have interpreted the path in another
    /// way.
    Reject,
    /// Rewrite the path before anything behind the layer reads it.
    Rewrite,
}

/// The address of the client, as an extension of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The default limits of a body that is read for scripts.
const BODY_LIMITS: BodyLimits = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(30) };

impl Layer {
    /// Creates a layer whose access rules are the resources of the gate's store. Each request needs
    /// a host, as in the server.
    pub fn new(gate: Gate) -> Self {
        Self(Arc::new(LayerSettings {
            gate,
            access: AccessRules::Resources,
            paths: PathPolicy::Reject,
            find_client: Arc::new(|parts| Some(parts.extensions.get::<ClientAddress>()?.0)),
            trusted: Arc::default(),
            identity_fields: IdentityFields::default(),
            body_limits: BODY_LIMITS,
            keeps_credential: false,
        }))
    }

    /// Requires a permission, instead of using the resources. Call this method again to require
    /// several permissions.
    #[must_use]
    pub fn requires(self, permission: impl Into<String>) -> Self {
        self.with_program(|permissions, _| permissions.push(permission.into()))
    }

    /// Requires an authenticated user and nothing else, instead of using the resources.
    #[must_use]
    pub fn requires_user(self) -> Self {
        self.with_program(|_, anonymous| *anonymous = Anonymous::Refused)
    }

    /// Admits also requests without a credential, instead of using the resources. A credential that
    /// is sent must be valid. If a permission is required, the role `anonymous` must have that
    /// permission.
    #[must_use]
    pub fn admits_anyone(self) -> Self {
        self.with_program(|_, anonymous| *anonymous = Anonymous::Admitted)
    }

    /// Rewrites each path into its normal form, instead of rejecting paths in another form. This
    /// method is for a layer around a whole router, so that the router sees only the checked path.
    /// Never use this method for a layer inside a router, such as axum's `Router::layer`, because
    /// the router chooses the route before the layer runs.
    #[must_use]
    pub fn rewriting_paths(self) -> Self {
        self.with(|settings| settings.paths = PathPolicy::Rewrite)
    }

    /// Sets the function that finds the client's address, which decides whether a key that is bound
    /// to networks may be used. The default function reads the extension [`ClientAddress`]. A
    /// request without an address gets the unspecified address, which is in no network that a key
    /// would name.
    ///
    /// With axum: `|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip())`.
    #[must_use]
    pub fn client_from(
        self,
        find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.find_client = Arc::new(find))
    }

    /// Trusts the proxies at these addresses, as `server.trusted_proxies` does in the server: if
    /// the address that [`Layer::client_from`] finds belongs to such a proxy, the client's address
    /// and scheme are what the proxy reports in `X-Forwarded-For`, `X-Forwarded-Proto` or
    /// `Forwarded`. A report that cannot be read, or that contradicts itself, is denied with 400.
    /// By default, no proxy is trusted, and these fields do not count.
    ///
    /// A function for `client_from` that reads these fields itself believes every client that
    /// reaches the program without the proxy.
    #[must_use]
    pub fn trusting_proxies(self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        let proxies = proxies.into_iter().collect();
        self.with(|settings| settings.trusted = proxies)
    }

    /// Sets the names of the identity fields. The layer removes fields of these names from
    /// requests. Fields whose name begins with `x-keyward-` are always removed.
    #[must_use]
    pub fn hiding(self, fields: IdentityFields) -> Self {
        self.with(|settings| settings.identity_fields = fields)
    }

    /// Passes the client's credential and `AUTH-METHOD` on to the service. Without this method, the
    /// layer removes them from the header fields, the cookies and the query of the request.
    #[must_use]
    pub fn keeping_credential(self) -> Self {
        self.with(|settings| settings.keeps_credential = true)
    }

    /// Sets the limits of a body that the layer reads because a resource lets scripts read the
    /// body. The layer does not read other bodies. The default is 1 MiB and 30 s.
    #[must_use]
    pub fn body_limits(self, limits: BodyLimits) -> Self {
        self.with(|settings| settings.body_limits = limits)
    }

    fn with(self, change: impl FnOnce(&mut LayerSettings)) -> Self {
        let mut settings = Arc::unwrap_or_clone(self.0);
        change(&mut settings);
        Self(Arc::new(settings))
    }

    fn with_program(self, change: impl FnOnce(&mut Vec<String>, &mut Anonymous)) -> Self {
        self.with(|settings| {
            let (mut permissions, mut anonymous) = match &settings.access {
                AccessRules::Resources => (Vec::new(), Anonymous::Refused),
                AccessRules::Program { permissions, anonymous } => {
                    (permissions.clone(), *anonymous)
                }
            };
            change(&mut permissions, &mut anonymous);
            settings.access = AccessRules::Program { permissions, anonymous };
        })
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.access {
            AccessRules::Resources => f.write_str("Layer(resources)"),
            AccessRules::Program { permissions, .. } => write!(f, "Layer({permissions:?})"),
        }
    }
}

impl<S> tower_layer::Layer<S> for Layer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { layer: self.clone(), inner }
    }
}
