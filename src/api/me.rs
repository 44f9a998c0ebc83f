//! `/api/v1/me`: the caller's own identity and keys. These routes never reach the keys of other
//! users, whatever the caller's permissions are.

use ::http::StatusCode;
use serde_json::json;

use super::{ApiRequest, keys, response};
use crate::{
    handlers::PayloadResponse,
    model::{Key, KeyId},
    pipeline::{Denial, Phase},
};

/// The caller's identity, and the scopes of its key.
pub(super) async fn show(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let identity = request.identity;
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

pub(super) async fn list_keys(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    keys::page_of_user(own_uid(&request)?, &request)
}

pub(super) async fn generate_key(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    keys::generate(own_uid(&request)?, request).await
}

pub(super) async fn revoke_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    own_key(id, &request)?;
    keys::revoke(id, request).await
}

pub(super) async fn rotate_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let key = own_key(id, &request)?;
    keys::replace(&key, request).await
}

/// The caller's uid. The operator is not a user, so it has no keys of its own.
fn own_uid(request: &ApiRequest<'_>) -> Result<u64, Denial> {
    let uid = request.identity.uid().filter(|uid| *uid != 0);
    uid.ok_or_else(|| {
        let message = "The operator has no keys of its own. Use the keys of a user: /api/v1/users.";
        Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", message)
    })
}

/// The caller's key with this id. The response is the same for another user's key as for a key
/// that does not exist.
fn own_key(id: KeyId, request: &ApiRequest<'_>) -> Result<Key, Denial> {
    let uid = own_uid(request)?;
    let key = request.accounts.key(id).map_err(response::denial)?;
    let own_key = key.map(|key| key.record).filter(|key| key.user == uid);
    own_key.ok_or_else(|| response::not_found("key", id))
}
