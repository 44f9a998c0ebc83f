//! The admin API as the listener and the command line ask it: every refusal becomes an answer.

use std::net::{IpAddr, Ipv4Addr};

use ::http::request::Parts;
use bytes::Bytes;
use hyper::body::Incoming;

use crate::{
    accounts::Accounts,
    api::Api,
    cli::client::local::{InProcessApi, ApiFuture},
    config::Settings,
    handlers::{RequestBody, BodyLimits, Payload, PayloadResponse, UrlScheme},
    http::response,
    pipeline::{Denial, Gate},
    server::{Service, Explainer, Peer},
};

/// The admin API of the accounts that the configuration names.
#[derive(Clone)]
pub struct AdminFace(Api);

impl AdminFace {
    /// The API behind this gate.
    pub fn new(gate: Gate, accounts: Accounts, settings: &Settings) -> Self {
        let scheme = match settings.server.tls {
            Some(_) => UrlScheme::Https,
            None => UrlScheme::Http,
        };
        let explainer = Explainer::new(gate.clone(), settings.server.public_url.clone(), scheme);
        Self(Api::new(gate, accounts, body_limits(settings)).explaining(explainer))
    }
}

/// What a request's body may take, on every face.
pub fn body_limits(settings: &Settings) -> BodyLimits {
    let limits = &settings.limits;
    BodyLimits { bytes: limits.body_bytes, read: limits.body_read }
}

impl Service for AdminFace {
    type Body = Payload;

    async fn respond(&self, request: hyper::Request<Incoming>, peer: &Peer) -> PayloadResponse {
        let (parts, body) = request.into_parts();
        let decided = self.0.decide(&parts, RequestBody::Stream(body), peer.client()).await;
        let reply = decided.unwrap_or_else(|denial| {
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            response::from_denial(&denial)
        });
        response::for_method(&parts.method, reply)
    }
}

/// There is no log here, and whoever asks is the operator: what the log would be told is told too.
fn told(denial: Denial) -> Denial {
    let Some(detail) = denial.internal_message.as_deref().filter(|_| denial.status.is_server_error()) else {
        return denial;
    };
    let said = format!("{} {detail}", denial.external_message);
    Denial::new(denial.phase, denial.status, denial.code.clone(), said).in_shape(denial.shape)
}

impl InProcessApi for AdminFace {
    fn decide<'a>(&'a self, request: &'a Parts, body: Bytes) -> ApiFuture<'a> {
        Box::pin(async move {
            let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let decided = self.0.decide(request, RequestBody::Full(body), here).await;
            decided.unwrap_or_else(|denial| response::from_denial(&told(denial)))
        })
    }
}
