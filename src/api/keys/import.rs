//! `POST /api/v1/keys/import`: imports keys of other systems, in batches. A batch is imported
//! completely or not at all. Sending a batch again changes nothing.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{DigestFormat, ImportDigest, ImportedKeys, KeyImport, KeyRow, UnknownUsers},
    api::{ApiRequest, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    model::{Mode, Scheme, Secret, Timestamp, Violation},
    pipeline::Denial,
};

/// The maximum number of rows in a batch.
const MAX_ROWS: usize = 1000;

pub(in crate::api) async fn import(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let now = request.accounts.clock().now();
    let mut reader = FieldReader::new(request.json().await?);
    let digest = digest(&mut reader);
    let unknown_users = if reader.flag("create_users") == Some(true) {
        UnknownUsers::Create
    } else {
        UnknownUsers::Reject
    };
    let mode = import_mode(&mut reader);
    let universal_of = reader.text("universal_of");
    let rows = rows(&mut reader, now);
    reader.finish()?;
    if let Some(application) = universal_of {
        return import_universal(&request, &application, &rows, digest, mode).await;
    }
    let import = KeyImport { digest, unknown_users, mode, rows };
    let imported = request.accounts.import_keys(&import).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

/// Imports the universal keys of an application, each with the user to whom it belongs.
async fn import_universal(
    request: &ApiRequest<'_>,
    application: &str,
    rows: &[KeyRow],
    digest: ImportDigest,
    mode: Mode,
) -> Result<PayloadResponse, Denial> {
    if digest != ImportDigest::Clear {
        let fix = "Use clear.";
        let message = "Only the text of a universal key can be imported.";
        return Err(response::invalid(vec![Violation::new("digest", message, fix)]));
    }
    let mut imported = ImportedKeys::default();
    for row in rows {
        let import =
            request.accounts.import_universal_key(application, &row.username, &row.key, mode);
        let is_new = import.await.map_err(response::denial)?;
        imported.keys += usize::from(is_new);
        imported.known += usize::from(!is_new);
    }
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

fn digest(reader: &mut FieldReader) -> ImportDigest {
    match reader.required_text("digest").as_str() {
        "clear" => ImportDigest::Clear,
        "sha256" => ImportDigest::Fast(Scheme::Sha256),
        "blake3" => ImportDigest::Fast(Scheme::Blake3),
        "hmac-sha256" => ImportDigest::Fast(Scheme::HmacSha256),
        "bcrypt" => ImportDigest::Slow(DigestFormat::Bcrypt),
        "argon2" => ImportDigest::Slow(DigestFormat::Argon2),
        // `required_text` has reported the missing field.
        "" => ImportDigest::Clear,
        _ => {
            let fix = "Use clear, sha256, hmac-sha256, blake3, bcrypt or argon2.";
            reader.reject("digest", "This kind of digest is not supported.", fix);
            ImportDigest::Clear
        }
    }
}

fn rows(reader: &mut FieldReader, now: Timestamp) -> Vec<KeyRow> {
    read_rows(reader, "keys", |line, reader| KeyRow {
        line,
        username: reader.required_text("username"),
        key: Secret::new(reader.required_text("key")),
        label: reader.text("label").unwrap_or_default(),
        expires: keys::expires(reader).and_then(|expires| expires.from(now)),
        scopes: reader.words("scopes"),
    })
}

pub(in crate::api) fn import_mode(reader: &mut FieldReader) -> Mode {
    if reader.flag("dry_run") == Some(true) { Mode::DryRun } else { Mode::Live }
}

/// Reads the rows of a batch. `read` gets the line number of the row in the client's file, which is
/// the field `line` of the row. Without this field, the line number is the position of the row.
pub(in crate::api) fn read_rows<T>(
    reader: &mut FieldReader,
    items_name: &str,
    read: impl Fn(u64, &mut FieldReader) -> T,
) -> Vec<T> {
    let items = match reader.take("rows") {
        Some(Value::Array(items)) if items.len() <= MAX_ROWS => items,
        _ => {
            let message = format!("This is not a list of at most {MAX_ROWS} {items_name}.");
            reader.reject("rows", message, "Send larger imports in several batches.");
            return Vec::new();
        }
    };
    let row = |(index, item): (usize, Value)| {
        let line = item["line"].as_u64().unwrap_or(index as u64 + 1);
        reader.entry(&format!("line {line}"), item, |reader| {
            let line = reader.number("line").unwrap_or(line);
            read(line, reader)
        })
    };
    items.into_iter().enumerate().map(row).collect()
}
