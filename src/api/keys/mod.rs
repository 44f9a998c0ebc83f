//! `/api/v1/keys` and `/api/v1/users/{uid}/keys`: what users present. A key's text is in one answer alone, the one that makes it.

pub(super) mod bulk;
pub(super) mod import;

use std::net::IpAddr;

use ::http::{Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    Call,
    fields::{FieldReader, merge},
    list::{self, Also, Asked},
    response::{self, Refusal},
    users,
};
use crate::{
    accounts::{Issued, Lifetime, NewKey, Page, RotateOptions, Versioned},
    handlers::PayloadResponse,
    model::{Credits, Expires, Key, KeyId, RateLimit, Timestamp, parse_span},
    pipeline::Denial,
};

pub(super) fn all(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let asked = Asked::of(call.request, Also::Nothing)?;
    let after = asked.cursor(KeyId::parse)?;
    let page = call.accounts.keys(after, asked.limit).map_err(response::denial)?;
    Ok(part(&page, call))
}

pub(super) async fn of_user(uid: u64, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let user = users::existing(uid, &call)?;
    if call.request.method == Method::POST {
        users::may_touch(&user.record, &call)?;
        return generate(uid, call).await;
    }
    list_of(uid, &call)
}

/// The keys of a user.
pub(super) fn list_of(uid: u64, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let asked = Asked::of(call.request, Also::Nothing)?;
    let after = asked.cursor(KeyId::parse)?;
    let page = call.accounts.keys_of(uid, after, asked.limit).map_err(response::denial)?;
    Ok(part(&page, call))
}

pub(super) async fn one(id: KeyId, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let key = match call.request.method {
        Method::PATCH => return change(id, call).await,
        _ => existing(id, &call)?,
    };
    Ok(response::record(StatusCode::OK, &view(&key.record, &call), key.revision))
}

/// Changes what people may change of a key that was handed out: its label and its limits.
async fn change(id: KeyId, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let patch = call.json().await?;
    let before = existing(id, &call)?;
    let expected = call.expected(|| Some(before.revision))?;
    let changed = call.accounts.change_key(id, expected, |key: &mut Key| {
        let mut after = json!({
            "label": key.label,
            "rate_limit": key.rate_limit,
            "credits": key.credits,
        });
        merge(&mut after, patch.clone());
        let mut form = FieldReader::new(after);
        key.label = form.text("label").unwrap_or_default();
        key.rate_limit = form.rate_limit();
        key.credits = form.credits();
        form.finish()?;
        within_own_bounds(&Wanted::of(key), &call)?;
        Ok::<_, Refusal>(())
    });
    let key = changed.await?;
    Ok(response::record(StatusCode::OK, &view(&key.record, &call), key.revision))
}

pub(super) async fn revoke(id: KeyId, call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let key = call.accounts.revoke_key(id).await.map_err(response::denial)?;
    Ok(response::record(StatusCode::OK, &view(&key.record, call), key.revision))
}

pub(super) async fn rotate(id: KeyId, call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let key = existing(id, &call)?;
    may_touch_owner(&key.record, &call)?;
    replace(&key.record, call).await
}

/// Rotates a key that the caller may rotate.
pub(super) async fn replace(key: &Key, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut form = FieldReader::new(call.json().await?);
    let how = read_rotate(&mut form, call.accounts.clock().now());
    form.finish()?;
    may_hand_out(key.universal, &call)?;
    within_own_bounds(&Wanted::of(key), &call)?;
    let rotated = call.accounts.rotate_key(key.id, how).await.map_err(response::denial)?;
    let mut fields = with_text(&rotated.issued, &call);
    fields.insert("replaces".into(), view(&rotated.old.record, &call));
    Ok(made(fields, &rotated.issued))
}

/// The keys of somebody who has just gone are on their way out as well, and nobody's.
fn may_touch_owner(key: &Key, call: &Call<'_>) -> Result<(), Denial> {
    match call.accounts.user(key.user).map_err(response::denial)? {
        Some(owner) => users::may_touch(&owner.record, call),
        None => Ok(()),
    }
}

