//! The five kinds of records that a file has: what each is called, where it lies, and how a file writes it.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    accounts::{AccountError, Accounts},
    model::{Application, Key, Resource, Role, Timestamp, User},
    store::{Table, table},
};

/// The fields that are secrets, or made of them.
const SECRETS: &[&str] = &["digest", "password", "slow", "former_digest"];
/// What stands in a difference in the place of a secret.
const SECRET: &str = "(secret)";

/// A kind of record.
pub(super) trait Kind: Clone + PartialEq + Debug + Serialize + DeserializeOwned {
    /// What people call it.
    const WHAT: &'static str;
    /// Where it stands in a file.
    const PLACE: &'static str;
    /// Where it lies in the store.
    const TABLE: Table;

    /// Its key in the store.
    fn key(&self) -> Vec<u8>;

    /// What it is called among its like.
    fn title(&self) -> String;

    /// The record as a file has it. `names` knows the names of users.
    fn view(&self, names: &dyn Fn(u64) -> Option<String>) -> Map<String, Value>;
}

macro_rules! of_policy {
    ($kind:ty, $what:literal, $place:literal, $table:ident) => {
        impl Kind for $kind {
            const WHAT: &'static str = $what;
            const PLACE: &'static str = $place;
            const TABLE: Table = Table::$table;

            fn key(&self) -> Vec<u8> {
                self.id.as_bytes().to_vec()
            }

            fn title(&self) -> String {
                self.id.clone()
            }

            fn view(&self, _: &dyn Fn(u64) -> Option<String>) -> Map<String, Value> {
                fields(serde_json::to_value(self).unwrap_or_default())
            }
        }
    };
}

of_policy!(Role, "role", "roles", Roles);
of_policy!(Application, "application", "applications", Applications);
of_policy!(Resource, "resource", "resources", Resources);

impl Kind for User {
    const WHAT: &'static str = "user";
    const PLACE: &'static str = "users";
    const TABLE: Table = Table::Users;

    fn key(&self) -> Vec<u8> {
        table::user(self.uid).to_vec()
    }

    fn title(&self) -> String {
        self.name.clone()
    }

    /// When it was last changed and seen is left out: it is what happened, not what was decided.
    fn view(&self, _: &dyn Fn(u64) -> Option<String>) -> Map<String, Value> {
        fields(json!({
            "uid": self.uid,
            "uuid": self.uuid,
            "name": self.name,
            "mail": self.mail,
            "init": self.init,
            "active": self.status,
            "roles": self.roles,
            // That there is none is said as well: it would stay otherwise.
            "password": self.password.as_ref().map_or("", |digest| digest.phc()),
            "created": self.created.to_string(),
            "langcode": self.langcode,
            "preferred_langcode": self.preferred_langcode,
            "preferred_admin_langcode": self.preferred_admin_langcode,
            "timezone": self.timezone,
            "rate_limit": self.rate_limit,
            "credits": self.credits,
            "attributes": self.attributes,
        }))
    }
}

impl Kind for Key {
    const WHAT: &'static str = "key";
    const PLACE: &'static str = "keys";
    const TABLE: Table = Table::Keys;

    fn key(&self) -> Vec<u8> {
        table::key(self.id).to_vec()
    }

    fn title(&self) -> String {
        self.id.to_string()
    }

    fn view(&self, names: &dyn Fn(u64) -> Option<String>) -> Map<String, Value> {
        let at = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let networks = (!self.networks.is_empty()).then_some(&self.networks);
        let rotated = self.rotated.as_ref();
        fields(json!({
            "id": self.id,
            "user": names(self.user),
            "label": self.label,
            "prefix": self.prefix,
            "last_four": self.last_four,
            "scheme": self.scheme,
            "digest": self.digest,
            "slow": self.slow.as_ref().map(|digest| digest.phc()),
            "former_digest": self.former_digest,
            "universal": self.universal.then_some(true),
            "application": self.application,
            "scopes": self.scopes,
            "networks": networks,
            "rate_limit": self.rate_limit,
            "credits": self.credits,
            "created": self.created.to_string(),
            "expires": at(self.expires),
            "revoked": at(self.revoked),
            "rotated": rotated.map(|to| json!({ "to": to.to, "until": to.until.to_string() })),
        }))
    }
}

/// The fields that say something, those that are tables last, as TOML has them.
fn fields(record: Value) -> Map<String, Value> {
    let Value::Object(fields) = record else { return Map::new() };
    let says = |value: &Value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty());
    let (tables, plain): (Vec<_>, Vec<_>) = fields
        .into_iter()
        .filter(|(_, value)| says(value))
        .partition(|(_, value)| value.is_object());
    plain.into_iter().chain(tables).map(|(name, value)| (name, without_nothing(value))).collect()
}

fn without_nothing(value: Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(fields(value)),
        other => other,
    }
}

/// The fields of two records that are not alike, without secrets.
pub(super) fn differing(
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut before, mut after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let same: Vec<String> = before
        .iter()
        .filter(|(name, value)| after.get(*name) == Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in same {
        before.shift_remove(&name);
        after.shift_remove(&name);
    }
    for side in [&mut before, &mut after] {
        for name in SECRETS {
            if let Some(value) = side.get_mut(*name).filter(|value| **value != "") {
                *value = SECRET.into();
            }
        }
    }
    (before, after)
}

/// Every record of a kind in the store, with its revision, `part` by part.
pub(super) fn each<T: Kind>(
    accounts: &Accounts,
    mut take: impl FnMut(crate::accounts::Versioned<T>) -> Result<(), AccountError>,
) -> Result<(), AccountError> {
    const PART: usize = 1000;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = accounts.page::<T>(T::TABLE, after.as_deref(), PART)?;
        after = page.items.last().map(|one| one.record.key());
        for one in page.items {
            take(one)?;
        }
        if !page.has_more {
            return Ok(());
        }
    }
}
