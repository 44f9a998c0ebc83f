//! `PATCH /api/v1/keys/{id}`: changes the label, the limits and the bounds of a key.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    api::{
        ApiRequest,
        fields::{FieldReader, merge},
        keys,
        response::{self, ChangeDenial},
    },
    handlers::PayloadResponse,
    model::{Key, KeyId, Timestamp},
    pipeline::Denial,
};

/// Changes the fields of a key that a merge patch names. The other fields of a key cannot be
/// changed.
pub(in crate::api) async fn change(
    id: KeyId,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let patch = request.json().await?;
    let before = keys::get(id, &request)?;
    let expected = request.expected_revision(|| Some(before.revision))?;
    let now = request.accounts.clock().now();
    let changed = request.accounts.change_key(id, expected, |key: &mut Key| {
        apply(key, &patch, now)?;
        Ok::<_, ChangeDenial>(())
    });
    let key = changed.await?;
    Ok(response::record(StatusCode::OK, &keys::view(&key.record, &request), key.revision))
}

fn apply(key: &mut Key, patch: &Value, now: Timestamp) -> Result<(), Denial> {
    let mut after = json!({
        "label": key.label,
        "rate_limit": key.rate_limit,
        "credits": key.credits,
    });
    merge(&mut after, patch.clone());
    let mut reader = FieldReader::new(after);
    key.label = reader.text("label").unwrap_or_default();
    key.rate_limit = reader.rate_limit();
    key.credits = reader.credits();
    // These fields are read only if the patch has them. `null` removes the bound.
    let is_named = |name: &str| patch.get(name).is_some();
    let expires = keys::expires(&mut reader).and_then(|expires| expires.from(now));
    let (scopes, networks) = (reader.words("scopes"), keys::networks(&mut reader));
    reader.finish()?;
    if is_named("expires") {
        key.expires = expires;
    }
    if is_named("scopes") {
        key.scopes = scopes;
    }
    if is_named("networks") {
        key.networks = networks;
    }
    Ok(())
}
