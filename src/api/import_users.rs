//! `/api/v1/users/import`: users of other systems with their passwords' digests, a part at a time. A part is imported whole or not at all; one that
//! is sent again changes nothing.

use crate::model::Mode;
use ::http::StatusCode;
use serde_json::{Value, json};

use super::{Call, fields::FieldReader, keys::import::MOST, response, users};
use crate::{
    accounts::{ImportUsers, UserRow},
    handlers::PayloadResponse,
    model::Secret,
    pipeline::Denial,
};

pub(super) async fn import(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut form = FieldReader::new(call.json().await?);
    let roles = form.words("roles").unwrap_or_default();
    let mode = match form.flag("dry_run") {
        Some(true) => Mode::DryRun,
        _ => Mode::Live,
    };
    let rows = rows(&mut form);
    form.finish()?;
    users::may_set_passwords(&call)?;
    let import = ImportUsers { roles, mode, rows };
    let imported = call.accounts.import_users(&import).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

fn rows(form: &mut FieldReader) -> Vec<UserRow> {
    let items = match form.take("rows") {
        Some(Value::Array(items)) if items.len() <= MOST => items,
        _ => {
            let said = format!("This is not a list of at most {MOST} users.");
            form.reject("rows", said, "Send larger imports in parts.");
            return Vec::new();
        }
    };
    let row = |(at, item): (usize, Value)| {
        let line = item["line"].as_u64().unwrap_or(at as u64 + 1);
        form.entry(&format!("line {line}"), item, |form| UserRow {
            line: form.number("line").unwrap_or(line),
            username: form.needed_text("username"),
            digest: Secret::new(form.needed_text("password_digest")),
        })
    };
    items.into_iter().enumerate().map(row).collect()
}
