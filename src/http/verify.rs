//! Decisions for other proxies: one asks whether a request may pass that it holds, and learns who sent it.

use ::http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, header::CACHE_CONTROL, request::Parts,
};

use super::{
    Peer, Public,
    forwarded::{Dialect, Original, is_among},
};
use crate::{
    front::{aim, answer, path, unreadable},
    handlers::{Absent, Origin, Reply},
    pipeline::{Denial, Face, Request, Room},
};

/// The status of a refusal, where the proxy cannot carry it.
const STATUS: HeaderName = HeaderName::from_static("x-keyward-status");
/// The body of a refusal, in one line, where the proxy cannot carry it.
const BODY: HeaderName = HeaderName::from_static("x-keyward-body");
/// Path and query in their one spelling: what was decided about.
const URI: HeaderName = HeaderName::from_static("x-keyward-uri");

impl Public {
    /// Answers a proxy that asks in this dialect.
    pub(super) async fn verify(&self, dialect: Dialect, asked: &Parts, peer: &Peer) -> Reply {
        let refused = |denial: &Denial, original: Option<&Original<'_>>| {
            match original {
                Some(one) => answer::report_of(denial, &one.method, one.path, one.client),
                None => answer::report(denial, asked, peer.client()),
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
    ) -> Result<Reply, Denial> {
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
                return Err(self.gate.on_denied(&scene, &request, action.rule(), denial).await);
            }
        };

        let mut reply = Reply::default();
        let headers = reply.headers_mut();
        headers.reserve(12);
        // The next request may be refused.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // Empty fields too: a proxy may let a client's copy stand where there is none.
        self.handlers.identity_fields().write(grant.identity(), Absent::Empty, headers);
        grant.quota().write(headers);
        let uri = match request.query {
            Some(query) => HeaderValue::try_from(format!("{path}?{query}")),
            None => HeaderValue::try_from(&*path),
        };
        headers.extend(uri.ok().map(|uri| (URI, uri)));
        Ok(reply)
    }
}

impl Dialect {
    /// A refusal as this proxy can carry it. nginx knows 401 and 403, and takes anything else for a fault of ours: it is told the rest
    /// in fields, from which its configuration makes the answer.
    pub(super) fn refuse(self, denial: &Denial) -> Reply {
        let mut reply = answer::denial(denial);
        if self == Self::Nginx {
            let status = denial.status;
            let headers = reply.headers_mut();
            headers.insert(STATUS, status.as_u16().into());
            headers.extend(answer::in_one_line(denial).map(|body| (BODY, body)));
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
    Denial::new(Room::Edge, StatusCode::FORBIDDEN, "UNTRUSTED_PROXY", said)
        .with_detail("to trust it, add the client's address to server.trusted_proxies")
}
