//! `/api/v1/users`: who can be let in.

use std::collections::BTreeMap;

use ::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Call,
    fields::{FieldReader, merge},
    list::{self, Also, Asked},
    response::{self, Refusal},
};
use crate::{
    accounts::{NewUser, Page, Versioned},
    handlers::PayloadResponse,
    model::{PasswordDigest, Secret, Timestamp, User},
    pipeline::Denial,
};

/// What the server sets. A change may send it as it is.
const SERVERS_OWN: &[&str] =
    &["uid", "uuid", "has_password", "init", "created", "changed", "access", "login"];

pub(super) async fn all(call: Call<'_>) -> Result<PayloadResponse, Denial> {
    match call.request.method {
        Method::POST => create(call).await,
        _ => find(&call),
    }
}

pub(super) async fn one(uid: u64, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    match call.request.method {
        Method::PATCH => change(uid, call).await,
        Method::DELETE => delete(uid, &call).await,
        _ => {
            let user = existing(uid, &call)?;
            Ok(response::record(StatusCode::OK, &view(&user.record), user.revision))
        }
    }
}

/// The user with this number.
pub(super) fn existing(uid: u64, call: &Call<'_>) -> Result<Versioned<User>, Denial> {
    let found = call.accounts.user(uid).map_err(response::denial)?;
    found.ok_or_else(|| response::not_found("user", uid))
}

fn find(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let asked = Asked::of(call.request, Also::Name)?;
    let after = asked.cursor(|cursor| cursor.parse().ok())?;
    let page = match &asked.name {
        Some(name) => named(name, after, call)?,
        None => call.accounts.users(after, asked.limit).map_err(response::denial)?,
    };
    let last = page.items.last().map(|user| user.record.uid.to_string());
    let items = page.items.iter().map(|user| view(&user.record)).collect();
    Ok(list::part(items, last.filter(|_| page.has_more)))
}

/// The one user with this name, without regard to case, or none.
fn named(name: &str, after: Option<u64>, call: &Call<'_>) -> Result<Page<User>, Denial> {
    let found = call.accounts.directory().user_by_name(name);
    let uid = found.map(|member| member.uid).filter(|uid| after.is_none_or(|after| *uid > after));
    let user = match uid {
        Some(uid) => call.accounts.user(uid).map_err(response::denial)?,
        None => None,
    };
    Ok(Page { items: user.into_iter().collect(), has_more: false })
}

async fn create(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut form = FieldReader::new(call.json().await?);
    let password = form.text("password").map(Secret::new);
    let mut draft = call.accounts.draft_user(NewUser::default());
    for name in SERVERS_OWN {
        if form.take(name).is_some() {
            form.reject(name, "The server sets this field.", "Leave it out.");
        }
    }
    draft.status = true;
    read(&mut form, &mut draft);
    form.finish()?;
    draft.init = draft.mail.clone();
    call.admin_only_if(call.policy.roles.has_administrators(&draft.roles))?;
    within_scopes(&[], &draft.roles, &call)?;
    if password.is_some() {
        may_set_passwords(&call)?;
    }
    draft.password = hashed(password, &call).await?;
    let made = call.accounts.insert_user(draft).await.map_err(response::denial)?;
    let location = format!("/api/v1/users/{}", made.record.uid);
    Ok(response::made(&view(&made.record), made.revision, &location))
}

async fn change(uid: u64, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut patch = call.json().await?;
    let before = existing(uid, &call)?;
    // Before a password is hashed for somebody who may not set it.
    may_touch(&before.record, &call)?;
    let expected = call.expected(|| Some(before.revision))?;
    let password = match patch.as_object_mut().and_then(|fields| fields.shift_remove("password")) {
        Some(value) => {
            may_set_passwords(&call)?;
            Some(new_password(value, &call).await?)
        }
        None => None,
    };
    let changed = call.accounts.change_user(uid, expected, |user: &mut User| {
        let roles = user.roles.clone();
        apply(user, patch.clone())?;
        within_scopes(&roles, &user.roles, &call)?;
        if let Some(password) = &password {
            user.password.clone_from(password);
        }
        Ok::<_, Refusal>(())
    });
    let user = changed.await?;
    Ok(response::record(StatusCode::OK, &view(&user.record), user.revision))
}

