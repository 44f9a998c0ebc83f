//! What follows a [`Grant`]: the handlers that do what was asked. None can be called without one.

mod actor;
mod body;
mod entity_user;
mod identity;
mod payload;
mod proxy;
mod respond;
mod script;

use std::{fmt, net::IpAddr, sync::Arc};

use ::http::{Response, StatusCode};

pub use actor::actor;
pub use body::{Body, BodyLimits, whole};
use hyper::upgrade::OnUpgrade;
pub use identity::IdentityFields;
pub(crate) use identity::Told;
pub use payload::{BrokenOff, Flow, Foreign, Payload};
use proxy::Proxies;

use crate::{
    accounts::Accounts,
    model::Handler,
    pipeline::{AuditScope, Denial, Grant, Phase, Request, RequestContext},
};

/// What a handler answers.
pub type PayloadResponse = Response<Payload>;

/// A request that was let in.
pub struct Call<'a> {
    /// The right to make it, and the method of the resource that it uses.
    pub grant: Grant<'a>,
    /// The request.
    pub request: Request<'a>,
    /// What it is decided by.
    pub scene: &'a RequestContext,
    /// The values of the path pattern's parameters.
    pub params: matchit::Params<'a, 'a>,
    /// What absolute URLs begin with.
    pub origin: Origin<'a>,
    /// How it came here.
    pub hop: Hop<'a>,
    /// The body.
    pub body: Body,
    /// The connection, where the client wants to change its protocol.
    pub upgrade: Option<OnUpgrade>,
}

/// The last stretch of a request's way.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// What the client speaks.
    pub scheme: Scheme,
    /// Host and port as the client wrote them.
    pub authority: &'a str,
    /// The other end of the connection. A unix socket's is the loopback address.
    pub peer: IpAddr,
    /// Whether what it says of the way before is believed.
    pub is_trusted: bool,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP in the clear.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The name in URLs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What absolute URLs of the public face begin with: scheme and authority, and perhaps a path, without a slash at the end.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// As configured.
    Configured(&'a str),
    /// Scheme and authority that the request was sent to.
    Asked(Scheme, &'a str),
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(url) => f.write_str(url),
            Self::Asked(scheme, authority) => write!(f, "{}://{authority}", scheme.name()),
        }
    }
}

/// The handlers, with what they work on. A cheap handle.
#[derive(Clone)]
pub struct Handlers {
    accounts: Accounts,
    limits: BodyLimits,
    fields: Arc<IdentityFields>,
    proxies: Arc<Proxies>,
}

impl Handlers {
    /// The handlers of these accounts, with the usual names for who asks.
    pub fn new(accounts: Accounts, limits: BodyLimits) -> Self {
        Self { accounts, limits, fields: Arc::default(), proxies: Arc::default() }
    }

    /// The same with other names for who asks.
    #[must_use]
    pub fn telling(mut self, fields: IdentityFields) -> Self {
        self.fields = Arc::new(fields);
        self
    }

    /// The header fields that tell who asks.
    pub fn identity_fields(&self) -> &IdentityFields {
        &self.fields
    }

    /// What a body may take.
    pub fn body_limits(&self) -> &BodyLimits {
        &self.limits
    }

    /// Hands a request to its handler.
    ///
    /// # Errors
    /// What the handler refuses.
    pub async fn answer(&self, call: Call<'_>) -> Result<PayloadResponse, Denial> {
        let Some(rule) = call.grant.rule() else {
            return Err(misdirected());
        };
        let witness = AuditScope::new(call.scene, &call.request, &call.grant);
        let answered = match &rule.resource.handler {
            Handler::Respond => Ok(respond::answer(rule)),
            Handler::EntityUser => entity_user::answer(self, call).await,
            // On the heap: they are large, and a future is moved before it runs.
            Handler::Proxy => Box::pin(proxy::answer(self, call)).await,
            Handler::Decide => Err(elsewhere()),
            Handler::Script(name) => Box::pin(script::answer(name, &call)).await,
        };
        answered.inspect_err(|denial| witness.hear(denial))
    }
}

/// What other proxies ask about is not here (RFC 9110, section 15.5.20).
fn elsewhere() -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::MISDIRECTED_REQUEST,
        "RESOURCE_ELSEWHERE",
        "This resource is served elsewhere. Ask for it there.",
    )
    .with_detail("the handler decide answers at /-/verify alone")
}

/// A right that is for something else than a resource opens none.
fn misdirected() -> Denial {
    Denial::message(
        Phase::Handler,
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL_ERROR",
        "The request could not be served.",
    )
    .with_detail("a grant without a resource came to the handlers")
}
