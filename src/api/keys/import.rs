//! `/api/v1/keys/import`: keys of other systems, a part at a time. A part is imported whole or not at all; one that is sent again changes nothing.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{DigestFormat, Import, ImportDigest, ImportRow, Strangers},
    api::{Call, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    model::{Mode, Scheme, Secret, Timestamp},
    pipeline::Denial,
};

/// The most keys of one part.
pub(in crate::api) const MOST: usize = 1000;

pub(in crate::api) async fn import(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let now = call.accounts.clock().now();
    let mut form = FieldReader::new(call.json().await?);
    let digest = digest(&mut form);
    let strangers = match form.flag("create_users") {
        Some(true) => Strangers::Made,
        _ => Strangers::Refused,
    };
    let mode = match form.flag("dry_run") {
        Some(true) => Mode::DryRun,
        _ => Mode::Live,
    };
    let rows = rows(&mut form, now);
    form.finish()?;
    keys::may_hand_out(false, &call)?;
    for row in &rows {
        let wanted = keys::Wanted { scopes: row.scopes.as_deref(), ..keys::Wanted::default() };
        keys::within_own_bounds(&wanted, &call)?;
    }
    let import = Import { digest, strangers, mode, rows };
    let imported = call.accounts.import_keys(&import).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

fn digest(form: &mut FieldReader) -> ImportDigest {
    match form.needed_text("digest").as_str() {
        "clear" => ImportDigest::Clear,
        "sha256" => ImportDigest::Fast(Scheme::Sha256),
        "blake3" => ImportDigest::Fast(Scheme::Blake3),
        "hmac-sha256" => ImportDigest::Fast(Scheme::HmacSha256),
        "bcrypt" => ImportDigest::Slow(DigestFormat::Bcrypt),
        "argon2" => ImportDigest::Slow(DigestFormat::Argon2),
        // What is missing is told already.
        "" => ImportDigest::Clear,
        _ => {
            let fix = "Use clear, sha256, hmac-sha256, blake3, bcrypt or argon2.";
            form.reject("digest", "There is no such digest.", fix);
            ImportDigest::Clear
        }
    }
}

fn rows(form: &mut FieldReader, now: Timestamp) -> Vec<ImportRow> {
    let items = match form.take("rows") {
        Some(Value::Array(items)) if items.len() <= MOST => items,
        _ => {
            let said = format!("This is not a list of at most {MOST} keys.");
            form.reject("rows", said, "Send larger imports in parts.");
            return Vec::new();
        }
    };
    let row = |(at, item): (usize, Value)| {
        let line = item["line"].as_u64().unwrap_or(at as u64 + 1);
        form.entry(&format!("line {line}"), item, |form| ImportRow {
            line: form.number("line").unwrap_or(line),
            username: form.needed_text("username"),
            key: Secret::new(form.needed_text("key")),
            label: form.text("label").unwrap_or_default(),
            expires: keys::expires(form).and_then(|expires| expires.from(now)),
            scopes: form.words("scopes"),
        })
    };
    items.into_iter().enumerate().map(row).collect()
}
