//! Entries of the audit trail: time, actor, action, and the record before and after. No entry
//! contains a secret.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{KeyId, Timestamp};

/// The text that replaces a secret. An entry shows that a secret changed, but not the
/// value of the secret.
pub const SECRET_PLACEHOLDER: &str = "(secret)";
/// The fields that are secrets or derived from secrets.
const SECRET_FIELDS: &[&str] = &["digest", "password", "slow", "former_digest"];
/// The maximum size of one field in an entry, in bytes.
const MAX_FIELD: usize = 512;
/// The maximum size of [`Act::before`] and of [`Act::after`], in bytes each.
const MAX_SIDE: usize = 2560;

/// The actor of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// Keyward itself, without a request from a client.
    Program,
    /// The operator: the person who uses the command line on the server's machine.
    Operator {
        /// The client's address.
        client: IpAddr,
    },
    /// An unauthenticated client.
    Anonymous {
        /// The client's address.
        client: IpAddr,
    },
    /// A user.
    User {
        /// The user's number.
        uid: u64,
        /// The user's name at the time.
        name: String,
        /// The key that authenticated the user. `None` means that the user authenticated
        /// without a key, for example with a password.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeyId>,
        /// The id of the application.
        application: String,
        /// The client's address.
        client: IpAddr,
    },
}

/// An action on records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// The action, such as `user.create`.
    pub action: String,
    /// The object, such as `user/7`.
    pub object: String,
    /// The fields that the action changed or removed, with their values before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The fields that the action changed or added, with their values after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The time.
    pub time: Timestamp,
    /// The actor.
    pub actor: Actor,
    /// The action.
    #[serde(flatten)]
    pub act: Act,
    /// The person behind the operator. `None` means that the actor is not the operator, or that the
    /// person is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorProcess>,
}

/// The process of a person who uses the command line as the operator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorProcess {
    /// The Unix user. `None` means that the request did not come through a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of the Unix user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The command, such as `user block`, without its arguments, which can be secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Act {
    /// The creation of a record.
    pub fn create(what: &str, id: impl ToString, after: &impl Serialize) -> Self {
        Self::of(what, "create", id, Map::new(), fields(after))
    }

    /// The change of a record. `verb` names the kind of change, such as `change` or `revoke`.
    pub fn change<T: Serialize>(
        what: &str,
        verb: &str,
        id: impl ToString,
        before: &T,
        after: &T,
    ) -> Self {
        let (mut before, mut after) = (fields(before), fields(after));
        let same = |name: &String, value: &Value| after.get(name) == Some(value);
        let unchanged: Vec<String> = before
            .iter()
            .filter(|(name, value)| same(name, value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in unchanged {
            before.retain(|known, _| *known != name);
            after.retain(|known, _| *known != name);
        }
        Self::of(what, verb, id, before, after)
    }

    /// The deletion of a record.
    pub fn delete(what: &str, id: impl ToString, before: &impl Serialize) -> Self {
        Self::of(what, "delete", id, fields(before), Map::new())
    }

    /// An action that is not a creation, a change or a deletion, with its details.
    pub fn other(action: &str, object: impl ToString, details: Value) -> Self {
        let (action, object) = (action.to_owned(), object.to_string());
        Self { action, object, before: None, after: Some(details) }
    }

    fn of(
        what: &str,
        verb: &str,
        id: impl ToString,
        before: Map<String, Value>,
        after: Map<String, Value>,
    ) -> Self {
        Self {
            action: format!("{what}.{verb}"),
            object: format!("{what}/{}", id.to_string()),
            before: side(before),
            after: side(after),
        }
    }
}

fn fields(record: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Prepares one side of a change: replaces secrets, and limits the size. `None` means that the side
/// has no fields.
fn side(mut fields: Map<String, Value>) -> Option<Value> {
    if fields.is_empty() {
        return None;
    }
    for (name, value) in &mut fields {
        if SECRET_FIELDS.contains(&name.as_str()) {
            *value = SECRET_PLACEHOLDER.into();
        }
        let size = value.to_string().len();
        if size > MAX_FIELD {
            *value = size_note(size);
        }
    }
    let side = Value::Object(fields);
    let size = side.to_string().len();
    Some(if size > MAX_SIDE { json!({ "all": size_note(size) }) } else { side })
}

/// The text that replaces a value of `size` bytes.
fn size_note(size: usize) -> Value {
    format!("({size} bytes, too long for the audit trail)").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_of_a_change_has_the_changed_fields_and_no_secret() {
        let before =
            json!({ "name": "ann", "mail": "a@x", "status": true, "password": "$argon2id$1" });
        let after =
            json!({ "name": "ann", "status": false, "password": "$argon2id$2", "zone": "UTC" });
        let act = Act::change("user", "change", 7, &before, &after);
        assert_eq!((act.action.as_str(), act.object.as_str()), ("user.change", "user/7"));
        assert_eq!(
            act.before,
            Some(json!({ "mail": "a@x", "status": true, "password": "(secret)" }))
        );
        assert_eq!(
            act.after,
            Some(json!({ "status": false, "password": "(secret)", "zone": "UTC" }))
        );
        let created = Act::create("key", "0000aZ19", &json!({ "digest": "d00d", "label": "x" }));
        assert_eq!(
            (created.before, created.after),
            (None, Some(json!({ "digest": "(secret)", "label": "x" })))
        );
        assert_eq!(Act::delete("role", "r", &json!({ "id": "r" })).after, None);
        assert_eq!(Act::change("role", "change", "r", &before, &before).after, None);
    }

    #[test]
    fn long_fields_are_truncated_and_marked() {
        let long = json!({ "body": "x".repeat(600), "id": "r" });
        let after = Act::create("resource", "r", &long).after.unwrap();
        assert_eq!(after["body"], "(602 bytes, too long for the audit trail)");
        assert_eq!(after["id"], "r");
        let many: Map<String, Value> =
            (0..100).map(|index| (format!("f{index}"), "x".repeat(100).into())).collect();
        let act = Act::delete("resource", "r", &many);
        assert!(
            act.before.unwrap()["all"].as_str().unwrap().ends_with("too long for the audit trail)")
        );
    }
}
