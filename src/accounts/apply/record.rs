//! The five kinds of records in a state document, each with its name, its table and its fields.

use std::fmt::Debug;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    accounts::{AccountError, Accounts, Versioned},
    model::{Application, Key, Resource, Role, Timestamp, User},
    store::{Table, table},
};

/// The fields that are secrets or digests of secrets.
const SECRETS: &[&str] = &["digest", "password", "slow", "former_digest"];
/// The text that replaces a secret in a reported difference.
const HIDDEN_SECRET: &str = "(secret)";

/// A kind of record in a state document.
pub(super) trait StateRecord:
    Clone + PartialEq + Debug + Serialize + DeserializeOwned
{
    /// The name of the kind in messages.
    const NAME: &'static str;
    /// The name of the document's list of these records.
    const LIST: &'static str;
    /// The store's table of these records.
    const TABLE: Table;

    /// The record's key in the table.
    fn key(&self) -> Vec<u8>;

    /// The name or id of the record in messages.
    fn title(&self) -> String;

    /// The id of the record in the audit trail.
    fn object_id(&self) -> String {
        self.title()
    }

    /// The fields of the record in a document. `name_of` returns the name of a user.
    fn view(&self, name_of: &dyn Fn(u64) -> Option<String>) -> Map<String, Value>;
}

macro_rules! policy_record {
    ($kind:ty, $name:literal, $list:literal, $table:ident) => {
        impl StateRecord for $kind {
            const NAME: &'static str = $name;
            const LIST: &'static str = $list;
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

policy_record!(Role, "role", "roles", Roles);
policy_record!(Application, "application", "applications", Applications);
policy_record!(Resource, "resource", "resources", Resources);

impl StateRecord for User {
    const NAME: &'static str = "user";
    const LIST: &'static str = "users";
    const TABLE: Table = Table::Users;

    fn key(&self) -> Vec<u8> {
        table::user(self.uid).to_vec()
    }

    fn title(&self) -> String {
        self.name.clone()
    }

    fn object_id(&self) -> String {
        self.uid.to_string()
    }

    /// A document has no times of the last change, access and login, because they are not settings.
    fn view(&self, _: &dyn Fn(u64) -> Option<String>) -> Map<String, Value> {
        fields(json!({
            "uid": self.uid,
            "uuid": self.uuid,
            "name": self.name,
            "mail": self.mail,
            "init": self.init,
            "active": self.status,
            "roles": self.roles,
            // The empty text means no password. Without this field, applying the document would
            // keep the current password.
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

impl StateRecord for Key {
    const NAME: &'static str = "key";
    const LIST: &'static str = "keys";
    const TABLE: Table = Table::Keys;

    fn key(&self) -> Vec<u8> {
        table::key(self.id).to_vec()
    }

    fn title(&self) -> String {
        self.id.to_string()
    }

    fn view(&self, name_of: &dyn Fn(u64) -> Option<String>) -> Map<String, Value> {
        let text = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let networks = (!self.networks.is_empty()).then_some(&self.networks);
        let rotated = self.rotated.as_ref();
        fields(json!({
            "id": self.id,
            "user": name_of(self.user),
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
            "expires": text(self.expires),
            "revoked": text(self.revoked),
            "rotated": rotated.map(|rotation| {
                json!({ "to": rotation.to, "until": rotation.until.to_string() })
            }),
        }))
    }
}

/// The fields of a record, without nulls and empty objects. Objects come last, because in TOML the
/// tables follow the plain values.
fn fields(record: Value) -> Map<String, Value> {
    let Value::Object(fields) = record else { return Map::new() };
    let is_set =
        |value: &Value| !value.is_null() && value.as_object().is_none_or(|o| !o.is_empty());
    let (tables, plain): (Vec<_>, Vec<_>) = fields
        .into_iter()
        .filter(|(_, value)| is_set(value))
        .partition(|(_, value)| value.is_object());
    plain.into_iter().chain(tables).map(|(name, value)| (name, without_nulls(value))).collect()
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(fields(value)),
        other => other,
    }
}

/// The fields that differ between two records. Secrets are replaced by [`HIDDEN_SECRET`].
pub(super) fn differing_fields(
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut before, mut after) = (before.unwrap_or_default(), after.unwrap_or_default());
    let equal: Vec<String> = before
        .iter()
        .filter(|(name, value)| after.get(*name) == Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in equal {
        before.retain(|known, _| *known != name);
        after.retain(|known, _| *known != name);
    }
    for side in [&mut before, &mut after] {
        for name in SECRETS {
            if let Some(value) = side.get_mut(*name).filter(|value| **value != "") {
                *value = HIDDEN_SECRET.into();
            }
        }
    }
    (before, after)
}

/// Calls `visit` with every record of a kind in the store. Reads the records page by page.
pub(super) fn each<T: StateRecord>(
    accounts: &Accounts,
    mut visit: impl FnMut(Versioned<T>) -> Result<(), AccountError>,
) -> Result<(), AccountError> {
    const PAGE: usize = 1000;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = accounts.page::<T>(T::TABLE, after.as_deref(), PAGE)?;
        after = page.items.last().map(|item| item.record.key());
        for item in page.items {
            visit(item)?;
        }
        if !page.has_more {
            return Ok(());
        }
    }
}
