//! The admin API under `/api/v1/`, and the health checks under `/health/`.
//!
//! The [`Gate`] authorizes every API request, as it authorizes every request to the public
//! listener. The API does not handle connections, so the command line can call the API in its own
//! process while no server runs.

pub(crate) mod apply;
mod audit;
mod backup;
mod browser;
mod bulk;
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

pub use apply::RECORDS_FIELD;
pub use browser::HostNames;
pub use response::WARNING_FIELD;

use ::http::request::Parts;
use serde_json::Value;

use crate::{
    accounts::{Accounts, Writer},
    directory::Policy,
    handlers::{BodyLimits, PayloadResponse, RequestBody, writer},
    model::OperatorProcess,
    pipeline::{
        Action, AuditScope, Denial, Explain, Face, Gate, Identity, Request, Shape,
        record::RequestRecord,
    },
    store::{Cancel, Sequence},
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
    /// Tells whether a certificate of a listener is not valid, or only for a few more days. `None`
    /// means that no listener has a certificate.
    certificates: Option<Arc<dyn Fn() -> Option<String> + Send + Sync>>,
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
        Self { gate, accounts, limits, explainer: None, certificates: None }
    }

    /// Enables `POST /api/v1/explain`.
    #[must_use]
    pub fn explaining(mut self, explainer: impl Explain + 'static) -> Self {
        self.explainer = Some(Arc::new(explainer));
        self
    }

    /// Lets `/health/ready` show the problem of the listeners' certificates.
    #[must_use]
    pub(crate) fn with_certificates(
        mut self,
        problem: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.certificates = Some(Arc::new(problem));
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
        self.decide_for(head, body, client, None, &RequestRecord::off()).await
    }

    /// Responds to a request of a process on this machine, which the audit trail names if the
    /// request is the operator's. `None` means that the process is not known.
    ///
    /// # Errors
    /// Those of [`Api::decide`].
    pub async fn decide_for(
        &self,
        head: &Parts,
        body: RequestBody,
        client: IpAddr,
        process: Option<OperatorProcess>,
        record: &RequestRecord,
    ) -> Result<PayloadResponse, Denial> {
        if let Some(response) = health::respond(head, &self.accounts, self.certificates.as_deref())
        {
            return Ok(response);
        }
        let result = self.authorize_and_respond(head, body, client, process, record).await;
        result.map_err(|denial| denial.in_shape(Shape::Problem))
    }

    async fn authorize_and_respond(
        &self,
        head: &Parts,
        body: RequestBody,
        client: IpAddr,
        process: Option<OperatorProcess>,
        record: &RequestRecord,
    ) -> Result<PayloadResponse, Denial> {
        browser::check_origin(head)?;
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
        if matched.is_ok() {
            browser::check_body_type(head)?;
        }
        let action = match &matched {
            Ok(matched) => Action::Administer(matched.route.permission),
            Err(denial) => Action::NoRoute(denial.clone()),
        };
        let authorized = self.gate.authorize(&context, &request, &action).await;
        record.found(context.take_facts());
        let grant = authorized?;
        let audit = AuditScope::new(&context, &request, &grant);
        let cancel = Cancel::default();
        let _cancelled_with_the_request = cancel.on_drop();
        let api_request = ApiRequest {
            accounts: writer(&self.accounts, grant.identity(), client)
                .with_operator_process(with_command(process, head))
                .with_cancel(cancel),
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

/// The header field in which the command line names its command.
pub const COMMAND_FIELD: ::http::HeaderName = ::http::HeaderName::from_static("keyward-command");
/// The maximum length of the name of a command, in bytes.
const MAX_COMMAND: usize = 64;

/// Adds the command that the command line names.
fn with_command(process: Option<OperatorProcess>, head: &Parts) -> Option<OperatorProcess> {
    let is_allowed = |b: u8| b.is_ascii_lowercase() || b == b' ' || b == b'-';
    let command = head.headers.get(COMMAND_FIELD).and_then(|value| value.to_str().ok());
    let command = command.filter(|text| text.len() <= MAX_COMMAND && text.bytes().all(is_allowed));
    match (process, command) {
        (process, None) => process,
        (process, Some(command)) => {
            let command = Some(command.to_owned());
            Some(OperatorProcess { command, ..process.unwrap_or_default() })
        }
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
