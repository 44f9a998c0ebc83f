//! Decisions for other proxies: one asks whether a request may pass that it holds, and learns who sent it.

pub(super) mod dialects;
pub(super) mod envoy;
pub(super) mod identity_headers;

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, header::InvalidHeaderValue, request::Parts,
};

use super::{
    Peer, Public,
    verify::dialects::{Dialect, Original, is_among},
};
use crate::{
    handlers::{Origin, PayloadResponse},
    http::{aim, path, response, unreadable},
    pipeline::{Denial, Face, Phase, Request},
};

/// The status of a refusal, where the proxy cannot carry it.
const STATUS: HeaderName = HeaderName::from_static("x-keyward-status");
/// The body of a refusal, in one line, where the proxy cannot carry it.
const BODY: HeaderName = HeaderName::from_static("x-keyward-body");

impl Public {
    /// Answers a proxy that asks in this dialect.
    pub(super) async fn verify(
        &self,
        dialect: Dialect,
        asked: &Parts,
        peer: &Peer,
    ) -> PayloadResponse {
        let refused = |denial: &Denial, original: Option<&Original<'_>>| {
            match original {
                Some(one) => response::report_of(denial, &one.method, one.path, one.client),
                None => response::report(denial, asked, peer.client()),
            }
            dialect.refuse(denial)
        };
        if !is_among(&self.trusted, peer.client()) {
            return refused(&untrusted(), None);
        }
        let original = match dialect.read(asked, &self.trusted) {
            Ok(original) => original,
            Err(problem) => return refused(&unreadable(problem.to_string()), None),
        };
        match self.judge(&asked.headers, &original).await {
            Ok(reply) => reply,
            Err(denial) => refused(&denial, Some(&original)),
        }
    }

    /// Leads the request that is asked about through the Gate, on the routes of all faces.
    pub(super) async fn judge(
        &self,
        headers: &HeaderMap,
        original: &Original<'_>,
    ) -> Result<PayloadResponse, Denial> {
        let path =
            path::normalise(original.path).map_err(|problem| unreadable(problem.to_string()))?;
        let request = Request {
            method: &original.method,
            path: &path,
            query: original.query,
            headers,
            host: Some(original.host.name()),
            body: None,
            client: original.client,
            face: Face::Public,
        };
        let scene = self.gate.scene();
        let found = scene.policy.routes.find(original.host.name(), request.path);
        let origin = Origin::Asked(original.scheme, original.host.authority());
        let action = aim(&request, found.as_ref(), origin);
        let grant = match self.gate.authorize(&scene, &request, &action).await {
            Ok(grant) => grant,
            Err(denial) => {
                let rule = action.rule();
                return Err(Box::pin(self.gate.on_denied(&scene, &request, rule, denial)).await);
            }
        };

        let uri = spelled(original, &path)
            .map_err(|_| unreadable("The target cannot be written into a field.".into()))?;
        let mut reply = PayloadResponse::default();
        *reply.headers_mut() = self.layout.fill(grant.identity(), uri);
        grant.quota().write(reply.headers_mut());
        Ok(reply)
    }
}

/// Path and query in their one spelling, which almost always is the one that came.
fn spelled(original: &Original<'_>, path: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    match (original.said, original.query) {
        (Some(said), _) if path == original.path => Ok(said.clone()),
        (_, Some(query)) => HeaderValue::try_from(format!("{path}?{query}")),
        (_, None) => HeaderValue::from_str(path),
    }
}

impl Dialect {
    /// A refusal as this proxy can carry it. nginx knows 401 and 403, and takes anything else for a fault of ours: it is told the rest
    /// in fields, from which its configuration makes the answer.
    pub(super) fn refuse(self, denial: &Denial) -> PayloadResponse {
        let mut reply = response::denial(denial);
        if self == Self::Nginx {
            let status = denial.status;
            let headers = reply.headers_mut();
            headers.insert(STATUS, status.as_u16().into());
            headers.extend(response::in_one_line(denial).map(|body| (BODY, body)));
            if ![StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
                *reply.status_mut() = StatusCode::FORBIDDEN;
            }
        }
        reply
    }
}

/// Whoever may say where a request comes from can be anybody.
pub(super) fn untrusted() -> Denial {
    let said = "Only proxies may ask here that are listed in server.trusted_proxies.";
    Denial::new(Phase::Edge, StatusCode::FORBIDDEN, "UNTRUSTED_PROXY", said)
        .with_detail("to trust it, add the client's address to server.trusted_proxies")
}
