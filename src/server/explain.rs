//! Explains how the public listener would decide about a request that an administrator describes.

use ::http::HeaderMap;

use crate::{
    handlers::{Origin, UrlScheme},
    http::{
        cors::PreflightResult,
        guard::{GuardedRequest, Received, bad_request},
        host,
    },
    pipeline::{
        Denial, Explain, ExplainFuture, ExplainRequest, Explanation, Finding, Gate, Request,
    },
};

/// Explains decisions about requests to the public listener. Cheap to clone.
#[derive(Clone)]
pub struct Explainer {
    gate: Gate,
    public_url: Option<String>,
    /// The scheme of the public listener.
    scheme: UrlScheme,
}

impl Explainer {
    /// Creates an explainer of the decisions of `gate`. `public_url` and `scheme` are settings of
    /// the public listener.
    pub fn new(gate: Gate, public_url: Option<String>, scheme: UrlScheme) -> Self {
        Self { gate, public_url, scheme }
    }

    /// # Errors
    /// Returns the denial of the public listener if the target or the host cannot be parsed. Such a
    /// request never reaches the pipeline.
    async fn explain_decision(&self, described: &ExplainRequest) -> Result<Explanation, Denial> {
        let (path, query) = match described.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (described.target.as_str(), None),
        };
        let host = host::parse(&described.host).map_err(bad_request)?;
        let received = Received {
            method: &described.method,
            path,
            query,
            headers: &described.headers,
            host: Some(&host),
            client: described.client,
        };
        let path = received.normal_path()?;
        let origin = match &self.public_url {
            Some(url) => Origin::Configured(url),
            None => Origin::Requested(self.scheme, host.authority()),
        };
        let context = self.gate.dry_run_context();
        let request = received.request(&path);
        let (mut guarded, _) = GuardedRequest::on_route(&self.gate, &context, request, origin);
        match guarded.take_preflight() {
            Some(PreflightResult::Refused(denial)) => return Err(guarded.denied(denial).await),
            Some(PreflightResult::Passed(_)) => {
                let text = "the application gets the preflight, without authentication";
                return Ok(Explanation::of_preflight(vec![("preflight", text.into())]));
            }
            Some(PreflightResult::Allowed(headers)) => {
                return Ok(Explanation::of_preflight(describe(&headers)));
            }
            None => {}
        }
        let body = guarded.buffers_body().then_some(&described.body);
        let request = Request { body, ..request };
        Ok(self.gate.explain(&context, &request, &guarded.action).await)
    }
}

/// Describes the response to a preflight.
fn describe(headers: &HeaderMap) -> Vec<Finding> {
    let fields = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        format!("{name}: {value}")
    });
    let fields: Vec<String> = fields.collect();
    vec![("preflight", "the browser gets 204".into()), ("fields", fields.join("; "))]
}

impl Explain for Explainer {
    fn explain<'a>(&'a self, described: &'a ExplainRequest) -> ExplainFuture<'a> {
        Box::pin(async {
            self.explain_decision(described).await.unwrap_or_else(Explanation::unreadable)
        })
    }
}