async fn delete(uid: u64, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let before = existing(uid, call)?;
    let expected = call.expected(|| Some(before.revision))?.unwrap_or(before.revision);
    call.accounts.delete_user(uid, Some(expected)).await.map_err(response::denial)?;
    Ok(response::nothing())
}

/// Only an administrator touches an administrator, or makes one.
pub(super) fn may_touch(user: &User, call: &Call<'_>) -> Result<(), Denial> {
    let policy = call.accounts.directory().policy();
    call.admin_only_if(policy.roles.has_administrators(&user.roles))
}

/// A key with scopes gives no role that holds more than they do.
fn within_scopes(before: &[String], after: &[String], call: &Call<'_>) -> Result<(), Denial> {
    let policy = call.accounts.directory().policy();
    let given = after.iter().filter(|id| !before.contains(id));
    let mut given = given.filter_map(|id| policy.roles.role(id));
    match given.all(|role| call.identity.may_grant(role)) {
        true => Ok(()),
        false => Err(response::forbidden(
            "A key with scopes can only give roles whose permissions are all among them.",
        )),
    }
}

/// Who logs in with a password is bound to nothing: it would be a way out of what a key is bound to.
pub(super) fn may_set_passwords(call: &Call<'_>) -> Result<(), Denial> {
    match call.identity.is_restricted() {
        false => Ok(()),
        true => Err(response::forbidden(
            "A key that is bound to scopes, an application, networks or limits cannot set passwords, and neither can a universal key.",
        )),
    }
}

/// A password in a change: null takes it away.
async fn new_password(value: Value, call: &Call<'_>) -> Result<Option<PasswordDigest>, Denial> {
    let mut form = FieldReader::new(Value::Object(Map::from_iter([("password".into(), value)])));
    let password = form.text("password").map(Secret::new);
    form.finish()?;
    hashed(password, call).await
}

async fn hashed(
    password: Option<Secret>,
    call: &Call<'_>,
) -> Result<Option<PasswordDigest>, Denial> {
    match password {
        Some(password) => {
            call.accounts.hash_password(password).await.map(Some).map_err(response::denial)
        }
        None => Ok(None),
    }
}

/// Makes the record what it is with the patch.
fn apply(user: &mut User, patch: Value) -> Result<(), Denial> {
    let before = view(user);
    let mut after = before.clone();
    merge(&mut after, patch);
    let mut form = FieldReader::new(after);
    for name in SERVERS_OWN {
        if form.take(name).unwrap_or_default() != before[name] {
            form.reject(name, "The server sets this field.", "Leave it out, or send it as it is.");
        }
    }
    read(&mut form, user);
    form.finish()
}

/// Reads the fields that people set.
pub(super) fn read(form: &mut FieldReader, user: &mut User) {
    user.name = form.needed_text("name");
    user.mail = form.text("mail");
    user.status = form.flag("active").unwrap_or(user.status);
    user.roles = form.words("roles").unwrap_or_default();
    user.langcode = form.text("langcode").unwrap_or_else(|| "en".into());
    user.preferred_langcode = form.text("preferred_langcode");
    user.preferred_admin_langcode = form.text("preferred_admin_langcode");
    user.timezone = form.text("timezone");
    user.attributes = attributes(form);
    user.rate_limit = form.rate_limit();
    user.credits = form.credits();
}

fn attributes(form: &mut FieldReader) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for (name, value) in form.entries("attributes").unwrap_or_default() {
        match value {
            Value::String(value) => drop(attributes.insert(name, value)),
            _ => form.reject(
                &format!("attributes.{name}"),
                "An attribute is text.",
                "Send a string.",
            ),
        }
    }
    attributes
}

/// A user as the API shows it: without its password's digest.
fn view(user: &User) -> Value {
    let seen = |at: Timestamp| (at.0 != 0).then(|| at.to_string());
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
        "access": seen(user.access),
        "login": seen(user.login),
    })
}
