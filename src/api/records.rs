//! `/api/v1/roles`, `/applications` and `/resources`: records whose id the client chooses. The
//! handlers in this module serve all three kinds of records. [`resources`](super::resources) reads
//! the fields of resources.

use std::collections::BTreeSet;

use ::http::StatusCode;
use serde_json::Value;

use super::{
    ApiRequest,
    fields::{FieldReader, merge},
    list::{self, ListQuery, policy::Listed},
    response::{self, ChangeDenial},
};
use crate::{
    accounts::{Accounts, PolicyRecord, Versioned},
    handlers::PayloadResponse,
    model::{Application, AuthType, Detail, KeySource, Role},
    pipeline::{Denial, declared_header, scripted_challenge},
};

/// A record that clients can create, and that they change with a merge patch.
pub(super) trait Editable: PolicyRecord {
    /// The last segment of the path of the list of these records, such as `roles`.
    const PATH: &'static str;

    /// Reads the record from the fields of the reader, which collects the violations.
    fn read(reader: &mut FieldReader) -> Self;

    /// Adds fields that are missing in a record and have a default value that depends on the
    /// scripts.
    fn fill(reader: &mut FieldReader, accounts: &Accounts) {
        let _ = (reader, accounts);
    }

    /// Checks that the client knows what the change does. `before` is `None` for a new record,
    /// `after` is `None` for a deletion. The rules of authority are in `accounts`.
    fn check_write(
        request: &ApiRequest<'_>,
        before: Option<&Self>,
        after: Option<&Self>,
    ) -> Result<(), Denial> {
        let _ = (request, before, after);
        Ok(())
    }

    /// Sentences about a valid change that may not be what the client meant. `before` is `None` for
    /// a new record.
    fn advice(before: Option<&Self>, after: &Self, accounts: &Accounts) -> Vec<String> {
        let _ = (before, after, accounts);
        Vec::new()
    }

    /// Adds fields that are computed and cannot be changed.
    fn add_computed(&self, view: &mut Value, accounts: &Accounts) {
        let _ = (view, accounts);
    }
}

pub(super) async fn create<T: Editable>(
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    T::fill(&mut reader, &request.accounts);
    let record = T::read(&mut reader);
    reader.finish()?;
    T::check_write(&request, None, Some(&record))?;
    let advice = T::advice(None, &record, &request.accounts);
    let created = request.accounts.create(record).await.map_err(response::denial)?;
    let location = format!("/api/v1/{}/{}", T::PATH, created.record.id());
    let shown = shown(&created.record, &request);
    let response = response::created(&shown, created.revision, &location);
    Ok(response::with_warnings(response, &advice))
}

pub(super) async fn show<T: Editable>(
    id: String,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let current = get::<T>(&id, &request)?;
    Ok(response::record(StatusCode::OK, &shown(&current.record, &request), current.revision))
}

fn get<T: Editable>(id: &str, request: &ApiRequest<'_>) -> Result<Versioned<T>, Denial> {
    let current = request.accounts.get::<T>(id).map_err(response::denial)?;
    // The id is escaped, because it comes from the path and may contain any character.
    current.ok_or_else(|| response::not_found(T::WHAT, id.escape_debug()))
}

pub(super) async fn list<T: Editable + Listed>(
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut query = ListQuery::parse(request.head, &T::PARAMETERS);
    if !query.is_plain() {
        let search = list::policy::search::<T>(&mut query)?;
        let found = request.accounts.search(search).await.map_err(response::denial)?;
        let items = found.items.iter().map(|item| shown(&item.record, &request)).collect();
        return Ok(list::page(items, query.next(found.next.as_ref())));
    }
    query.finish()?;
    let after = query.cursor(|cursor| Some(cursor.to_owned()))?;
    let page =
        request.accounts.list::<T>(after.as_deref(), query.limit).map_err(response::denial)?;
    let last = page.items.last().map(|item| item.record.id().to_owned());
    let items = page.items.iter().map(|item| shown(&item.record, &request)).collect();
    Ok(list::page(items, last.filter(|_| page.has_more)))
}

