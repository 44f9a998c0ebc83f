//! `DELETE /api/v1/keys/{id}` and `POST /api/v1/keys/purge`: delete keys that are not accepted any
//! more.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{KeyPurge, PurgedKey, PurgedKeys},
    api::{ApiRequest, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    model::{KeyId, Mode, Timestamp, parse_day, start_of},
    pipeline::Denial,
};

/// The maximum number of keys that one request looks at.
const MAX_LIMIT: usize = 5000;
/// The default of this number.
const DEFAULT_LIMIT: usize = 1000;

pub(in crate::api) async fn delete(
    id: KeyId,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let before = keys::get(id, &request)?;
    let expected = request.expected_revision(|| Some(before.revision))?.unwrap_or(before.revision);
    request.accounts.delete_key(id, Some(expected)).await.map_err(response::denial)?;
    Ok(response::no_content())
}

/// Deletes the keys of one step that ended before a time. The client repeats the request until
/// `next` in the response is null; in each further request `after` is the `next` of the previous
/// response.
pub(in crate::api) async fn purge(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let purge = read(&mut reader);
    reader.finish()?;
    let purged = request.accounts.purge_keys(purge).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &view(&purged, purge.mode)))
}

fn read(reader: &mut FieldReader) -> KeyPurge {
    let text = reader.required_text("ended_before");
    let day = || parse_day(&text).and_then(start_of);
    let ended_before = Timestamp::parse(&text).or_else(day);
    if ended_before.is_none() && !text.is_empty() {
        let fix = "Send a time such as 2027-01-01T00:00:00Z (RFC 3339), or a day.";
        reader.reject("ended_before", format!("{text:?} is not a time."), fix);
    }
    let after = reader.text("after").and_then(|text| {
        let id = KeyId::parse(&text);
        if id.is_none() {
            let fix = "Send the value of `next` in the previous response, unchanged.";
            reader.reject("after", "This is not a cursor.", fix);
        }
        id
    });
    let limit = reader.number::<usize>("limit").unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        let fix = format!("Use a number from 1 to {MAX_LIMIT}.");
        reader.reject("limit", "This number of keys is not allowed.", fix);
    }
    let is_dry_run = reader.flag("dry_run").unwrap_or_default();
    let mode = if is_dry_run { Mode::DryRun } else { Mode::Live };
    KeyPurge { ended_before: ended_before.unwrap_or_default(), mode, after, limit }
}

fn view(purged: &PurgedKeys, mode: Mode) -> Value {
    let next = purged.last.filter(|_| purged.has_more);
    json!({
        "dry_run": mode == Mode::DryRun,
        "items": purged.keys.iter().map(item).collect::<Vec<_>>(),
        "kept": purged.kept,
        "next": next.map(|id| id.to_string()),
    })
}

fn item(key: &PurgedKey) -> Value {
    json!({
        "id": key.id,
        "user": key.user,
        "username": key.username,
        "label": key.label,
        "ended": key.ended.to_string(),
    })
}
