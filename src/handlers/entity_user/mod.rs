//! The handler `entity:user`: the user entity as Drupal's REST resource serves it, so that its clients work unchanged.
//!
//! Four calls: `POST /entity/user`, and `GET`, `PATCH`, `DELETE` on `/user/{user}`. Each looks for the entity first (404), then asks whether it
//! may be touched at all (403), and only then reads the body (400, 422).

mod access;
mod change;
mod field;
mod fields;
mod record;
mod validation;
mod view;

use ::http::{
    HeaderValue, Method, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION},
};
use bytes::Bytes;

use self::{
    access::{Sight, Standing},
    change::Change,
};
use super::{Call, Handlers, PayloadResponse, actor};
use crate::{
    accounts::{AccountError, Busy, NewUser, ReadUser, Versioned},
    model::User,
    pipeline::{Denial, Phase, Shape, password_attempt, password_failed},
};

/// How often a user is looked at again who was changed between the look and the deletion.
const TRIES: usize = 16;

pub(super) async fn answer(handlers: &Handlers, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    match *call.request.method {
        Method::POST => Box::pin(create(handlers, call)).await,
        Method::PATCH => Box::pin(update(handlers, call)).await,
        Method::DELETE => Box::pin(delete(handlers, &call)).await,
        // HEAD is GET, and there is no route for others.
        _ => read(handlers, &call),
    }
}

fn read(handlers: &Handlers, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let found = match uid(call) {
        Some(uid) => handlers.accounts.shared_user(uid).map_err(change::account_denial)?,
        None => None,
    };
    let found = found.ok_or_else(|| not_found(call))?;
    let standing = Standing::of(call.grant.identity(), &found.record);
    standing.may_view(&found.record)?;
    let sight = standing.sight();
    const { assert!(Sight::Other as usize + 1 == ReadUser::FORMS, "each sight has a form") };
    let body = found.made(sight as usize, |account| view::entity(account, sight));
    Ok(entity(StatusCode::OK, body))
}

async fn create(handlers: &Handlers, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let Call { grant, request, origin, body, .. } = call;
    let identity = grant.identity();
    let accounts = &handlers.accounts.acting(actor(identity, request.client));
    access::may_create(identity)?;
    let fields = fields::read(&body.collect(&handlers.limits).await?)?;

    let change = Change::new(accounts, identity, &fields);
    let mut account = accounts.draft_user(NewUser::default());
    change.create(&mut account).map_err(|refusal| change.denial(refusal))?;
    if let Some(password) = change.new_password() {
        let hashed = accounts.hash_password(password.clone()).await;
        account.password = Some(hashed.map_err(|problem| change.denial(problem.into()))?);
    }
    let made = accounts.insert_user(account).await;
    let account = made.map_err(|problem| change.denial(problem.into()))?.record;

    let standing = Standing::of(identity, &account);
    let mut reply = entity(StatusCode::CREATED, view::entity(&account, standing.sight()));
    // An authority that came in a header field can stand in one.
    if let Ok(location) = HeaderValue::try_from(format!("{origin}/user/{}", account.uid)) {
        reply.headers_mut().insert(LOCATION, location);
    }
    Ok(reply)
}

async fn update(handlers: &Handlers, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let before = target(handlers, &call)?.record;
    let Call { grant, request, scene, body, .. } = call;
    let identity = grant.identity();
    let accounts = &handlers.accounts.acting(actor(identity, request.client));
    Standing::of(identity, &before).may_update()?;
    let fields = fields::read(&body.collect(&handlers.limits).await?)?;

    let mut change = Change::new(accounts, identity, &fields);
    if let Some(existing) = change.claim(&before)? {
        // Whoever has a key is not to find out the password with it.
        let attempt = password_attempt(scene, &request, &before.name)
            .map_err(|denial| denial.in_shape(Shape::Message))?;
        let (existing, digest) = (existing.clone(), before.password.clone());
        let checked = accounts.passwords().verify(existing, digest, None).await;
        let is_right = checked.map_err(|Busy| change::account_denial(AccountError::Busy))?;
        if !is_right {
            password_failed(scene, attempt, Some(before.uid));
        }
        change.proven = before.password.clone().filter(|_| is_right);
    }
    // Once without writing: nobody's password is hashed for a request that is not in order.
    change.update(&mut before.clone()).map_err(|refusal| change.denial(refusal))?;
    if let Some(password) = change.new_password() {
        let hashed = accounts.hash_password(password.clone()).await;
        change.password = Some(hashed.map_err(|problem| change.denial(problem.into()))?);
    }
    // Everything is asked again of the record that is written: its roles or its password may be others by now.
    let changed = accounts.change_user(before.uid, None, |account| change.update(account)).await;
    let account = changed.map_err(|refusal| change.denial(refusal))?.record;

    let standing = Standing::of(identity, &account);
    Ok(entity(StatusCode::OK, view::entity(&account, standing.sight())))
}

async fn delete(handlers: &Handlers, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let identity = call.grant.identity();
    let accounts = &handlers.accounts.acting(actor(identity, call.request.client));
    for _ in 0..TRIES {
        let Versioned { revision, record: account } = target(handlers, call)?;
        let policy = accounts.directory().policy();
        Standing::of(identity, &account).may_delete(&account, &policy.roles)?;
        match accounts.delete_user(account.uid, Some(revision)).await {
            Ok(()) => return Ok(deleted()),
            // Who may delete it is asked again of the record as it is now.
            Err(AccountError::Stale { .. }) => {}
            Err(AccountError::NotFound { .. }) => return Err(not_found(call)),
            Err(problem) => return Err(change::account_denial(problem)),
        }
    }
    Err(change::account_denial(AccountError::Busy))
}

/// The account that the path names.
fn target(handlers: &Handlers, call: &Call<'_>) -> Result<Versioned<User>, Denial> {
    let found = match uid(call) {
        Some(uid) => handlers.accounts.user(uid).map_err(change::account_denial)?,
        None => None,
    };
    found.ok_or_else(|| not_found(call))
}

/// The number in the path. There is one way to write it: no sign, no zeros in front.
fn uid(call: &Call<'_>) -> Option<u64> {
    let named = call.params.get("user").unwrap_or_default();
    let is_plain =
        named.bytes().all(|b| b.is_ascii_digit()) && (named == "0" || !named.starts_with('0'));
    named.parse().ok().filter(|_| is_plain)
}

fn not_found(call: &Call<'_>) -> Denial {
    let method = match call.request.method {
        &Method::HEAD => &Method::GET,
        other => other,
    };
    let said = format!(
        "The \"user\" parameter was not converted for the path \"/user/{{user}}\" (route name: \"rest.entity.user.{method}\")"
    );
    Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "ENTITY_NOT_FOUND", said)
}

fn entity(status: StatusCode, body: Bytes) -> PayloadResponse {
    let mut reply = PayloadResponse::new(body.into());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    reply
}

fn deleted() -> PayloadResponse {
    let mut reply = PayloadResponse::default();
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}