pub(super) async fn change<T: Editable>(
    id: String,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let patch = request.json().await?;
    let before = get::<T>(&id, &request)?;
    T::check_write(&request, Some(&before.record), None)?;
    let expected = request.expected_revision(|| Some(before.revision))?;
    let mut advice = Vec::new();
    let changed = request.accounts.change(&id, expected, |record: &mut T| {
        let mut after = view(record);
        merge(&mut after, patch.clone());
        // The header field of the old type is not a choice of the client.
        let is_default = after["header"] == "API-KEY" && patch.get("header").is_none();
        if is_default && patch.get("type").is_some() {
            after["header"] = Value::Null;
        }
        let mut reader = FieldReader::new(after);
        T::fill(&mut reader, &request.accounts);
        let changed = T::read(&mut reader);
        reader.finish()?;
        T::check_write(&request, Some(record), Some(&changed))?;
        advice = T::advice(Some(record), &changed, &request.accounts);
        *record = changed;
        Ok::<_, ChangeDenial>(())
    });
    let changed = changed.await?;
    let shown = shown(&changed.record, &request);
    let response = response::record(StatusCode::OK, &shown, changed.revision);
    Ok(response::with_warnings(response, &advice))
}

pub(super) async fn delete<T: Editable>(
    id: String,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let before = get::<T>(&id, &request)?;
    T::check_write(&request, Some(&before.record), None)?;
    let expected = request.expected_revision(|| Some(before.revision))?.unwrap_or(before.revision);
    request.accounts.delete::<T>(&id, Some(expected)).await.map_err(response::denial)?;
    Ok(response::no_content())
}

fn view<T: Editable>(record: &T) -> Value {
    serde_json::to_value(record).expect("a record has string keys and finite numbers")
}

/// The record with its computed fields.
fn shown<T: Editable>(record: &T, request: &ApiRequest<'_>) -> Value {
    let mut shown = view(record);
    record.add_computed(&mut shown, &request.accounts);
    shown
}

impl Editable for Role {
    const PATH: &'static str = "roles";

    fn advice(before: Option<&Self>, after: &Self, accounts: &Accounts) -> Vec<String> {
        accounts.advice_on_role(before, after)
    }

    fn read(reader: &mut FieldReader) -> Self {
        Self {
            id: reader.required_text("id"),
            label: reader.required_text("label"),
            weight: reader.number("weight").unwrap_or_default(),
            is_admin: reader.flag("is_admin").unwrap_or_default(),
            permissions: set(reader.words("permissions")),
        }
    }
}

impl Editable for Application {
    const PATH: &'static str = "applications";

    /// A script that declares its header field is the default for `header`.
    fn fill(reader: &mut FieldReader, accounts: &Accounts) {
        let name = reader.peek("type").unwrap_or_default();
        if let Some(header) = declared_header(name, &accounts.scripts().current()) {
            reader.set_default("header", header);
        }
    }

    /// `challenge`: where the script of the authentication type looks for the credential.
    fn add_computed(&self, view: &mut Value, accounts: &Accounts) {
        if let Some(challenge) = scripted_challenge(self, &accounts.scripts().current()) {
            view["challenge"] = challenge.into();
        }
    }

    fn read(reader: &mut FieldReader) -> Self {
        let id = reader.required_text("id");
        let name = reader.required_text("name");
        let mut record = Self::api_key(&id, &name);
        if let Some(name) = reader.text("type") {
            record.auth_type =
                reader.rule(AuthType::parse("type", &name)).unwrap_or(record.auth_type);
        }
        // HTTP Basic always uses `Authorization` (RFC 7617).
        if record.auth_type == AuthType::Basic {
            record.header = "Authorization".into();
        }
        if let Some(name) = reader.text("key_source") {
            let key_source = reader.rule(KeySource::parse("key_source", &name));
            record.key_source = key_source.unwrap_or(record.key_source);
        }
        if let Some(name) = reader.text("detail") {
            record.detail = reader.rule(Detail::parse("detail", &name)).unwrap_or(record.detail);
        }
        record.enabled = reader.flag("enabled").unwrap_or(record.enabled);
        record.is_default = reader.flag("is_default").unwrap_or(record.is_default);
        record.header = reader.text("header").unwrap_or(record.header);
        record.realm = reader.text("realm").unwrap_or(record.realm);
        record.key_prefix = reader.text("key_prefix").unwrap_or(record.key_prefix);
        record.rate_limit = reader.rate_limit();
        // A computed field, which a client may send back.
        reader.take("challenge");
        let administrators = reader.flag("universal_administrators");
        record.universal_administrators = administrators.unwrap_or_default();
        record
    }
}

/// The words as a set. `None` becomes the empty set.
pub(super) fn set(words: Option<Vec<String>>) -> BTreeSet<String> {
    words.unwrap_or_default().into_iter().collect()
}
