//! `POST /api/v1/backup`: the server writes a backup of its store to a file on its machine.
//!
//! Only the operator may write a backup, because the operator already has the server's rights on
//! that machine. Any other caller could use the server to write files there.

use std::path::PathBuf;

use ::http::StatusCode;
use serde_json::json;

use super::{ApiRequest, fields::FieldReader, response};
use crate::{accounts::WrittenBackup, handlers::PayloadResponse, model::Digest, pipeline::Denial};

pub(super) async fn write(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let accounts = request.accounts.clone();
    let operator = accounts.operator().ok_or_else(|| {
        response::forbidden("Only the operator can write a backup, with keyward backup FILE.")
    })?;
    let mut reader = FieldReader::new(request.json().await?);
    let file = PathBuf::from(reader.required_text("file"));
    if !file.is_absolute() {
        reader.reject("file", "This is not an absolute path.", "Send the absolute path.");
    }
    reader.finish()?;
    let written = operator.backup(file).await.map_err(response::denial)?;
    let WrittenBackup { contents, replaced_leftover } = written;
    let body = json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
        "replaced_leftover": replaced_leftover,
    });
    Ok(response::json(StatusCode::CREATED, &body))
}
