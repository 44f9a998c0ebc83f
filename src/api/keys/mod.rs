//! `/api/v1/keys` and `/api/v1/users/{uid}/keys`. Only the response to the request that creates a
//! key contains the text of the key.

pub(super) mod bulk;
pub(super) mod edit;
pub(super) mod find;
pub(super) mod import;
pub(super) mod remove;

use std::net::IpAddr;

use ::http::StatusCode;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    ApiRequest,
    fields::FieldReader,
    list::{
        self, ListQuery,
        keys::{ALL_KEYS, KEYS_OF_USER, state},
    },
    response, users,
};
use crate::{
    accounts::{Issued, Lifetime, NewKey, Page, RotateOptions, Versioned},
    handlers::PayloadResponse,
    model::{Expires, Key, KeyId, Timestamp, parse_span},
    pipeline::Denial,
};

pub(super) async fn list(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut query = ListQuery::parse(request.head, &ALL_KEYS);
    if query.is_plain() {
        query.finish()?;
        let after = query.cursor(KeyId::parse)?;
        let page = request.accounts.keys(after, query.limit).map_err(response::denial)?;
        return Ok(page_response(&page, &request));
    }
    found_page(None, query, &request).await
}

pub(super) async fn list_of_user(
    uid: u64,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    users::get(uid, &request)?;
    page_of_user(uid, &request).await
}

/// The response with a page of a user's keys.
pub(super) async fn page_of_user(
    uid: u64,
    request: &ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut query = ListQuery::parse(request.head, &KEYS_OF_USER);
    if query.is_plain() {
        query.finish()?;
        let after = query.cursor(KeyId::parse)?;
        let page = request.accounts.keys_of(uid, after, query.limit).map_err(response::denial)?;
        return Ok(page_response(&page, request));
    }
    found_page(Some(uid), query, request).await
}

/// The response with a page of the keys that the query selects.
async fn found_page(
    uid: Option<u64>,
    mut query: ListQuery,
    request: &ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let search = list::keys::search(&mut query, uid, &request.accounts)?;
    let found = request.accounts.search(search).await.map_err(response::denial)?;
    let items = found.items.iter().map(|key| view(&key.record, request)).collect();
    Ok(list::page(items, query.next(found.next.as_ref())))
}

pub(super) async fn show(id: KeyId, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let key = get(id, &request)?;
    Ok(response::record(StatusCode::OK, &view(&key.record, &request), key.revision))
}

pub(super) async fn revoke(id: KeyId, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let key = request.accounts.revoke_key(id).await.map_err(response::denial)?;
    Ok(response::record(StatusCode::OK, &view(&key.record, &request), key.revision))
}

pub(super) async fn rotate(id: KeyId, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let key = get(id, &request)?;
    check_may_change_owner(&key.record, &request)?;
    replace(&key.record, request).await
}

/// Rotates a key. The calling function has checked that the client may rotate the key.
pub(super) async fn replace(
    key: &Key,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let options = read_rotate(&mut reader, request.accounts.clock().now());
    reader.finish()?;
    let rotated = request.accounts.rotate_key(key.id, options).await.map_err(response::denial)?;
    let mut fields = view_with_text(&rotated.issued, &request);
    fields.insert("replaces".into(), view(&rotated.old.record, &request));
    Ok(created(fields, &rotated.issued))
}

/// Refuses a change of an administrator's key unless the client is an administrator. If the owner
/// was just deleted, the change is allowed, because the key is about to be deleted too.
fn check_may_change_owner(key: &Key, request: &ApiRequest<'_>) -> Result<(), Denial> {
    match request.accounts.user(key.user).map_err(response::denial)? {
        Some(owner) => users::check_may_change(&owner.record, request),
        None => Ok(()),
    }
}

fn get(id: KeyId, request: &ApiRequest<'_>) -> Result<Versioned<Key>, Denial> {
    let found = request.accounts.key(id).map_err(response::denial)?;
    found.ok_or_else(|| response::not_found("key", id))
}

pub(super) async fn generate_for_user(
    uid: u64,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let user = users::get(uid, &request)?;
    users::check_may_change(&user.record, &request)?;
    generate(uid, request).await
}

/// Generates a key for a user. The calling function has checked that the client may change this
/// user.
pub(super) async fn generate(
    uid: u64,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let new = read(&mut reader, request.accounts.clock().now());
    reader.finish()?;
    let issued = request.accounts.issue_key(uid, new).await.map_err(response::denial)?;
    Ok(created(view_with_text(&issued, &request), &issued))
}

/// The public view of a new key, with its text.
fn view_with_text(issued: &Issued, request: &ApiRequest<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("id".into(), issued.key.record.id.to_string().into());
    fields.insert("key".into(), issued.text.expose().into());
    if let Value::Object(rest) = view(&issued.key.record, request) {
        fields.extend(rest.into_iter().filter(|(name, _)| name != "id"));
    }
    fields
}

fn created(fields: Map<String, Value>, issued: &Issued) -> PayloadResponse {
    let location = format!("/api/v1/keys/{}", issued.key.record.id);
    response::created(&Value::Object(fields), issued.key.revision, &location)
}

