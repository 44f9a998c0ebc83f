//! `/api/v1/keys` and `/api/v1/users/{uid}/keys`: what users present. A key's text is in one answer alone, the one that makes it.

use std::net::IpAddr;

use ::http::{Method, StatusCode};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::{
    Call, answer,
    form::Form,
    list::{self, Asked},
    users,
};
use crate::{
    accounts::{NewKey, Page, Versioned},
    handlers::Reply,
    model::{Key, KeyId, Timestamp},
    pipeline::Denial,
};

pub(super) fn all(call: &Call<'_>) -> Result<Reply, Denial> {
    let asked = Asked::of(call.request, false)?;
    let after = asked.cursor(KeyId::parse)?;
    let page = call.accounts.keys(after, asked.limit).map_err(answer::denial)?;
    Ok(part(&page, call))
}

pub(super) async fn of_user(uid: u64, call: Call<'_>) -> Result<Reply, Denial> {
    let user = users::existing(uid, &call)?;
    if call.request.method == Method::POST {
        users::may_touch(&user.record, &call)?;
        return generate(uid, call).await;
    }
    let asked = Asked::of(call.request, false)?;
    let after = asked.cursor(KeyId::parse)?;
    let page = call.accounts.keys_of(uid, after, asked.limit).map_err(answer::denial)?;
    Ok(part(&page, &call))
}

pub(super) fn one(id: KeyId, call: &Call<'_>) -> Result<Reply, Denial> {
    let key = existing(id, call)?;
    Ok(answer::record(StatusCode::OK, &view(&key.record, call), key.revision))
}

pub(super) async fn revoke(id: KeyId, call: &Call<'_>) -> Result<Reply, Denial> {
    let key = existing(id, call)?;
    // The keys of somebody who has just gone are on their way out as well.
    if let Some(owner) = call.accounts.user(key.record.user).map_err(answer::denial)? {
        users::may_touch(&owner.record, call)?;
    }
    let key = call.accounts.revoke_key(id).await.map_err(answer::denial)?;
    Ok(answer::record(StatusCode::OK, &view(&key.record, call), key.revision))
}

fn existing(id: KeyId, call: &Call<'_>) -> Result<Versioned<Key>, Denial> {
    let found = call.accounts.key(id).map_err(answer::denial)?;
    found.ok_or_else(|| answer::not_found("key", id))
}

async fn generate(uid: u64, mut call: Call<'_>) -> Result<Reply, Denial> {
    let mut form = Form::new(call.json().await?);
    let new = read(&mut form);
    form.finish()?;
    within_own_scopes(&new, &call)?;
    let issued = call.accounts.issue_key(uid, new).await.map_err(answer::denial)?;
    let key = &issued.key;
    let mut fields = Map::new();
    fields.insert("id".into(), key.record.id.to_string().into());
    fields.insert("key".into(), issued.text.expose().into());
    if let Value::Object(rest) = view(&key.record, &call) {
        fields.extend(rest.into_iter().filter(|(name, _)| name != "id"));
    }
    let location = format!("/api/v1/keys/{}", key.record.id);
    Ok(answer::made(&Value::Object(fields), key.revision, &location))
}

/// A key with scopes makes none that may do more than itself: it would be a way out of them.
fn within_own_scopes(new: &NewKey, call: &Call<'_>) -> Result<(), Denial> {
    let Some(own) = call.identity.scopes() else { return Ok(()) };
    let is_within =
        new.scopes.as_ref().is_some_and(|scopes| scopes.iter().all(|scope| own.contains(scope)));
    match is_within {
        true => Ok(()),
        false => Err(answer::forbidden(
            "A key with scopes can only make keys with the same scopes or fewer: name them.",
        )),
    }
}

fn read(form: &mut Form) -> NewKey {
    NewKey {
        label: form.text("label").unwrap_or_default(),
        application: form.text("application"),
        scopes: form.words("scopes"),
        expires: expires(form),
        networks: networks(form),
    }
}

fn expires(form: &mut Form) -> Option<Timestamp> {
    let text = form.text("expires")?;
    let read = Timestamp::parse(&text);
    if read.is_none() {
        let fix = "Give a time such as 2027-01-01T00:00:00Z (RFC 3339).";
        form.reject("expires", format!("{text:?} is not a time."), fix);
    }
    read
}

fn networks(form: &mut Form) -> Vec<IpNet> {
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

fn part(page: &Page<Key>, call: &Call<'_>) -> Reply {
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
        "state": state(key, call.accounts.clock().now()),
        "application": key.application,
        "scopes": key.scopes,
        "networks": key.networks,
        "created": key.created.to_string(),
        "expires": key.expires.map(|at| at.to_string()),
        "revoked": key.revoked.map(|at| at.to_string()),
    });
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
