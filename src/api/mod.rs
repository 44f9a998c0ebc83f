//! The admin API: `/api/v1/…`, and what supervisors ask.
//!
//! Every request walks through the same Gate as those of the public face. It knows nothing of connections: the command line calls it in its own
//! process while no server runs.

mod apply;
mod audit;
mod backup;
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

use ::http::request::Parts;
use serde_json::Value;

use self::routes::Route;
use crate::{
    accounts::{Accounts, Writer},
    directory::Policy,
    handlers::{RequestBody, BodyLimits, PayloadResponse, writer},
    model::{Application, Resource, Role},
    pipeline::{Action, AuditScope, Denial, Explain, Face, Gate, Identity, Request, Shape},
    store::Sequence,
};

/// The admin API. A cheap handle.
#[derive(Clone)]
pub struct Api {
    gate: Gate,
    accounts: Accounts,
    limits: BodyLimits,
    /// Whoever knows where requests of the public face lead.
    explainer: Option<Arc<dyn Explain>>,
}

/// A request that was let in.
struct Call<'a> {
    /// In the caller's hands.
    accounts: Writer,
    identity: &'a Identity<'a>,
    policy: &'a Policy,
    request: &'a Parts,
    body: RequestBody,
    limits: &'a BodyLimits,
}

impl Api {
    /// The API of these accounts.
    pub fn new(gate: Gate, accounts: Accounts, limits: BodyLimits) -> Self {
        Self { gate, accounts, limits, explainer: None }
    }

    /// The same, which can explain how requests are decided.
    #[must_use]
    pub fn explaining(mut self, explainer: impl Explain + 'static) -> Self {
        self.explainer = Some(Arc::new(explainer));
        self
    }

    /// Answers a request that came from `client`.
    ///
    /// # Errors
    /// What the Gate refuses, and what cannot be done; all in the form of RFC 9457.
    pub async fn decide(
        &self,
        request: &Parts,
        body: RequestBody,
        client: IpAddr,
    ) -> Result<PayloadResponse, Denial> {
        if let Some(reply) = health::answer(request, &self.accounts) {
            return Ok(reply);
        }
        let answered = self.guarded(request, body, client).await;
        answered.map_err(|denial| denial.in_shape(Shape::Problem))
    }

    async fn guarded(
        &self,
        request: &Parts,
        body: RequestBody,
        client: IpAddr,
    ) -> Result<PayloadResponse, Denial> {
        let context = self.gate.request_context();
        let asked = Request {
            method: &request.method,
            path: request.uri.path(),
            query: request.uri.query(),
            headers: &request.headers,
            host: None,
            body: None,
            client,
            face: Face::Admin,
        };
        let place = Route::of(request);
        let action = match &place {
            Ok(place) => Action::Administer(place.permission()),
            Err(denial) => Action::NoRoute(denial.clone()),
        };
        let grant = self.gate.authorize(&context, &asked, &action).await?;
        let call = Call {
            accounts: writer(&self.accounts, grant.identity(), client),
            identity: grant.identity(),
            policy: &context.policy,
            request,
            body,
            limits: &self.limits,
        };
        let audit = AuditScope::new(&context, &asked, &grant);
        // Where there is no place the Gate has refused.
        let answered = match place? {
            Route::Explain => explain::explain(call, self.explainer.as_deref()).await,
            place => act(place, call).await,
        };
        answered.inspect_err(|denial| audit.record(denial))
    }
}

async fn act(place: Route, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    match place {
        Route::Me => me::who(&call),
        Route::MyKeys => me::keys(call).await,
        Route::RevokeMine(id) => me::revoke(id, &call).await,
        Route::RotateMine(id) => me::rotate(id, call).await,
        Route::Users => users::all(call).await,
        Route::User(uid) => users::one(uid, call).await,
        Route::KeysOf(uid) => keys::of_user(uid, call).await,
        Route::Keys => keys::all(&call),
        Route::Key(id) => keys::one(id, call).await,
        Route::Revoke(id) => keys::revoke(id, &call).await,
        Route::ImportKeys => keys::import::import(call).await,
        Route::ImportUsers => import_users::import(call).await,
        Route::KeysOfAll => keys::bulk::generate(call).await,
        Route::Rotate(id) => keys::rotate(id, call).await,
        Route::Backup => backup::write(call).await,
        Route::State => apply::answer(call).await,
        Route::Audit => audit::list(&call),
        Route::VerifyAudit => audit::verify(&call).await,
        Route::Roles => records::all::<Role>(call).await,
        Route::Role(id) => records::one::<Role>(&id, call).await,
        Route::Applications => records::all::<Application>(call).await,
        Route::Application(id) => records::one::<Application>(&id, call).await,
        Route::Resources => records::all::<Resource>(call).await,
        Route::Resource(id) => records::one::<Resource>(&id, call).await,
        Route::Scripts => Ok(scripts::show(&call)),
        Route::ReloadScripts => scripts::reload(&call).await,
        Route::Explain => explain::explain(call, None).await,
    }
}

impl Call<'_> {
    /// The body as JSON.
    async fn json(&mut self) -> Result<Value, Denial> {
        fields::check_type(self.request)?;
        let body = std::mem::replace(&mut self.body, RequestBody::Full(bytes::Bytes::new()));
        fields::parse(&body.collect(self.limits).await?)
    }

    /// The revision that `If-Match` asks for (RFC 9110, section 13.1.1), chosen from several by what is there.
    fn expected(
        &self,
        current: impl FnOnce() -> Option<Sequence>,
    ) -> Result<Option<Sequence>, Denial> {
        response::expected(&self.request.headers, current)
    }

    /// Refuses a change that concerns administrators unless the caller is one.
    fn admin_only_if(&self, concerns_admin: bool) -> Result<(), Denial> {
        self.accounts.admin_only_if(concerns_admin).map_err(response::denial)
    }
}
