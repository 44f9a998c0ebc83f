//! `POST /api/v1/keys/generate-all`: generates keys for all users, in batches.
//!
//! The client repeats the request until `next` in the response is null. In each further request
//! `after` is the `next` of the previous response. `run` is the id of the run, a secret random
//! number that the client chooses. A client that requests a batch again with the same id gets the
//! same keys.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{BulkIssue, BulkPart, BulkRecipients, Issued, RunId},
    api::{ApiRequest, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    pipeline::Denial,
};

/// The largest number of users in a batch that a client may request.
const MAX_LIMIT: usize = 5000;
/// The default maximum number of users in a batch.
const DEFAULT_LIMIT: usize = 1000;

pub(in crate::api) async fn generate(
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let bulk = read(&mut reader, &request);
    reader.finish()?;
    let batch = request.accounts.issue_for_many(&bulk).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &view(&batch, &bulk, &request)))
}

fn read(reader: &mut FieldReader, request: &ApiRequest<'_>) -> BulkIssue {
    let run = match reader.text("run") {
        Some(text) => parse_run_id(&text).unwrap_or_else(|| {
            reader.reject(
                "run",
                "This is not the id of a run.",
                "Send 32 random hexadecimal digits, or leave this field out.",
            );
            RunId::default()
        }),
        None => request.accounts.entropy().bytes(),
    };
    let recipients = if reader.flag("missing_only") == Some(true) {
        BulkRecipients::WithoutKey
    } else {
        BulkRecipients::All
    };
    let after = reader.text("after").and_then(|text| {
        let uid = text.parse().ok();
        if uid.is_none() {
            reader.reject(
                "after",
                "This is not a cursor.",
                "Send the value of `next` in the previous response, unchanged.",
            );
        }
        uid
    });
    let limit = reader.number::<usize>("limit").unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        reader.reject(
            "limit",
            "This number of users is not allowed.",
            format!("Use a number from 1 to {MAX_LIMIT}."),
        );
    }
    let new = keys::read(reader, request.accounts.clock().now());
    if new.universal {
        let fix = "Generate a single key with POST /api/v1/users/{uid}/keys.";
        reader.reject("universal", "One universal key is enough for all users.", fix);
    }
    BulkIssue { run, recipients, new, after, limit }
}

fn parse_run_id(text: &str) -> Option<RunId> {
    let is_well_formed = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_well_formed.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

fn view(batch: &BulkPart, bulk: &BulkIssue, request: &ApiRequest<'_>) -> Value {
    let items: Vec<Value> = batch.items.iter().map(|(name, issued)| item(name, issued)).collect();
    let (users, _) = request.accounts.directory().counts();
    json!({
        "items": items,
        "next": batch.last.filter(|_| batch.has_more).map(|uid| uid.to_string()),
        "last": batch.last,
        "skipped": batch.skipped,
        "users": users,
        "run": format!("{:032x}", u128::from_be_bytes(bulk.run)),
    })
}

fn item(name: &str, issued: &Issued) -> Value {
    let key = &issued.key.record;
    json!({ "user": key.user, "username": name, "id": key.id, "key": issued.text.expose() })
}