fn existing(id: KeyId, call: &Call<'_>) -> Result<Versioned<Key>, Denial> {
    let found = call.accounts.key(id).map_err(response::denial)?;
    found.ok_or_else(|| response::not_found("key", id))
}

/// Makes a key for a user for whom the caller may make one.
pub(super) async fn generate(uid: u64, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut form = FieldReader::new(call.json().await?);
    let new = read(&mut form, call.accounts.clock().now());
    form.finish()?;
    may_hand_out(new.universal, &call)?;
    within_own_bounds(&Wanted::new(&new), &call)?;
    let issued = call.accounts.issue_key(uid, new).await.map_err(response::denial)?;
    Ok(made(with_text(&issued, &call), &issued))
}

/// A new key with its text, in the one answer that has it.
fn with_text(issued: &Issued, call: &Call<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("id".into(), issued.key.record.id.to_string().into());
    fields.insert("key".into(), issued.text.expose().into());
    if let Value::Object(rest) = view(&issued.key.record, call) {
        fields.extend(rest.into_iter().filter(|(name, _)| name != "id"));
    }
    fields
}

fn made(fields: Map<String, Value>, issued: &Issued) -> PayloadResponse {
    let location = format!("/api/v1/keys/{}", issued.key.record.id);
    response::made(&Value::Object(fields), issued.key.revision, &location)
}

/// Who has a universal key hands out no keys of those whom it acts as, which would go on when it is taken back; and one that acts as everybody is made
/// by an administrator.
pub(super) fn may_hand_out(universal: bool, call: &Call<'_>) -> Result<(), Denial> {
    if call.identity.uses_universal_key() {
        return Err(response::forbidden("With a universal key no other keys can be made."));
    }
    match universal && !call.identity.is_admin() {
        true => Err(response::forbidden("Only an administrator can make universal keys.")),
        false => Ok(()),
    }
}

/// What a key is bound to that somebody wants to have.
#[derive(Default)]
pub(super) struct Wanted<'a> {
    pub scopes: Option<&'a [String]>,
    pub application: Option<&'a str>,
    pub networks: &'a [IpNet],
    pub rate_limit: Option<RateLimit>,
    pub credits: Option<Credits>,
}

impl<'a> Wanted<'a> {
    pub fn new(new: &'a NewKey) -> Self {
        let NewKey { scopes, application, networks, rate_limit, credits, .. } = new;
        Self {
            scopes: scopes.as_deref(),
            application: application.as_deref(),
            networks,
            rate_limit: *rate_limit,
            credits: *credits,
        }
    }

