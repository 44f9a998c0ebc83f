//! `/api/v1/me`: the caller's own identity and keys. These routes never give access to the keys of
//! other users, not even to an administrator.

use ::http::StatusCode;
use serde_json::json;

use super::{ApiRequest, keys, response};
use crate::{
    handlers::PayloadResponse,
    model::{Key, KeyId},
    pipeline::{Denial, Phase},
};

/// Shows the caller's identity and the scopes of the caller's key.
pub(super) async fn show(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let identity = request.identity;
    let body = json!({
        "uid": identity.uid(),
        "name": identity.name(),
        "roles": identity.user_roles(),
        "is_admin": identity.is_admin(),
        "application": identity.application().map(|application| &application.record.id),
        "key": identity.key(),
        "scopes": identity.scopes(),
    });
    Ok(response::json(StatusCode::OK, &body))
}

pub(super) async fn list_keys(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    keys::page_of_user(caller_uid(&request)?, &request).await
}

pub(super) async fn generate_key(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    keys::generate(caller_uid(&request)?, request).await
}

pub(super) async fn revoke_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    caller_key(id, &request)?;
    keys::revoke(id, request).await
}

pub(super) async fn rotate_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let key = caller_key(id, &request)?;
    keys::replace(&key, request).await
}

/// Narrows one of the caller's keys. Only administrators can widen a key.
pub(super) async fn change_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    caller_key(id, &request)?;
    keys::edit::change(id, request).await
}

pub(super) async fn delete_key(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    caller_key(id, &request)?;
    keys::remove::delete(id, request).await
}

/// The caller's uid. The operator is refused, because the operator is not a user and has no keys.
fn caller_uid(request: &ApiRequest<'_>) -> Result<u64, Denial> {
    let uid = request.identity.uid().filter(|uid| *uid != 0);
    uid.ok_or_else(|| {
        let message = "The operator has no keys. Use /api/v1/users/{uid}/keys for a user's keys.";
        Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", message)
    })
}

/// The caller's key with this id. A key of another user is reported as a key that does not exist,
/// so that the response does not reveal the key.
fn caller_key(id: KeyId, request: &ApiRequest<'_>) -> Result<Key, Denial> {
    let uid = caller_uid(request)?;
    let key = request.accounts.key(id).map_err(response::denial)?;
    let key = key.map(|key| key.record).filter(|key| key.user == uid);
    key.ok_or_else(|| response::not_found("key", id))
}
