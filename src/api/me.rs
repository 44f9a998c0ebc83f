//! `/api/v1/me`: what people do for themselves. Nobody reaches anybody else's keys here, whatever else they may do.

use ::http::{Method, StatusCode};
use serde_json::json;

use super::{Call, keys, response};
use crate::{
    handlers::PayloadResponse,
    model::{Key, KeyId},
    pipeline::{Denial, Phase},
};

/// Who asks, and what its key lets it do.
pub(super) fn who(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let identity = call.identity;
    let body = json!({
        "uid": identity.uid(),
        "name": identity.name(),
        "roles": identity.roles(),
        "is_admin": identity.is_admin(),
        "application": identity.application().map(|application| &application.record.id),
        "key": identity.key(),
        "scopes": identity.scopes(),
    });
    Ok(response::json(StatusCode::OK, &body))
}

pub(super) async fn keys(call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let uid = own_uid(&call)?;
    match call.request.method {
        Method::POST => keys::generate(uid, call).await,
        _ => keys::list_of(uid, &call),
    }
}

pub(super) async fn revoke(id: KeyId, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    own_key(id, call)?;
    keys::revoke(id, call).await
}

pub(super) async fn rotate(id: KeyId, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let key = own_key(id, &call)?;
    keys::replace(&key, call).await
}

/// The person at the machine is nobody whom a key could act as.
fn own_uid(call: &Call<'_>) -> Result<u64, Denial> {
    let uid = call.identity.uid().filter(|uid| *uid != 0);
    uid.ok_or_else(|| {
        let said = "The operator has no keys of its own. Use those of a user: /api/v1/users.";
        Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", said)
    })
}

/// A key of somebody else is not told from one that is not there.
fn own_key(id: KeyId, call: &Call<'_>) -> Result<Key, Denial> {
    let uid = own_uid(call)?;
    let found = call.accounts.key(id).map_err(response::denial)?;
    let own = found.map(|key| key.record).filter(|key| key.user == uid);
    own.ok_or_else(|| response::not_found("key", id))
}
