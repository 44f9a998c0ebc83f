//! `POST /api/v1/users/import`: imports users of other systems with their password digests, in
//! batches. A batch is imported completely or not at all. Sending a batch again changes nothing.

use ::http::StatusCode;
use serde_json::json;

use super::{
    ApiRequest,
    fields::FieldReader,
    keys::import::{import_mode, read_rows},
    response,
};
use crate::{
    accounts::{UserImport, UserRow},
    handlers::PayloadResponse,
    model::Secret,
    pipeline::Denial,
};

pub(super) async fn import(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let roles = reader.words("roles").unwrap_or_default();
    let mode = import_mode(&mut reader);
    let rows = rows(&mut reader);
    reader.finish()?;
    let import = UserImport { roles, mode, rows };
    let imported = request.accounts.import_users(&import).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

fn rows(reader: &mut FieldReader) -> Vec<UserRow> {
    read_rows(reader, "users", |line, reader| UserRow {
        line,
        username: reader.required_text("username"),
        digest: Secret::new(reader.required_text("password_digest")),
    })
}
