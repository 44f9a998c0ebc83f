//! `/api/v1/users`: listing, creating, changing and deleting users.

use std::collections::BTreeMap;

use ::http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    ApiRequest,
    fields::{FieldReader, merge},
    list::{self, ListQuery},
    response::{self, ChangeDenial},
};
use crate::{
    accounts::{NewUser, Versioned, short_password},
    handlers::PayloadResponse,
    model::{PasswordDigest, Secret, Timestamp, User},
    pipeline::Denial,
};

/// The fields that only the server sets. A change may contain such a field with its current value.
const READ_ONLY: &[&str] =
    &["uid", "uuid", "has_password", "init", "created", "changed", "access", "login"];

pub(super) async fn show(uid: u64, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let user = get(uid, &request)?;
    Ok(response::record(StatusCode::OK, &view(&user.record), user.revision))
}

/// The user with this uid.
pub(super) fn get(uid: u64, request: &ApiRequest<'_>) -> Result<Versioned<User>, Denial> {
    let user = request.accounts.user(uid).map_err(response::denial)?;
    user.ok_or_else(|| response::not_found("user", uid))
}

pub(super) async fn list(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut query = ListQuery::parse(request.head, &list::users::USERS);
    if query.is_plain() {
        query.finish()?;
        let after = query.cursor(|cursor| cursor.parse().ok())?;
        let page = request.accounts.users(after, query.limit).map_err(response::denial)?;
        let last = page.items.last().map(|user| user.record.uid.to_string());
        let items = page.items.iter().map(|user| view(&user.record)).collect();
        return Ok(list::page(items, last.filter(|_| page.has_more)));
    }
    let search = list::users::search(&mut query, &request.accounts)?;
    let found = request.accounts.search(search).await.map_err(response::denial)?;
    let items = found.items.iter().map(|user| view(&user.record)).collect();
    Ok(list::page(items, query.next(found.next.as_ref())))
}

pub(super) async fn create(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let password = reader.text("password").map(Secret::new);
    let mut draft = request.accounts.draft_user(NewUser::default());
    for name in READ_ONLY {
        if reader.take(name).is_some() {
            reader.reject(name, "The server sets this field.", "Leave this field out.");
        }
    }
    draft.status = true;
    read(&mut reader, &mut draft);
    reader.finish()?;
    draft.init = draft.mail.clone();
    request.admin_only_if(request.policy.roles.has_administrators(&draft.roles))?;
    // This check comes before the password is hashed, because hashing is expensive.
    if password.is_some() {
        request.accounts.require_passwords().map_err(response::denial)?;
    }
    draft.password = hash_password(password, &request).await?;
    let user = request.accounts.insert_user(draft).await.map_err(response::denial)?;
    let location = format!("/api/v1/users/{}", user.record.uid);
    Ok(response::created(&view(&user.record), user.revision, &location))
}

pub(super) async fn change(
    uid: u64,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut patch = request.json().await?;
    let before = get(uid, &request)?;
    // This check comes before the password is hashed, because hashing is expensive.
    check_may_change(&before.record, &request)?;
    let expected = request.expected_revision(|| Some(before.revision))?;
    let password = match patch.as_object_mut().and_then(|fields| fields.shift_remove("password")) {
        Some(value) => {
            request.accounts.require_passwords().map_err(response::denial)?;
            Some(new_password(value, &request).await?)
        }
        None => None,
    };
    let changed = request.accounts.change_user(uid, expected, |user: &mut User| {
        apply(user, patch.clone())?;
        if let Some(password) = &password {
            user.password.clone_from(password);
        }
        Ok::<_, ChangeDenial>(())
    });
    let user = changed.await?;
    Ok(response::record(StatusCode::OK, &view(&user.record), user.revision))
}

pub(super) async fn delete(uid: u64, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let before = get(uid, &request)?;
    let expected = request.expected_revision(|| Some(before.revision))?.unwrap_or(before.revision);
    request.accounts.delete_user(uid, Some(expected)).await.map_err(response::denial)?;
    Ok(response::no_content())
}

/// Refuses a change of an administrator's account unless the client may make it.
pub(super) fn check_may_change(user: &User, request: &ApiRequest<'_>) -> Result<(), Denial> {
    request.accounts.require_change_of(user).map_err(response::denial)
}

/// The digest of the password in a change. The value `null` becomes `None`, which removes the
/// password.
async fn new_password(
    value: Value,
    request: &ApiRequest<'_>,
) -> Result<Option<PasswordDigest>, Denial> {
    let mut reader = FieldReader::new(Value::Object(Map::from_iter([("password".into(), value)])));
    let password = reader.text("password").map(Secret::new);
    reader.finish()?;
    hash_password(password, request).await
}

async fn hash_password(
    password: Option<Secret>,
    request: &ApiRequest<'_>,
) -> Result<Option<PasswordDigest>, Denial> {
    match password {
        Some(password) => {
            if let Some(problem) = short_password(&password) {
                return Err(response::invalid(vec![problem]));
            }
            request.accounts.hash_password(password).await.map(Some).map_err(response::denial)
        }
        None => Ok(None),
    }
}

/// Applies a merge patch to the user.
fn apply(user: &mut User, patch: Value) -> Result<(), Denial> {
    let before = view(user);
    let mut after = before.clone();
    merge(&mut after, patch);
    let mut reader = FieldReader::new(after);
    for name in READ_ONLY {
        if reader.take(name).unwrap_or_default() != before[name] {
            reader.reject(
                name,
                "The server sets this field.",
                "Leave this field out, or send its current value.",
            );
        }
    }
    read(&mut reader, user);
    reader.finish()
}

/// Reads the fields that clients may set.
pub(super) fn read(reader: &mut FieldReader, user: &mut User) {
    user.name = reader.required_text("name");
    user.mail = reader.text("mail");
    user.status = reader.flag("active").unwrap_or(user.status);
    user.roles = reader.words("roles").unwrap_or_default();
    user.langcode = reader.text("langcode").unwrap_or_else(|| "en".into());
    user.preferred_langcode = reader.text("preferred_langcode");
    user.preferred_admin_langcode = reader.text("preferred_admin_langcode");
    user.timezone = reader.text("timezone");
    user.attributes = attributes(reader);
    user.rate_limit = reader.rate_limit();
    user.credits = reader.credits();
}

pub(super) fn attributes(reader: &mut FieldReader) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for (name, value) in reader.entries("attributes").unwrap_or_default() {
        match value {
            Value::String(value) => drop(attributes.insert(name, value)),
            _ => reader.reject(
                &format!("attributes.{name}"),
                "An attribute is text.",
                "Send a string.",
            ),
        }
    }
    attributes
}

/// The public view of a user, without the password digest.
fn view(user: &User) -> Value {
    // The timestamp 0 means never, and is shown as `null`.
    let time = |time: Timestamp| (time.0 != 0).then(|| time.to_string());
    json!({
        "uid": user.uid,
        "name": user.name,
        "mail": user.mail,
        "active": user.status,
        "roles": user.roles,
        "has_password": user.password.is_some(),
        "uuid": user.uuid,
        "init": user.init,
        "langcode": user.langcode,
        "preferred_langcode": user.preferred_langcode,
        "preferred_admin_langcode": user.preferred_admin_langcode,
        "timezone": user.timezone,
        "attributes": user.attributes,
        "rate_limit": user.rate_limit,
        "credits": user.credits,
        "created": user.created.to_string(),
        "changed": user.changed.to_string(),
        "access": time(user.access),
        "login": time(user.login),
    })
}
