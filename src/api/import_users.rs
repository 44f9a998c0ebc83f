//! `POST /api/v1/users/import`: imports users of other systems with their password digests, in
//! batches. A batch is imported completely or not at all. Sending a batch again changes nothing.

use ::http::StatusCode;
use serde_json::json;
use uuid::Uuid;

use super::{
    ApiRequest,
    fields::FieldReader,
    keys::import::{import_mode, read_rows},
    response,
    users::attributes,
};
use crate::{
    accounts::{ExistingUsers, UserImport, UserProfile, UserRow},
    handlers::PayloadResponse,
    model::{Secret, Timestamp},
    pipeline::Denial,
};

pub(super) async fn import(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let roles = reader.words("roles").unwrap_or_default();
    let existing = existing(&mut reader);
    let largest_uid = reader.number("largest_uid").unwrap_or_default();
    let mode = import_mode(&mut reader);
    let rows = rows(&mut reader, existing);
    reader.finish()?;
    let import = UserImport { roles, existing, largest_uid, mode, rows };
    let imported = request.accounts.import_users(&import).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &json!(imported)))
}

fn existing(reader: &mut FieldReader) -> ExistingUsers {
    match reader.text("existing").as_deref() {
        None | Some("add_password") => ExistingUsers::AddPassword,
        Some("keep") => ExistingUsers::Keep,
        Some("update") => ExistingUsers::Update,
        Some(_) => {
            let fix = "Use add_password, keep or update.";
            reader.reject("existing", "This is not a treatment of existing users.", fix);
            ExistingUsers::AddPassword
        }
    }
}

fn rows(reader: &mut FieldReader, existing: ExistingUsers) -> Vec<UserRow> {
    read_rows(reader, "users", |line, reader| UserRow {
        line,
        username: reader.required_text("username"),
        // Only an import of whole users has users without a password.
        digest: if existing == ExistingUsers::AddPassword {
            Some(Secret::new(reader.required_text("password_digest")))
        } else {
            reader.text("password_digest").map(Secret::new)
        },
        profile: profile(reader),
    })
}

fn profile(reader: &mut FieldReader) -> UserProfile {
    UserProfile {
        uid: reader.number("uid"),
        uuid: parsed(reader, "uuid", "a UUID", |text| Uuid::parse_str(text).ok()),
        active: reader.flag("active"),
        mail: reader.text("mail"),
        init: reader.text("init"),
        roles: reader.words("roles").unwrap_or_default(),
        created: parsed(reader, "created", "a time", Timestamp::parse),
        access: parsed(reader, "access", "a time", Timestamp::parse),
        login: parsed(reader, "login", "a time", Timestamp::parse),
        langcode: reader.text("langcode"),
        preferred_langcode: reader.text("preferred_langcode"),
        preferred_admin_langcode: reader.text("preferred_admin_langcode"),
        timezone: reader.text("timezone"),
        attributes: attributes(reader),
    }
}

/// Reads an optional text of another type.
fn parsed<T>(
    reader: &mut FieldReader,
    name: &'static str,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let text = reader.text(name)?;
    let value = parse(&text);
    if value.is_none() {
        reader.reject(name, format!("This is not {expected}."), "Correct or remove the value.");
    }
    value
}
