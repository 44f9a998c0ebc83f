//! `/api/v1/keys` and `/api/v1/users/{uid}/keys`. Only the response to the request that creates a
//! key contains the text of the key.

pub(super) mod bulk;
pub(super) mod import;

use std::net::IpAddr;

use ::http::StatusCode;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    ApiRequest,
    fields::{FieldReader, merge},
    list::{self, ExtraParameter, ListQuery},
    response::{self, ChangeDenial},
    users,
};
use crate::{
    accounts::{Issued, Lifetime, NewKey, Page, RotateOptions, Versioned},
    handlers::PayloadResponse,
    model::{Credits, Expires, Key, KeyId, RateLimit, Timestamp, parse_span},
    pipeline::Denial,
};

pub(super) async fn list(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let query = ListQuery::parse(request.head, ExtraParameter::None)?;
    let after = query.cursor(KeyId::parse)?;
    let page = request.accounts.keys(after, query.limit).map_err(response::denial)?;
    Ok(page_response(&page, &request))
}

pub(super) async fn list_of_user(
    uid: u64,
    request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    users::get(uid, &request)?;
    page_of_user(uid, &request)
}

/// The response with a page of a user's keys.
pub(super) fn page_of_user(uid: u64, request: &ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let query = ListQuery::parse(request.head, ExtraParameter::None)?;
    let after = query.cursor(KeyId::parse)?;
    let page = request.accounts.keys_of(uid, after, query.limit).map_err(response::denial)?;
    Ok(page_response(&page, request))
}

pub(super) async fn show(id: KeyId, request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let key = get(id, &request)?;
    Ok(response::record(StatusCode::OK, &view(&key.record, &request), key.revision))
}

/// Changes the label or the limits of a key. No other field of a key can be changed.
pub(super) async fn change(
    id: KeyId,
    mut request: ApiRequest<'_>,
) -> Result<PayloadResponse, Denial> {
    let patch = request.json().await?;
    let before = get(id, &request)?;
    let expected = request.expected_revision(|| Some(before.revision))?;
    let changed = request.accounts.change_key(id, expected, |key: &mut Key| {
        let mut after = json!({
            "label": key.label,
            "rate_limit": key.rate_limit,
            "credits": key.credits,
        });
        merge(&mut after, patch.clone());
        let mut reader = FieldReader::new(after);
        key.label = reader.text("label").unwrap_or_default();
        key.rate_limit = reader.rate_limit();
        key.credits = reader.credits();
        reader.finish()?;
        check_caller_bounds(&RequestedBounds::of_key(key), &request)?;
        Ok::<_, ChangeDenial>(())
    });
    let key = changed.await?;
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
    check_may_create(key.universal, &request)?;
    check_caller_bounds(&RequestedBounds::of_key(key), &request)?;
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
    check_may_create(new.universal, &request)?;
    check_caller_bounds(&RequestedBounds::of_new(&new), &request)?;
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

/// Refuses to create a key for a client that uses a universal key, because the new key would stay
/// valid after the universal key is revoked. Refuses a universal key unless the client is an
/// administrator.
pub(super) fn check_may_create(universal: bool, request: &ApiRequest<'_>) -> Result<(), Denial> {
    if request.identity.uses_universal_key() {
        return Err(response::forbidden("A universal key cannot create other keys."));
    }
    if universal && !request.identity.is_admin() {
        return Err(response::forbidden("Only an administrator can create universal keys."));
    }
    Ok(())
}

/// The restrictions and limits of a key that the client wants to create or change.
#[derive(Default)]
pub(super) struct RequestedBounds<'a> {
    pub scopes: Option<&'a [String]>,
    pub application: Option<&'a str>,
    pub networks: &'a [IpNet],
    pub rate_limit: Option<RateLimit>,
    pub credits: Option<Credits>,
}

impl<'a> RequestedBounds<'a> {
    pub fn of_new(new: &'a NewKey) -> Self {
        let NewKey { scopes, application, networks, rate_limit, credits, .. } = new;
        Self {
            scopes: scopes.as_deref(),
            application: application.as_deref(),
            networks,
            rate_limit: *rate_limit,
            credits: *credits,
        }
    }

    fn of_key(key: &'a Key) -> Self {
        let Key { scopes, application, networks, rate_limit, credits, .. } = key;
        Self {
            scopes: scopes.as_deref(),
            application: application.as_deref(),
            networks,
            rate_limit: *rate_limit,
            credits: *credits,
        }
    }
}

/// Refuses a key that is less restricted than the client's key in its scopes, application, networks
/// or limits, because the client could escape the restrictions of its own key. The expiry is not
/// compared, so that a client can replace its key before the key expires.
pub(super) fn check_caller_bounds(
    requested: &RequestedBounds<'_>,
    request: &ApiRequest<'_>,
) -> Result<(), Denial> {
    let RequestedBounds { scopes, application, networks, .. } = *requested;
    let are_within = |allowed: &[String]| {
        scopes.is_some_and(|scopes| scopes.iter().all(|scope| allowed.contains(scope)))
    };
    if request.identity.scopes().is_some_and(|allowed| !are_within(allowed)) {
        return Err(response::forbidden(
            "A key with scopes can only create keys with the same or fewer scopes. Send the field \
             scopes.",
        ));
    }
    let key = request.identity.key().and_then(|id| request.accounts.directory().key(id));
    // Neither the operator, who has the uid 0, nor a caller without a key is restricted.
    let Some(key) = key.filter(|key| key.user != 0) else { return Ok(()) };
    if key.application().is_some_and(|allowed| application != Some(allowed)) {
        return Err(response::forbidden(
            "A key for one application can only create keys for the same application. Send the \
             field application.",
        ));
    }
    let is_inside = |network: &IpNet| key.networks().iter().any(|outer| outer.contains(network));
    if !key.networks().is_empty() && (networks.is_empty() || !networks.iter().all(is_inside)) {
        return Err(response::forbidden(
            "A key for some networks can only create keys for networks inside these networks. Send \
             the field networks.",
        ));
    }
    let bounds = key.bounds();
    let rate = bounds.and_then(|bounds| bounds.rate());
    let credits = bounds.and_then(|bounds| bounds.credits());
    if rate.is_some_and(|max| requested.rate_limit.is_none_or(|rate| !rate.is_within(max)))
        || credits.is_some_and(|max| requested.credits.is_none_or(|new| !new.is_within(max)))
    {
        return Err(response::forbidden(
            "A key with a rate limit or credits can only create keys with the same or lower \
             limits. Send the fields rate_limit and credits.",
        ));
    }
    Ok(())
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
    let read = Expires::parse(&text).ok();
    if read.is_none() {
        let fix =
            "Send a time such as 2027-01-01T00:00:00Z (RFC 3339), a span such as 90d, or never.";
        reader.reject("expires", format!("{text:?} is not a time."), fix);
    }
    read
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

pub(super) fn networks(reader: &mut FieldReader) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in reader.words("networks").unwrap_or_default().into_iter().enumerate() {
        // An address without a prefix length is a network with one address.
        let read = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match read {
            Ok(network) => networks.push(network),
            Err(_) => reader.reject(
                &format!("networks.{index}"),
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

fn state(key: &Key, now: Timestamp) -> &'static str {
    if key.revoked.is_some() {
        "revoked"
    } else if key.ends().is_some_and(|end| end <= now) {
        "expired"
    } else {
        "active"
    }
}
