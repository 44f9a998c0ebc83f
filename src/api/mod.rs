//! The admin API under `/api/v1/`, and the health checks under `/health/`.
//!
//! The [`Gate`] authorizes every API request, as it authorizes every request to the public
//! listener. The API does not handle connections, so the command line can call the API in its own
//! process while no server runs.

mod apply;
mod audit;
mod backup;
mod browser;
mod explain;
mod fields;
mod health;
mod import_users;
mod keys;
mod list;
mod me;
mod records;
mod resources;
mod response;
mod routes;
mod scripts;
mod users;

use std::{net::IpAddr, sync::Arc};

pub use browser::HostNames;

use ::http::request::Parts;
use serde_json::Value;

use crate::{
    accounts::{Accounts, Writer},
    directory::Policy,
    handlers::{BodyLimits, PayloadResponse, RequestBody, writer},
    pipeline::{Action, AuditScope, Denial, Explain, Face, Gate, Identity, Request, Shape},
    store::Sequence,
};

/// A cheap handle that responds to requests to the admin API.
#[derive(Clone)]
pub struct Api {
    gate: Gate,
    accounts: Accounts,
    limits: BodyLimits,
    /// Explains how the public listener would decide a request. `None` means that there is no
    /// public listener.
    explainer: Option<Arc<dyn Explain>>,
}

/// An authorized request to the API.
struct ApiRequest<'a> {
    /// The accounts of the server. The audit entry of each change names the caller.
    accounts: Writer,
    identity: &'a Identity<'a>,
    policy: &'a Policy,
    head: &'a Parts,
    body: RequestBody,
    limits: &'a BodyLimits,
    explainer: Option<&'a dyn Explain>,
}

impl Api {
    /// The API for these accounts, without `POST /api/v1/explain`.
    pub fn new(gate: Gate, accounts: Accounts, limits: BodyLimits) -> Self {
        Self { gate, accounts, limits, explainer: None }
    }

    /// Enables `POST /api/v1/explain`.
    #[must_use]
    pub fn explaining(mut self, explainer: impl Explain + 'static) -> Self {
        self.explainer = Some(Arc::new(explainer));
        self
    }

    /// Responds to a request from the address `client`.
    ///
    /// # Errors
    /// The denial by the [`Gate`] or by the handler, as problem details (RFC 9457).
    pub async fn decide(
        &self,
        head: &Parts,
        body: RequestBody,
        client: IpAddr,
    ) -> Result<PayloadResponse, Denial> {
        if let Some(response) = health::respond(head, &self.accounts) {
            return Ok(response);
        }
        let result = self.authorize_and_respond(head, body, client).await;
        result.map_err(|denial| denial.in_shape(Shape::Problem))
    }

    async fn authorize_and_respond(
        &self,
        head: &Parts,
        body: RequestBody,
        client: IpAddr,
    ) -> Result<PayloadResponse, Denial> {
        browser::check(head)?;
        let context = self.gate.request_context();
        let request = Request {
            method: &head.method,
            path: head.uri.path(),
            query: head.uri.query(),
            headers: &head.headers,
            host: None,
            body: None,
            client,
            face: Face::Admin,
        };
        let matched = routes::find(head);
        let action = match &matched {
            Ok(matched) => Action::Administer(matched.route.permission),
            Err(denial) => Action::NoRoute(denial.clone()),
        };
        let grant = self.gate.authorize(&context, &request, &action).await?;
        let audit = AuditScope::new(&context, &request, &grant);
        let api_request = ApiRequest {
            accounts: writer(&self.accounts, grant.identity(), client),
            identity: grant.identity(),
            policy: &context.policy,
            head,
            body,
            limits: &self.limits,
            explainer: self.explainer.as_deref(),
        };
        // `matched` is not an error here, because `authorize` has denied requests without a route.
        let result = (matched?.handler)(api_request).await;
        result.inspect_err(|denial| audit.record(denial))
    }
}

impl ApiRequest<'_> {
    /// The body as JSON.
    async fn json(&mut self) -> Result<Value, Denial> {
        fields::check_type(self.head)?;
        let body = std::mem::replace(&mut self.body, RequestBody::Full(bytes::Bytes::new()));
        fields::parse(&body.collect(self.limits).await?)
    }

    /// The revision that `If-Match` requires (RFC 9110, section 13.1.1). If the header field lists
    /// several revisions, the result is the current revision if the list contains the current
    /// revision. `None` means that any revision is accepted.
    fn expected_revision(
        &self,
        current: impl FnOnce() -> Option<Sequence>,
    ) -> Result<Option<Sequence>, Denial> {
        response::expected_revision(&self.head.headers, current)
    }

    /// Refuses a change that concerns administrators unless the caller is an administrator.
    fn admin_only_if(&self, concerns_admin: bool) -> Result<(), Denial> {
        self.accounts.admin_only_if(concerns_admin).map_err(response::denial)
    }
}
