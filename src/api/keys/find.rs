//! `POST /api/v1/keys/find`: finds the keys in a text that somebody has found, in any form in which
//! clients send them.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{Accounts, FoundKey, FoundRecord},
    api::{ApiRequest, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    model::Secret,
    pipeline::{Denial, Phase},
};

/// The maximum length of the text, in bytes.
const MAX_TEXT: usize = 65_536;

pub(in crate::api) async fn find(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let text = Secret::new(reader.required_text("text"));
    if text.expose().len() > MAX_TEXT {
        let message = format!("The text has more than {MAX_TEXT} bytes.");
        reader.reject("text", message, "Send only the lines with the credential.");
    }
    reader.finish()?;
    // The search for a deleted key reads the audit trail, which may be long.
    let accounts = Accounts::clone(&request.accounts);
    let search = tokio::task::spawn_blocking(move || accounts.find_keys(text.expose()));
    let aborted = |_| {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE");
        let message = "The search was aborted. Try again in a moment.";
        Denial::message(Phase::Handler, status, code, message).with_retry_after(1)
    };
    let found = search.await.map_err(aborted)?.map_err(response::denial)?;
    let items: Vec<Value> = found.iter().map(|found| view(found, &request)).collect();
    Ok(response::json(StatusCode::OK, &json!({ "items": items })))
}

/// A found key: its record, and what the text around it is.
fn view(found: &FoundKey, request: &ApiRequest<'_>) -> Value {
    let mut view = match &found.key {
        FoundRecord::Present(key) => keys::view(&key.record, request),
        FoundRecord::Deleted(key) => json!({
            "id": key.id,
            "user": key.user,
            "username": key.username,
            "label": key.label,
            "state": "deleted",
            "deleted": key.deleted.map(|time| time.to_string()),
            "deleted_alone": key.is_deleted_alone,
        }),
        FoundRecord::Unknown(id) => json!({ "id": id, "state": "unknown" }),
    };
    view["recognized"] = json!({ "form": found.form, "username": found.presented_user });
    view
}
