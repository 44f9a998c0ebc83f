//! Keyward inside another Rust program: a [`tower_layer::Layer`] that authorizes each request
//! before the program's service gets it.
//!
//! ```
//! # async fn example(keyward: keyward::Keyward, service: tower::util::BoxCloneSyncService<
//! #     http::Request<http_body_util::Full<bytes::Bytes>>,
//! #     http::Response<http_body_util::Full<bytes::Bytes>>, std::convert::Infallible>) {
//! use tower::ServiceBuilder;
//! let service = ServiceBuilder::new()
//!     .layer(keyward.guard().requires("read reports"))
//!     .service(service);
//! # drop(service); }
//! ```
//!
//! There are two kinds of rules for access:
//! - The *resources* of the store decide, as in the server ([`GuardLayer::new`]). A request that
//!   matches no resource is denied.
//! - The *program* decides which permission its routes need ([`GuardLayer::requires`],
//!   [`GuardLayer::requires_user`], [`GuardLayer::admits_anyone`]). The resources of the store are
//!   not used.
//!
//! The layer needs a tokio runtime with a timer (`enable_time`). The timer limits the time of
//! scripts, and delays the denials of applications with uniform errors.
//!
//! A program without tower calls [`GuardLayer::handle`]. A program that only needs the identity of
//! the caller calls [`Gate::authenticate`](crate::pipeline::Gate::authenticate).
//!
//! Authentication, scripts, and the texts and forms of denials are those of the server. The service
//! behind the layer gets a [`Identity`] among the request's extensions. The service never
//! gets a header field of the client that could be mistaken for an identity field, and no
//! credential, unless the program calls [`GuardLayer::keeping_credential`].

mod body;
mod client;
mod earlier;
#[cfg(feature = "axum")]
mod extract;
mod handle;
mod identity;
mod service;
mod target;
mod withheld;

use std::{any::Any, fmt, sync::Arc, time::Duration};

use ::http::{Uri, request::Parts};

pub use body::LayerBody;
use client::Client;
pub use client::{ClientAddress, ClientSource};
pub use identity::Identity;
use ipnet::IpNet;
pub use service::{Guarded, WrappingGuardLayer, WrappingGuarded};
use target::TargetSource;

use crate::{
    handlers::{BodyLimits, IdentityFields},
    pipeline::{Anonymous, Gate},
};

/// Authorizes each request before a service gets it: a layer for `tower` and axum.
/// [`Keyward::guard`](crate::Keyward::guard) makes it. Cheap to clone.
///
/// Several guards around one service decide about a request once: the outermost guard decides, and
/// each further guard with the same accounts narrows this decision.
#[derive(Clone)]
pub struct GuardLayer(Arc<GuardSettings>);

#[derive(Clone)]
struct GuardSettings {
    gate: Gate,
    access: AccessRules,
    paths: PathPolicy,
    target: TargetSource,
    client: ClientSource,
    /// Whether the accounts have failure limits, which need the client's address.
    counts_failures: bool,
    /// The addresses of the trusted proxies in front of the program.
    trusted: Arc<[IpNet]>,
    identity_fields: IdentityFields,
    body_limits: BodyLimits,
    buffers_body: bool,
    keeps_credential: bool,
    /// Ends when the last guard is dropped.
    owner: Option<Arc<dyn Any + Send + Sync>>,
}

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
    /// Reject the path, because a router around the guard may have interpreted the path in another
    /// way.
    Reject,
    /// Rewrite the path before anything behind the guard reads it.
    Rewrite,
}

/// The default limits of a body that is read for scripts.
const BODY_LIMITS: BodyLimits = BodyLimits { bytes: 1 << 20, read: Duration::from_secs(30) };

impl GuardLayer {
    /// Creates a guard whose access rules are the resources of the gate's store. Each request needs
    /// a host, as in the server.
    pub fn new(gate: Gate, client: ClientSource) -> Self {
        let counts_failures = gate.accounts().counters().counts_failures();
        Self(Arc::new(GuardSettings {
            gate,
            access: AccessRules::Resources,
            paths: PathPolicy::Reject,
            target: TargetSource::default(),
            client,
            counts_failures,
            trusted: Arc::default(),
            identity_fields: IdentityFields::default(),
            body_limits: BODY_LIMITS,
            buffers_body: false,
            keeps_credential: false,
            owner: None,
        }))
    }

    /// Requires a permission, instead of using the resources. Call this method again to require
    /// several permissions. If no role grants the permission, so that only administrators have it,
    /// the log has a warning: the name may be mistyped.
    #[must_use]
    pub fn requires(self, permission: impl Into<String>) -> Self {
        let permission = permission.into();
        let policy = self.0.gate.accounts().directory().policy();
        if !policy.roles.roles().any(|role| role.permissions.contains(&permission)) {
            tracing::warn!(permission, "a guard requires a permission that no role grants");
        }
        self.with_program(|permissions, _| permissions.push(permission))
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
    /// method is for a guard around a whole router, so that the router sees only the checked path.
    /// A guard inside an axum router rejects such paths even so, because the router has chosen the
    /// route already. Inside any other router, never use this method.
    #[must_use]
    pub fn rewriting_paths(self) -> Self {
        self.with(|settings| settings.paths = PathPolicy::Rewrite)
    }

    /// Sets the function that finds the target that the client has sent, for a guard inside a
    /// router that shortens or rewrites paths. Resources and scripts decide about this target.
    /// `None` means that the target is not known, and the request is refused with 500.
    ///
    /// Without this function, the target is that of the request. Inside axum's nested routers, it
    /// is the target that the outermost router has got (`OriginalUri`); this needs the feature
    /// `axum`, and without it a guard refuses every request that has a body of axum.
    #[must_use]
    pub fn target_from(self, find: impl Fn(&Parts) -> Option<Uri> + Send + Sync + 'static) -> Self {
        self.with(|settings| settings.target = TargetSource::Program(Arc::new(find)))
    }

    /// Trusts the proxies at these addresses, as `server.trusted_proxies` does in the server: if
    /// the address of the [`ClientSource`] belongs to such a proxy, the client's address
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

    /// Reads each body before the decision, up to this size, so that scripts can check it: for
    /// example the signature of a shipped HMAC script. A larger body is refused with 413. With
    /// several guards around one service, the outermost guard reads the body.
    #[must_use]
    pub fn buffer_body(self, bytes: usize) -> Self {
        self.with(|settings| {
            settings.buffers_body = true;
            settings.body_limits.bytes = bytes;
        })
    }

    /// A guard for services whose request bodies cannot be made from bytes, such as hyper's
    /// `Incoming`. The service gets a [`LayerBody`] around the body of the client.
    #[must_use]
    pub fn wrapping_bodies(self) -> WrappingGuardLayer {
        WrappingGuardLayer(self)
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

    /// Keeps this value as long as the guard.
    pub(crate) fn owned_by(self, owner: Arc<dyn Any + Send + Sync>) -> Self {
        self.with(|settings| settings.owner = Some(owner))
    }

    fn with(self, change: impl FnOnce(&mut GuardSettings)) -> Self {
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

impl fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.access {
            AccessRules::Resources => f.write_str("GuardLayer(resources)"),
            AccessRules::Program { permissions, .. } => write!(f, "GuardLayer({permissions:?})"),
        }
    }
}