pub(super) fn read(reader: &mut FieldReader, now: Timestamp) -> NewKey {
    NewKey {
        label: reader.text("label").unwrap_or_default(),
        application: reader.text("application"),
        universal: reader.flag("universal").unwrap_or_default(),
        scopes: reader.words("scopes"),
        expires: expires(reader).and_then(|expires| expires.from(now)),
        networks: networks(reader),
        rate_limit: reader.rate_limit(),
        credits: reader.credits(),
    }
}

fn read_rotate(reader: &mut FieldReader, now: Timestamp) -> RotateOptions {
    let lifetime = match expires(reader).map(|expires| expires.from(now)) {
        None => Lifetime::AsBefore,
        Some(None) => Lifetime::Never,
        Some(Some(time)) => Lifetime::Until(time),
    };
    RotateOptions { overlap: overlap(reader), lifetime }
}

pub(super) fn expires(reader: &mut FieldReader) -> Option<Expires> {
    let text = reader.text("expires")?;
    Expires::parse(&text).map_err(|problem| reject_expires(reader, &text, &problem)).ok()
}

/// Adds the violation of an expiry that cannot be read. The form of a time is in the fix, so only
/// other problems are in the message.
fn reject_expires(reader: &mut FieldReader, text: &str, problem: &str) {
    let message = match problem.strip_prefix("use ") {
        Some(_) => format!("{text:?} is not a time."),
        None => format!("{text:?} is too late: {problem}."),
    };
    let fix = "Send a time such as 2027-01-01T00:00:00Z (RFC 3339), a day such as 2026-12-31 (to \
               its end in UTC), a span such as 90d, or never.";
    reader.reject("expires", message, fix);
}

/// Reads the optional overlap in seconds. A client sends a number of seconds, or a span such as
/// `24h`.
fn overlap(reader: &mut FieldReader) -> Option<i64> {
    let value = reader.take("overlap")?;
    let seconds = match &value {
        Value::String(text) => parse_span(text),
        value => value.as_i64(),
    };
    if seconds.is_none() {
        let fix = "Send seconds such as 3600, or a span such as \"24h\" (s, m, h, d, w).";
        reader.reject("overlap", "This is not a span of time.", fix);
    }
    seconds
}

/// Reads networks. An address with the length of a network is refused, because the client may have
/// meant the address.
pub(super) fn networks(reader: &mut FieldReader) -> Vec<IpNet> {
    read_networks(reader, |network| network.addr() == network.network())
}

/// Reads networks, of which each may be written with any of its addresses.
pub(super) fn any_networks(reader: &mut FieldReader) -> Vec<IpNet> {
    read_networks(reader, |_| true)
}

fn read_networks(reader: &mut FieldReader, accept: impl Fn(&IpNet) -> bool) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in reader.words("networks").unwrap_or_default().into_iter().enumerate() {
        let field = format!("networks.{index}");
        // An address without a prefix length is a network with one address.
        match text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) if accept(&network) => networks.push(network),
            Ok(network) => {
                let (whole, address) = (network.trunc(), network.addr());
                let message = format!("{text} is an address in the network {whole}.");
                let fix =
                    format!("Send {whole} for the whole network, or {address} for the address.");
                reader.reject(&field, message, fix);
            }
            Err(_) => reader.reject(
                &field,
                format!("{text:?} is not a network."),
                "Send a network such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7.",
            ),
        }
    }
    networks
}

fn page_response(page: &Page<Key>, request: &ApiRequest<'_>) -> PayloadResponse {
    let last = page.items.last().map(|key| key.record.id.to_string());
    let items = page.items.iter().map(|key| view(&key.record, request)).collect();
    list::page(items, last.filter(|_| page.has_more))
}

/// The public view of a key, without its digest.
fn view(key: &Key, request: &ApiRequest<'_>) -> Value {
    let owner = request.accounts.directory().user(key.user);
    let mut view = json!({
        "id": key.id,
        "user": key.user,
        "username": owner.map(|owner| owner.name.to_string()),
        "label": key.label,
        "prefix": key.prefix,
        "last_four": key.last_four,
        "scheme": key.scheme,
        "state": state(key, request.accounts.clock().now()),
        "application": key.application,
        "universal": key.universal,
        "scopes": key.scopes,
        "networks": key.networks,
        "rate_limit": key.rate_limit,
        "credits": key.credits,
        "created": key.created.to_string(),
        "expires": key.expires.map(|time| time.to_string()),
        "ends": end(key).map(|time| time.to_string()),
        "revoked": key.revoked.map(|time| time.to_string()),
    });
    // If the usage cannot be read, the key is shown without usage. The store reports the failure.
    let usage = request.accounts.usage_of(key.id).ok().flatten();
    view["uses"] = usage.map_or(0, |usage| usage.times).into();
    view["last_used"] = usage.map(|usage| usage.last.to_string()).into();
    if let Some(rotation) = &key.rotated {
        view["rotated"] = json!({ "to": rotation.to, "until": rotation.until.to_string() });
    }
    view
}

/// The first second in which the key is refused, because it was revoked, expires, or was replaced.
/// `None` means never.
fn end(key: &Key) -> Option<Timestamp> {
    [key.revoked, key.ends()].into_iter().flatten().min()
}
