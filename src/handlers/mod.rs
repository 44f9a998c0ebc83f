//! The handlers of resources: each handler responds to the requests that the pipeline has granted.
//! A handler cannot be called without a [`Grant`].

#[cfg(feature = "server")]
mod actor;
mod body;
#[cfg(feature = "server")]
mod client_body;
#[cfg(feature = "server")]
mod custom_field;
#[cfg(feature = "server")]
pub(crate) mod entity_user;
mod identity;
mod override_fields;
mod payload;
#[cfg(feature = "server")]
mod proxy;
#[cfg(feature = "server")]
mod respond;
#[cfg(feature = "server")]
mod script;
#[cfg(feature = "server")]
mod trailers;

use std::fmt;
#[cfg(feature = "server")]
use std::{net::IpAddr, sync::Arc};

use ::http::Response;
#[cfg(feature = "server")]
use ::http::StatusCode;
#[cfg(feature = "server")]
use ipnet::IpNet;

#[cfg(feature = "server")]
pub use actor::writer;
#[cfg(feature = "server")]
pub use body::RequestBody;
pub(crate) use body::hold_body;
pub use body::{BodyLimits, read_body};
#[cfg(feature = "server")]
pub use client_body::ClientBody;
#[cfg(feature = "server")]
pub use custom_field::{CustomField, CustomType};
#[cfg(feature = "server")]
use hyper::upgrade::OnUpgrade;
pub use identity::IdentityFields;
#[cfg(feature = "server")]
pub(crate) use identity::IdentityHeader;
pub(crate) use override_fields::is_override;
pub use payload::{BodyError, BodyStream, PassThrough, Payload};
#[cfg(feature = "server")]
use proxy::Proxies;
#[cfg(feature = "server")]
pub(crate) use trailers::is_forbidden_trailer;

#[cfg(feature = "server")]
use crate::{
    accounts::Accounts,
    model::Handler,
    pipeline::{AuditScope, Denial, Grant, Phase, Request, RequestContext},
};

/// The response of a handler.
pub type PayloadResponse = Response<Payload>;

#[cfg(feature = "server")]
/// A request that the pipeline has granted.
pub struct HandlerRequest<'a> {
    /// The grant, with the user and the method of the resource.
    pub grant: Grant<'a>,
    /// The request.
    pub request: Request<'a>,
    /// The context of the decision about the request.
    pub context: &'a RequestContext,
    /// The values of the path pattern's parameters.
    pub params: matchit::Params<'a, 'a>,
    /// The beginning of absolute URLs.
    pub origin: Origin<'a>,
    /// How the request came from the client to this server.
    pub hop: Hop<'a>,
    /// The body.
    pub body: RequestBody,
    /// The upgrade of the connection. `None` means that the client does not ask for another
    /// protocol.
    pub upgrade: Option<OnUpgrade>,
}

#[cfg(feature = "server")]
/// How a request came from the client to this server, as the trusted proxies in front report it.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// The client's address. The peer of a unix socket has the loopback address.
    pub client: IpAddr,
    /// The trusted proxies between the client and this server, the client's neighbor first. Empty
    /// means that the client is connected to this server.
    pub proxies: &'a [IpAddr],
    /// The scheme of the client's request.
    pub scheme: UrlScheme,
    /// Host and port of the client's request.
    pub host: &'a str,
    /// The port to which the client sent its request, if a proxy reports the port.
    pub port: Option<u16>,
    /// The prefix that proxies have removed from the path, without a trailing slash.
    pub prefix: Option<&'a str>,
    /// Host and port as this server received them, in their normal form.
    pub authority: &'a str,
}

#[cfg(feature = "server")]
impl<'a> Hop<'a> {
    /// The hop of a client that is connected to this server.
    pub fn direct(client: IpAddr, scheme: UrlScheme, authority: &'a str) -> Self {
        let (proxies, port, prefix) = (&[], None, None);
        Self { client, proxies, scheme, host: authority, port, prefix, authority }
    }
}

