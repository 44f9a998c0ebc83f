//! The gate inside another Rust program: a [`tower_layer::Layer`] around its service.
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
//! - the *resources* of the store, as for the server ([`Layer::new`]). A request that matches no
//!   resource is denied;
//! - the *program* itself ([`Layer::requires`], [`Layer::requires_user`],
//!   [`Layer::admits_anyone`]), which has routes of its own.
//!
//! The layer needs tokio with the runtime's timer (`enable_time`): the timer bounds scripts, and
//! delays the denials of applications with uniform errors.
//!
//! A program without tower calls [`Layer::handle`]. A program that only needs the identity of the
//! caller calls [`Gate::authenticate`](crate::pipeline::Gate::authenticate).
//!
//! Authentication, scripts, and the texts and forms of denials are those of the server. The service
//! behind the layer gets a [`CallerIdentity`] among the request's extensions, and none of the
//! header fields that could be taken for an identity field.

mod body;
mod handle;
mod identity;
mod service;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use ::http::request::Parts;

pub use body::LayerBody;
pub use identity::CallerIdentity;
pub use service::Guarded;

use crate::{
    handlers::{BodyLimits, IdentityFields},
    pipeline::{Anonymous, Gate},
};

/// The gate in front of a service. A cheap handle.
#[derive(Clone)]
pub struct Layer(Arc<LayerSettings>);

#[derive(Clone)]
struct LayerSettings {
    gate: Gate,
    access: AccessRules,
    paths: PathPolicy,
    find_client: Arc<FindClient>,
    identity_fields: IdentityFields,
    body_limits: BodyLimits,
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
    /// Reject it: a router outside may have read it in another way than we do.
    Reject,
    /// Rewrite it, before anything behind the layer reads it.
    Rewrite,
}

/// The address of the client, as an extension of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The default limits of a body that is read for scripts.
const BODY_LIMITS: BodyLimits = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(30) };

impl Layer {
    /// The gate, with the resources of its store as rules. Requests need a host, as for the server.
    pub fn new(gate: Gate) -> Self {
        Self(Arc::new(LayerSettings {
            gate,
            access: AccessRules::Resources,
            paths: PathPolicy::Reject,
            find_client: Arc::new(|parts| Some(parts.extensions.get::<ClientAddress>()?.0)),
            identity_fields: IdentityFields::default(),
            body_limits: BODY_LIMITS,
        }))
    }

    /// Requires a permission, instead of using the resources. Call it again to require several.
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
    /// is sent must be valid. Where a permission is required, the role `anonymous` must have it.
    #[must_use]
    pub fn admits_anyone(self) -> Self {
        self.with_program(|_, anonymous| *anonymous = Anonymous::Admitted)
    }

    /// Rewrites paths into their normal form instead of rejecting those in another form. For a
    /// layer around a whole router, which then sees only the checked path. Never use it inside of a
    /// router, as with axum's `Router::layer`: there the route has been chosen already.
    #[must_use]
    pub fn rewriting_paths(self) -> Self {
        self.with(|settings| settings.paths = PathPolicy::Rewrite)
    }

    /// Finds the client's address, with which keys are bound to networks. The default is the
    /// extension [`ClientAddress`]. A request without an address gets the unspecified address,
    /// which is in no network that a key would name.
    ///
    /// With axum: `|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip())`.
    #[must_use]
    pub fn client_from(
        self,
        find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.with(|settings| settings.find_client = Arc::new(find))
    }

    /// Sets the names of the identity fields. The layer removes fields of these names from
    /// requests. Fields whose name begins with `x-keyward-` are always removed.
    #[must_use]
    pub fn hiding(self, fields: IdentityFields) -> Self {
        self.with(|settings| settings.identity_fields = fields)
    }

    /// Sets the limits of a body that is read for scripts, where a resource says so. Other bodies
    /// are not read. The default is 1 MiB and 30 s.
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
