//! The handler `entity:user`: users as Drupal's REST resource serves them, so that clients of
//! Drupal work unchanged.
//!
//! There are four calls: `POST /entity/user`, and `GET`, `PATCH`, `DELETE` on `/user/{user}`. Each
//! call finds the entity first (404), then checks access (403), and only then reads the body (400,
//! 422).

mod access;
mod change;
mod custom;
mod field;
mod fields;
#[cfg(all(any(test, feature = "fuzzing"), feature = "server"))]
pub(crate) mod fuzz;
mod numbers;
mod record;
mod validation;
mod value;
mod view;

use ::http::{
    HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use bytes::Bytes;

use self::{
    access::{AccountAccess, Visibility},
    change::EntityChange,
};
use super::{HandlerRequest, Handlers, PayloadResponse, writer};
use crate::{
    accounts::{AccountError, Accounts, Busy, NewUser, ReadUser, Versioned},
    model::{Detail, Secret, User},
    pipeline::{
        Denial, PasswordOutcome, Phase, Request, RequestContext, Shape, begin_password,
        end_password, password_attempt,
    },
};

/// The maximum number of attempts to delete a user. An attempt fails if another request changes the
/// user between the check and the deletion.
const TRIES: usize = 16;

pub(super) async fn respond(
    handlers: &Handlers,
    request: HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    match *request.request.method {
        Method::POST => Box::pin(create(handlers, request)).await,
        Method::PATCH => Box::pin(update(handlers, request)).await,
        Method::DELETE => Box::pin(delete(handlers, &request)).await,
        // HEAD is handled as GET. Other methods have no route.
        _ => read(handlers, &request),
    }
}

fn read(handlers: &Handlers, request: &HandlerRequest<'_>) -> Result<PayloadResponse, Denial> {
    let found = match uid(request) {
        Some(uid) => handlers.accounts.shared_user(uid).map_err(change::account_denial)?,
        None => None,
    };
    let user = found.ok_or_else(|| missing(handlers, request))?;
    let access = AccountAccess::new(request.grant.identity(), &user.record);
    access.may_view(&user.record)?;
    let visibility = access.visibility();
    const { assert!(Visibility::Other as usize + 1 == ReadUser::FORMS, "one form per visibility") };
    let body = user.form(visibility as usize, |account| {
        view::entity(account, visibility, &handlers.custom_fields)
    });
    Ok(entity(StatusCode::OK, body))
}

async fn create(
    handlers: &Handlers,
    request: HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let HandlerRequest { grant, request, origin, body, .. } = request;
    let identity = grant.identity();
    let accounts = &writer(&handlers.accounts, identity, request.client);
    access::may_create(identity)?;
    let body = body.collect(&handlers.limits).await?;
    let fields = fields::read(&body, &handlers.custom_fields)?;

    let change = EntityChange::new(accounts, identity, &fields);
    let mut account = accounts.draft_user(NewUser::default());
    change.create(&mut account).map_err(|error| change.denial(error))?;
    if let Some(password) = change.new_password() {
        let digest = accounts.hash_password(password.clone()).await;
        account.password = Some(digest.map_err(|error| change.denial(error.into()))?);
    }
    let created = accounts.insert_user(account).await;
    let account = created.map_err(|error| change.denial(error.into()))?.record;

    let visibility = AccountAccess::new(identity, &account).visibility();
    let mut response =
        entity(StatusCode::CREATED, view::entity(&account, visibility, &handlers.custom_fields));
    // This cannot fail, because the authority came from a header field.
    if let Ok(location) = HeaderValue::try_from(format!("{origin}/user/{}", account.uid)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

async fn update(
    handlers: &Handlers,
    request: HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let before = find_user(handlers, &request)?.record;
    let HandlerRequest { grant, request, context, body, .. } = request;
    let identity = grant.identity();
    let accounts = &writer(&handlers.accounts, identity, request.client);
    AccountAccess::new(identity, &before).may_update()?;
    let body = body.collect(&handlers.limits).await?;
    let fields = fields::read(&body, &handlers.custom_fields)?;

    let mut change = EntityChange::new(accounts, identity, &fields);
    if let Some(existing) = change.password_to_verify(&before)? {
        let is_right = verify_own_password(context, &request, accounts, &before, existing).await?;
        change.verified_digest = before.password.clone().filter(|_| is_right);
    }
    // The change is first tried on a copy, so that no password is hashed for an invalid request.
    change.update(&mut before.clone()).map_err(|error| change.denial(error))?;
    if let Some(password) = change.new_password() {
        let digest = accounts.hash_password(password.clone()).await;
        change.new_digest = Some(digest.map_err(|error| change.denial(error.into()))?);
    }
    // Checks everything again on the record that is written, because the record's roles or password
    // may have changed.
    let proved;
    let accounts = match change.verified_digest {
        Some(_) => {
            proved = accounts.with_proved_password();
            &proved
        }
        None => accounts,
    };
    let changed = accounts.change_user(before.uid, None, |account| change.update(account)).await;
    let account = changed.map_err(|error| change.denial(error))?.record;

    let visibility = AccountAccess::new(identity, &account).visibility();
    Ok(entity(StatusCode::OK, view::entity(&account, visibility, &handlers.custom_fields)))
}

/// Checks the password of the account's owner. The check counts as a password attempt, so that the
/// owner of a key cannot guess the password.
async fn verify_own_password(
    context: &RequestContext,
    request: &Request<'_>,
    accounts: &Accounts,
    account: &User,
    password: &Secret,
) -> Result<bool, Denial> {
    let as_message = |denial: Denial| denial.in_shape(Shape::Message);
    let busy = |Busy| change::account_denial(AccountError::Busy);
    let attempt = password_attempt(context, request, &account.name).map_err(as_message)?;
    let turn = accounts.passwords().turn(request.client, &account.name).await.map_err(busy)?;
    begin_password(context, attempt).map_err(as_message)?;
    let result = turn.verify(password.clone(), account.password.clone(), None).await;
    let outcome = match result {
        Ok(false) => PasswordOutcome::Wrong(Some(account.uid)),
        _ => PasswordOutcome::NotWrong,
    };
    end_password(context, attempt, outcome);
    result.map_err(busy)
}

async fn delete(
    handlers: &Handlers,
    request: &HandlerRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let identity = request.grant.identity();
    let accounts = &writer(&handlers.accounts, identity, request.request.client);
    for _ in 0..TRIES {
        let Versioned { revision, record: account } = find_user(handlers, request)?;
        let may_change = accounts.require_change_of(&account).is_ok();
        AccountAccess::new(identity, &account).may_delete(may_change)?;
        match accounts.delete_user(account.uid, Some(revision)).await {
            Ok(()) => return Ok(no_content()),
            // The next attempt checks access on the changed record.
            Err(AccountError::Stale { .. }) => {}
            Err(AccountError::NotFound { .. }) => return Err(missing(handlers, request)),
            Err(error) => return Err(change::account_denial(error)),
        }
    }
    Err(change::account_denial(AccountError::Busy))
}

/// The account that the path names.
fn find_user(handlers: &Handlers, request: &HandlerRequest<'_>) -> Result<Versioned<User>, Denial> {
    let found = match uid(request) {
        Some(uid) => handlers.accounts.user(uid).map_err(change::account_denial)?,
        None => None,
    };
    found.ok_or_else(|| missing(handlers, request))
}

/// The denial for an account that does not exist. With `detail = "uniform"`, a caller who may not
/// access the accounts of others gets the denial for an account that exists, so that nobody finds
/// out which accounts there are. With `exact`, the order of the checks is Drupal's: 404, then 403.
fn missing(handlers: &Handlers, request: &HandlerRequest<'_>) -> Denial {
    let identity = request.grant.identity();
    let policy = handlers.accounts.directory().policy();
    let application =
        identity.application().or_else(|| policy.applications.default().map(|a| &**a));
    let is_uniform =
        application.is_some_and(|application| application.record.detail == Detail::Uniform);
    if is_uniform && let Err(denial) = access::of_others(identity, request.request.method) {
        return denial;
    }
    not_found(request)
}

/// The number in the path. Only the canonical form is accepted: no sign and no leading zeros.
fn uid(request: &HandlerRequest<'_>) -> Option<u64> {
    let text = request.params.get("user").unwrap_or_default();
    let is_canonical =
        text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_canonical)
}

fn not_found(request: &HandlerRequest<'_>) -> Denial {
    let method = match request.request.method {
        &Method::HEAD => &Method::GET,
        other => other,
    };
    let message = format!(
        "The \"user\" parameter was not converted for the path \"/user/{{user}}\" (route name: \"rest.entity.user.{method}\")"
    );
    Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "ENTITY_NOT_FOUND", message)
}

fn entity(status: StatusCode, body: Bytes) -> PayloadResponse {
    let mut response = PayloadResponse::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn no_content() -> PayloadResponse {
    let mut response = PayloadResponse::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
