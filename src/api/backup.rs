//! `/api/v1/backup`: has the server write its store into a file. For the person at the machine alone, who has the server's rights there: for
//! anybody else it would be a way to write files.

use std::path::PathBuf;

use ::http::StatusCode;
use serde_json::json;

use super::{Call, fields::FieldReader, response};
use crate::{handlers::PayloadResponse, model::Digest, pipeline::Denial};

pub(super) async fn write(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let accounts = call.accounts.clone();
    let operator = accounts.operator().ok_or_else(|| {
        response::forbidden("Only the operator can do this: with keyward backup FILE.")
    })?;
    let mut form = FieldReader::new(call.json().await?);
    let file = PathBuf::from(form.needed_text("file"));
    if !file.is_absolute() {
        form.reject("file", "This is not an absolute path.", "Send the file's whole path.");
    }
    form.finish()?;
    let contents = operator.backup(file).await.map_err(response::denial)?;
    let body = json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
    });
    Ok(response::json(StatusCode::CREATED, &body))
}
