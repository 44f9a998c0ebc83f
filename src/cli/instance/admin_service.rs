//! The admin API as a service for the admin listener and for the command line. A denial becomes an
//! error response.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ::http::{Method, request::Parts};
use bytes::Bytes;
use hyper::body::Incoming;
use rustix::process::geteuid;

use crate::{
    accounts::Accounts,
    api::{Api, HostNames},
    cli::{
        client::local::{ApiFuture, InProcessApi},
        instance::{metrics::MetricsPage, tls::ListenerCertificates, users},
    },
    config::Settings,
    handlers::{BodyLimits, ClientBody, Payload, PayloadResponse, RequestBody, UrlScheme},
    http::{method, response},
    model::OperatorProcess,
    pipeline::{Denial, Gate, record::RequestRecord},
    server::{Explainer, Peer, Service},
};

/// The admin API.
#[derive(Clone)]
pub struct AdminFace {
    api: Api,
    /// The names of the admin listener. `None` means that no listener on TCP serves the API.
    names: Option<Arc<HostNames>>,
    /// `None` means no metrics.
    metrics: Option<MetricsPage>,
}

impl AdminFace {
    /// Creates the admin API of `accounts`. `gate` decides which requests are allowed.
    pub fn new(gate: Gate, accounts: Accounts, settings: &Settings) -> Self {
        let scheme = match settings.server.tls {
            Some(_) => UrlScheme::Https,
            None => UrlScheme::Http,
        };
        let explainer = Explainer::new(gate.clone(), settings.server.public_url.clone(), scheme);
        let api = Api::new(gate, accounts, body_limits(settings)).explaining(explainer);
        Self { api, names: None, metrics: None }
    }

    /// Responds only to requests for these names, except on Unix sockets, which no browser reaches.
    #[must_use]
    pub fn with_host_names(self, names: Option<HostNames>) -> Self {
        Self { names: names.map(Arc::new), ..self }
    }

    /// Responds to requests for the metrics.
    #[must_use]
    pub fn with_metrics(self, metrics: Option<MetricsPage>) -> Self {
        Self { metrics, ..self }
    }

    /// Lets the health check show the problem of the listeners' certificates.
    #[must_use]
    pub fn with_certificates(self, certificates: ListenerCertificates) -> Self {
        Self { api: self.api.with_certificates(move || certificates.problem()), ..self }
    }

    async fn decide(
        &self,
        head: &Parts,
        body: RequestBody,
        peer: &Peer,
        record: &RequestRecord,
    ) -> Result<PayloadResponse, Denial> {
        if let Some(names) = self.names.as_ref().filter(|_| !peer.is_unix_socket()) {
            names.check(head)?;
        }
        if let Some(response) = self.metrics.as_ref().and_then(|page| page.respond(head, peer)) {
            return response;
        }
        let process = peer.unix_user().map(process_of);
        self.api.decide_for(head, body, peer.client(), process, record).await
    }
}

/// A process of this Unix user.
fn process_of(uid: u32) -> OperatorProcess {
    OperatorProcess { uid: Some(uid), name: users::name(uid), command: None }
}

/// Returns the limits of request bodies, which are the same for all listeners.
pub fn body_limits(settings: &Settings) -> BodyLimits {
    let limits = &settings.limits;
    BodyLimits { bytes: limits.body_bytes, read: limits.body_read }
}

impl Service for AdminFace {
    type Body = Payload;

    async fn respond(
        &self,
        request: hyper::Request<Incoming>,
        peer: &Peer,
        record: &RequestRecord,
    ) -> PayloadResponse {
        let (mut parts, body) = request.into_parts();
        let is_read_as_other = method::normalise(&mut parts.method);
        let body = RequestBody::Stream(ClientBody::new(body, parts.version));
        record.describe(&parts.method, parts.uri.path(), None, peer.client());
        let result = self.decide(&parts, body, peer, record).await;
        let response = result.unwrap_or_else(|denial| {
            record.denied(&denial);
            response::report(&denial, &parts.method, parts.uri.path(), peer.client());
            response::from_denial(&denial)
        });
        let response = response::for_method(&parts.method, response);
        if is_read_as_other && parts.method == Method::HEAD {
            return method::without_length(response);
        }
        response
    }
}

/// Adds the internal message of a server error to the error's external message: the command line
/// has no log, and the caller is the operator, who may see internal messages.
fn with_internal_message(denial: Denial) -> Denial {
    let Some(detail) =
        denial.internal_message.as_deref().filter(|_| denial.status.is_server_error())
    else {
        return denial;
    };
    let message = format!("{} {detail}", denial.external_message);
    Denial::new(denial.phase, denial.status, denial.code.clone(), message).in_shape(denial.shape)
}

impl InProcessApi for AdminFace {
    fn respond<'a>(&'a self, request: &'a Parts, body: Bytes) -> ApiFuture<'a> {
        Box::pin(async move {
            let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let process = Some(process_of(geteuid().as_raw()));
            let body = RequestBody::Full(body);
            let record = RequestRecord::off();
            let result = self.api.decide_for(request, body, client, process, &record).await;
            result.unwrap_or_else(|denial| response::from_denial(&with_internal_message(denial)))
        })
    }
}
