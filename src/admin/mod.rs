//! The admin API.

use std::net::IpAddr;

use ::http::{StatusCode, request::Parts};

use crate::{
    accounts::Accounts,
    handlers::{Body, BodyLimits, Reply},
    pipeline::{Denial, Gate, Room},
};

/// The admin API.
#[derive(Clone)]
pub struct Api;

impl Api {
    /// stub
    pub fn new(_: Gate, _: Accounts, _: BodyLimits) -> Self {
        Self
    }

    /// stub
    pub async fn decide(&self, _: &Parts, _: Body, _: IpAddr) -> Result<Reply, Denial> {
        Err(Denial::new(Room::Edge, StatusCode::NOT_IMPLEMENTED, "STUB", "stub"))
    }
}

impl crate::http::Answer for Api {
    type Body = crate::handlers::Payload;

    async fn answer(
        &self,
        request: hyper::Request<hyper::body::Incoming>,
        peer: &crate::http::Peer,
    ) -> Reply {
        let (parts, body) = request.into_parts();
        let reply = match self.decide(&parts, Body::Stream(body), peer.client()).await {
            Ok(reply) => reply,
            Err(denial) => {
                crate::http::answer::report(&denial, &parts, peer);
                crate::http::answer::denial(&denial)
            }
        };
        crate::http::answer::finish(&parts.method, reply)
    }
}
