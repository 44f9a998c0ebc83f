//! Where a request would lead that somebody asks about: read as if it had come to the public listener.

use crate::{
    handlers::{Origin, Scheme},
    http::{aim, host, path, unreadable},
    pipeline::{Asked, Explain, Explaining, Explanation, Face, Gate, Request},
};

/// Explains requests of the public face. A cheap handle.
#[derive(Clone)]
pub struct Explainer {
    gate: Gate,
    public_url: Option<String>,
    /// What the public face speaks.
    scheme: Scheme,
}

impl Explainer {
    /// The explainer of this gate. `public_url` and `scheme` are those of the public face.
    pub fn new(gate: Gate, public_url: Option<String>, scheme: Scheme) -> Self {
        Self { gate, public_url, scheme }
    }

    async fn lead(&self, asked: &Asked) -> Explanation {
        let (raw, query) = match asked.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (asked.target.as_str(), None),
        };
        let path = match path::normalise(raw) {
            Ok(path) => path,
            Err(problem) => return Explanation::unreadable(unreadable(problem.to_string())),
        };
        let host = match host::read(&asked.host) {
            Ok(host) => host,
            Err(problem) => return Explanation::unreadable(unreadable(problem.to_string())),
        };
        let scene = self.gate.dry_run_context();
        let request = Request {
            method: &asked.method,
            path: &path,
            query,
            headers: &asked.headers,
            host: Some(host.name()),
            body: None,
            client: asked.client,
            face: Face::Public,
        };
        let origin = match &self.public_url {
            Some(url) => Origin::Configured(url),
            None => Origin::Asked(self.scheme, host.authority()),
        };
        let found = scene.policy.routes.find(host.name(), request.path);
        let action = aim(&request, found.as_ref(), origin);
        // Scripts see the body where they would.
        let is_seen = action.rule().is_some_and(|rule| rule.resource.buffer_body);
        let request = Request { body: is_seen.then_some(&asked.body), ..request };
        self.gate.explain(&scene, &request, &action).await
    }
}

impl Explain for Explainer {
    fn explain<'a>(&'a self, asked: &'a Asked) -> Explaining<'a> {
        Box::pin(self.lead(asked))
    }
}
