//! `/api/v1/roles`, `/applications` and `/resources`: records with an id that people choose, all handled in one way. What a resource looks like
//! is in [`resources`](super::resources).

use std::collections::BTreeSet;

use ::http::{Method, StatusCode};
use serde_json::Value;

use super::{
    Call,
    fields::{FieldReader, merge},
    list::{self, Also, Asked},
    response::{self, Refusal},
};
use crate::{
    accounts::{PolicyRecord, Versioned},
    handlers::PayloadResponse,
    model::{Application, AuthType, Detail, KeySource, Role},
    pipeline::Denial,
};

/// A record that clients send whole, or change by a merge patch on what they see.
pub(super) trait Editable: PolicyRecord {
    /// The last part of its list's path.
    const PLACE: &'static str;

    /// Reads the record. What is wrong is told to the form.
    fn read(form: &mut FieldReader) -> Self;

    /// Whether somebody may make this of that.
    fn may_write(
        call: &Call<'_>,
        before: Option<&Self>,
        after: Option<&Self>,
    ) -> Result<(), Denial> {
        let _ = (call, before, after);
        Ok(())
    }
}

pub(super) async fn all<T: Editable>(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    if call.request.method != Method::POST {
        return find::<T>(&call);
    }
    let mut form = FieldReader::new(call.json().await?);
    let record = T::read(&mut form);
    form.finish()?;
    T::may_write(&call, None, Some(&record))?;
    let made = call.accounts.create(record).await.map_err(response::denial)?;
    let location = format!("/api/v1/{}/{}", T::PLACE, made.record.id());
    Ok(response::made(&view(&made.record), made.revision, &location))
}

pub(super) async fn one<T: Editable>(id: &str, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    match call.request.method {
        Method::PATCH => change::<T>(id, call).await,
        Method::DELETE => delete::<T>(id, &call).await,
        _ => {
            let found = existing::<T>(id, &call)?;
            Ok(response::record(StatusCode::OK, &view(&found.record), found.revision))
        }
    }
}

fn existing<T: Editable>(id: &str, call: &Call<'_>) -> Result<Versioned<T>, Denial> {
    let found = call.accounts.get::<T>(id).map_err(response::denial)?;
    // The id may be anything that a path can hold.
    found.ok_or_else(|| response::not_found(T::WHAT, id.escape_debug()))
}

fn find<T: Editable>(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let asked = Asked::of(call.request, Also::Nothing)?;
    let page =
        call.accounts.list::<T>(asked.after.as_deref(), asked.limit).map_err(response::denial)?;
    let last = page.items.last().map(|found| found.record.id().to_owned());
    let items = page.items.iter().map(|found| view(&found.record)).collect();
    Ok(list::part(items, last.filter(|_| page.has_more)))
}

async fn change<T: Editable>(id: &str, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let patch = call.json().await?;
    let before = existing::<T>(id, &call)?;
    let expected = call.expected(|| Some(before.revision))?;
    let changed = call.accounts.change(id, expected, |record: &mut T| {
        let mut after = view(record);
        merge(&mut after, patch.clone());
        let mut form = FieldReader::new(after);
        let read = T::read(&mut form);
        form.finish()?;
        T::may_write(&call, Some(record), Some(&read))?;
        *record = read;
        Ok::<_, Refusal>(())
    });
    let changed = changed.await?;
    Ok(response::record(StatusCode::OK, &view(&changed.record), changed.revision))
}

async fn delete<T: Editable>(id: &str, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let before = existing::<T>(id, call)?;
    T::may_write(call, Some(&before.record), None)?;
    let expected = call.expected(|| Some(before.revision))?.unwrap_or(before.revision);
    call.accounts.delete::<T>(id, Some(expected)).await.map_err(response::denial)?;
    Ok(response::nothing())
}

fn view<T: Editable>(record: &T) -> Value {
    serde_json::to_value(record).expect("a record has string keys and finite numbers")
}

impl Editable for Role {
    const PLACE: &'static str = "roles";

    fn read(form: &mut FieldReader) -> Self {
        Self {
            id: form.needed_text("id"),
            label: form.needed_text("label"),
            weight: form.number("weight").unwrap_or_default(),
            is_admin: form.flag("is_admin").unwrap_or_default(),
            permissions: set(form.words("permissions")),
        }
    }

    /// Nobody gives what they do not have: who may change roles could otherwise make themselves an administrator.
    fn may_write(
        call: &Call<'_>,
        before: Option<&Self>,
        after: Option<&Self>,
    ) -> Result<(), Denial> {
        call.admin_only_if(Self::needs_admin(before, after))?;
        let held = before.map(|role| &role.permissions);
        let given = after.iter().flat_map(|role| &role.permissions);
        let mut new = given.filter(|one| held.is_none_or(|held| !held.contains(*one)));
        match new.any(|permission| !call.identity.has(permission)) {
            true => {
                Err(response::forbidden("You can only give permissions that you have yourself."))
            }
            false => Ok(()),
        }
    }
}

impl Editable for Application {
    const PLACE: &'static str = "applications";

    fn read(form: &mut FieldReader) -> Self {
        let id = form.needed_text("id");
        let name = form.needed_text("name");
        let mut record = Self::api_key(&id, &name);
        if let Some(name) = form.text("type") {
            record.auth_type =
                form.rule(AuthType::parse("type", &name)).unwrap_or(record.auth_type);
        }
        // A password comes in this header and in no other.
        if record.auth_type == AuthType::Basic {
            record.header = "Authorization".into();
        }
        if let Some(name) = form.text("key_source") {
            let read = form.rule(KeySource::parse("key_source", &name));
            record.key_source = read.unwrap_or(record.key_source);
        }
        if let Some(name) = form.text("detail") {
            record.detail = form.rule(Detail::parse("detail", &name)).unwrap_or(record.detail);
        }
        record.enabled = form.flag("enabled").unwrap_or(record.enabled);
        record.is_default = form.flag("is_default").unwrap_or(record.is_default);
        record.header = form.text("header").unwrap_or(record.header);
        record.realm = form.text("realm").unwrap_or(record.realm);
        record.key_prefix = form.text("key_prefix").unwrap_or(record.key_prefix);
        record.rate_limit = form.rate_limit();
        let administrators = form.flag("universal_administrators");
        record.universal_administrators = administrators.unwrap_or_default();
        record
    }
}

/// A list as a set.
pub(super) fn set(words: Option<Vec<String>>) -> BTreeSet<String> {
    words.unwrap_or_default().into_iter().collect()
}