    fn of(key: &'a Key) -> Self {
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

/// A key that is bound to scopes, an application, networks or limits makes none that is bound less: it would be a way out. Not so its end: what
/// has to be replaced in time can be.
pub(super) fn within_own_bounds(wanted: &Wanted<'_>, call: &Call<'_>) -> Result<(), Denial> {
    let Wanted { scopes, application, networks, .. } = *wanted;
    let is_within = |own: &[String]| {
        scopes.is_some_and(|scopes| scopes.iter().all(|scope| own.contains(scope)))
    };
    if call.identity.scopes().is_some_and(|own| !is_within(own)) {
        return Err(response::forbidden(
            "A key with scopes can only make keys with the same scopes or fewer: name them.",
        ));
    }
    let own = call.identity.key().and_then(|id| call.accounts.directory().key(id));
    // The operator's key is of another kind.
    let Some(own) = own.filter(|own| own.user != 0) else { return Ok(()) };
    if own.application().is_some_and(|own| application != Some(own)) {
        return Err(response::forbidden(
            "A key for one application can only make keys for the same application: name it.",
        ));
    }
    let is_inside = |one: &IpNet| own.networks().iter().any(|own| own.contains(one));
    if !own.networks().is_empty() && (networks.is_empty() || !networks.iter().all(is_inside)) {
        return Err(response::forbidden(
            "A key for some networks can only make keys for networks inside of those: name them.",
        ));
    }
    let bounds = own.bounds();
    let rate = bounds.and_then(|bounds| bounds.rate());
    let credits = bounds.and_then(|bounds| bounds.credits());
    if rate.is_some_and(|own| wanted.rate_limit.is_none_or(|rate| !rate.is_within(own)))
        || credits.is_some_and(|own| wanted.credits.is_none_or(|new| !new.is_within(own)))
    {
        return Err(response::forbidden(
            "A key with a rate limit or credits can only make keys with the same or less: name them.",
        ));
    }
    Ok(())
}

pub(super) fn read(form: &mut FieldReader, now: Timestamp) -> NewKey {
    NewKey {
        label: form.text("label").unwrap_or_default(),
        application: form.text("application"),
        universal: form.flag("universal").unwrap_or_default(),
        scopes: form.words("scopes"),
        expires: expires(form).and_then(|expires| expires.from(now)),
        networks: networks(form),
        rate_limit: form.rate_limit(),
        credits: form.credits(),
    }
}

fn read_rotate(form: &mut FieldReader, now: Timestamp) -> RotateOptions {
    let lifetime = match expires(form).map(|expires| expires.from(now)) {
        None => Lifetime::AsBefore,
        Some(None) => Lifetime::Never,
        Some(Some(at)) => Lifetime::Until(at),
    };
    RotateOptions { overlap: overlap(form), lifetime }
}

pub(super) fn expires(form: &mut FieldReader) -> Option<Expires> {
    let text = form.text("expires")?;
    let read = Expires::parse(&text).ok();
    if read.is_none() {
        let fix =
            "Give a time such as 2027-01-01T00:00:00Z (RFC 3339), a span such as 90d, or never.";
        form.reject("expires", format!("{text:?} is not a time."), fix);
    }
    read
}

/// Seconds, or a span.
fn overlap(form: &mut FieldReader) -> Option<i64> {
    let value = form.take("overlap")?;
    let seconds = match &value {
        Value::String(text) => parse_span(text),
        value => value.as_i64(),
    };
    if seconds.is_none() {
        let fix = "Give seconds such as 3600, or a span such as \"24h\" (s, m, h, d, w).";
        form.reject("overlap", "This is not a span of time.", fix);
    }
    seconds
}

pub(super) fn networks(form: &mut FieldReader) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, text) in form.words("networks").unwrap_or_default().into_iter().enumerate() {
        // One address is a network of its own.
        let read = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match read {
            Ok(network) => networks.push(network),
            Err(_) => form.reject(
                &format!("networks.{at}"),
                format!("{text:?} is not a network."),
                "Give one such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7.",
            ),
        }
    }
    networks
}

fn part(page: &Page<Key>, call: &Call<'_>) -> PayloadResponse {
    let last = page.items.last().map(|key| key.record.id.to_string());
    let items = page.items.iter().map(|key| view(&key.record, call)).collect();
    list::part(items, last.filter(|_| page.has_more))
}

/// A key as the API shows it: without its digest.
fn view(key: &Key, call: &Call<'_>) -> Value {
    let owner = call.accounts.directory().user(key.user);
    let mut view = json!({
        "id": key.id,
        "user": key.user,
        "username": owner.map(|owner| owner.name.to_string()),
        "label": key.label,
        "prefix": key.prefix,
        "last_four": key.last_four,
        "scheme": key.scheme,
        "state": state(key, call.accounts.clock().now()),
        "application": key.application,
        "universal": key.universal,
        "scopes": key.scopes,
        "networks": key.networks,
        "rate_limit": key.rate_limit,
        "credits": key.credits,
        "created": key.created.to_string(),
        "expires": key.expires.map(|at| at.to_string()),
        "revoked": key.revoked.map(|at| at.to_string()),
    });
    // Not worth an error when it cannot be read: the store says so elsewhere.
    let used = call.accounts.usage_of(key.id).ok().flatten();
    view["uses"] = used.map_or(0, |used| used.times).into();
    view["last_used"] = used.map(|used| used.last.to_string()).into();
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
