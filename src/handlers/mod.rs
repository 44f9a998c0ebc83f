//! What follows a [`Grant`]: the handlers that do what was asked. None can be called without one.

mod actor;
mod body;
mod entity_user;
mod payload;
mod respond;

use std::fmt;

use ::http::{Response, StatusCode};

pub use actor::actor;
pub use body::{Body, BodyLimits};
pub use payload::{BrokenOff, Flow, Payload};

use crate::{
    accounts::Accounts,
    model::Handler,
    pipeline::{Denial, Grant, Request, Room},
};

/// What a handler answers.
pub type Reply = Response<Payload>;

/// A request that was let in.
#[derive(Debug)]
pub struct Call<'a> {
    /// The right to make it, and the method of the resource that it uses.
    pub grant: Grant<'a>,
    /// The request.
    pub request: Request<'a>,
    /// The values of the path pattern's parameters.
    pub params: matchit::Params<'a, 'a>,
    /// What absolute URLs begin with.
    pub origin: Origin<'a>,
    /// The body.
    pub body: Body,
}

/// What absolute URLs of the public face begin with: scheme and authority, and perhaps a path, without a slash at the end.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// As configured.
    Configured(&'a str),
    /// The authority that the request was sent to.
    Asked(&'a str),
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured(url) => f.write_str(url),
            Self::Asked(authority) => write!(f, "http://{authority}"),
        }
    }
}

/// The handlers, with what they work on. A cheap handle.
#[derive(Clone)]
pub struct Handlers {
    accounts: Accounts,
    limits: BodyLimits,
}

impl Handlers {
    /// The handlers of these accounts.
    pub fn new(accounts: Accounts, limits: BodyLimits) -> Self {
        Self { accounts, limits }
    }

    /// Hands a request to its handler.
    ///
    /// # Errors
    /// What the handler refuses.
    pub async fn answer(&self, call: Call<'_>) -> Result<Reply, Denial> {
        let Some(rule) = call.grant.rule() else {
            return Err(misdirected());
        };
        match rule.resource.handler {
            Handler::Respond => Ok(respond::answer(rule)),
            Handler::EntityUser => entity_user::answer(self, call).await,
        }
    }
}

/// A right that is for something else than a resource opens none.
fn misdirected() -> Denial {
    Denial::message(
        Room::Handler,
        StatusCode::INTERNAL_SERVER_ERROR,
        "INTERNAL_ERROR",
        "The request could not be served.",
    )
    .with_detail("a grant without a resource came to the handlers")
}