/// The scheme of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlScheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

impl UrlScheme {
    /// The name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port of a URL without a port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The beginning of the absolute URLs in responses: scheme and authority, optionally a path,
/// without a trailing slash.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// The configured URL.
    Configured(&'a str),
    /// The scheme and the authority of the request.
    Requested(UrlScheme, &'a str),
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(url) => f.write_str(url),
            Self::Requested(scheme, authority) => write!(f, "{}://{authority}", scheme.name()),
        }
    }
}

#[cfg(feature = "server")]
/// All handlers, with the state that they need. Cheap to clone.
#[derive(Clone)]
pub struct Handlers {
    accounts: Accounts,
    limits: BodyLimits,
    identity_fields: Arc<IdentityFields>,
    proxies: Arc<Proxies>,
    custom_fields: Arc<[&'static CustomField]>,
}

#[cfg(feature = "server")]
impl Handlers {
    /// Creates the handlers for these accounts, with the default names of the identity header
    /// fields.
    pub fn new(accounts: Accounts, limits: BodyLimits) -> Self {
        let (identity_fields, proxies) = (Arc::default(), Arc::default());
        let custom_fields = Arc::default();
        Self { accounts, limits, identity_fields, proxies, custom_fields }
            .with_upstream_networks([])
    }

    /// Sets the networks in which upstreams may be. Empty means every network, except link-local,
    /// multicast, unspecified and cloud metadata addresses, and names that resolve to this machine.
    #[must_use]
    pub fn with_upstream_networks(self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        let proxies = Proxies::for_networks(networks, &self.accounts);
        Self { proxies: Arc::new(proxies), ..self }
    }

    /// Sets the custom fields of the user entity. They are kept as long as the program runs.
    #[must_use]
    pub fn with_custom_fields(mut self, fields: Vec<CustomField>) -> Self {
        let fields = fields.into_iter().map(|field| &*Box::leak(Box::new(field)));
        self.custom_fields = fields.collect();
        self
    }

    /// Sets the names of the identity header fields.
    #[must_use]
    pub fn with_identity_fields(mut self, fields: IdentityFields) -> Self {
        self.identity_fields = Arc::new(fields);
        self
    }

    /// The names of the identity header fields.
    pub fn identity_fields(&self) -> &IdentityFields {
        &self.identity_fields
    }

    /// The accounts whose requests the handlers serve.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The limits of request bodies.
    pub fn body_limits(&self) -> &BodyLimits {
        &self.limits
    }

    /// Runs the handler of the resource. The audit trail records a 401 or 403 of the handler.
    ///
    /// # Errors
    /// The handler refuses the request.
    pub async fn respond(&self, request: HandlerRequest<'_>) -> Result<PayloadResponse, Denial> {
        let Some(rule) = request.grant.rule() else {
            return Err(no_resource());
        };
        let audit = AuditScope::new(request.context, &request.request, &request.grant);
        let result = match &rule.resource.handler {
            Handler::Respond => Ok(respond::respond(rule)),
            Handler::EntityUser => entity_user::respond(self, request).await,
            // On the heap, because these futures are large and each future is moved before it runs.
            Handler::Proxy => Box::pin(proxy::respond(self, request)).await,
            Handler::Decide => Err(served_elsewhere()),
            Handler::Script(name) => Box::pin(script::respond(name, &request)).await,
        };
        result.inspect_err(|denial| audit.record(denial))
    }
}

#[cfg(feature = "server")]
/// The denial for a resource that another proxy serves (RFC 9110, section 15.5.20).
fn served_elsewhere() -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::MISDIRECTED_REQUEST,
        "RESOURCE_ELSEWHERE",
        "Another server serves this resource. Send the request to that server.",
    )
    .with_internal_message("resources with the handler decide are available at /-/verify only")
}

#[cfg(feature = "server")]
/// The denial for a grant that is not about a resource.
fn no_resource() -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL_ERROR",
        "The request could not be served.",
    )
    .with_internal_message("the handlers got a grant without a resource")
}
