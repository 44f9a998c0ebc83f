//! What the audit trail says of an act: when, who, what, and what was before and after. Never a secret.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{KeyId, Timestamp};

/// What stands in the place of a secret: that it is another is told, not what it is.
const SECRET: &str = "(secret)";
/// The fields of records that are secrets, or made of them.
const SECRETS: &[&str] = &["digest", "password", "slow", "former_digest"];
/// The most bytes that one field takes in the trail.
const MAX_FIELD: usize = 512;
/// The most bytes that what was before, or after, takes in the trail.
const MAX_SIDE: usize = 2560;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Actor {
    /// The program itself.
    Program,
    /// The person at the machine.
    Operator {
        /// From where.
        client: IpAddr,
    },
    /// Somebody who did not say who it is.
    Anonymous {
        /// From where.
        client: IpAddr,
    },
    /// A user.
    User {
        /// Its number.
        uid: u64,
        /// Its name, as it was then.
        name: String,
        /// The key that it used; none: another credential.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<KeyId>,
        /// The application that it came through.
        application: String,
        /// From where.
        client: IpAddr,
    },
}

/// Something that is done to records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Act {
    /// What is done: `user.create`.
    pub action: String,
    /// To what: `user/7`.
    pub object: String,
    /// The fields that are changed or taken away, as they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The fields that are changed or come, as they are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// An entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub time: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What.
    #[serde(flatten)]
    pub act: Act,
}

impl Act {
    /// A record is made.
    pub fn create(what: &str, id: impl ToString, after: &impl Serialize) -> Self {
        Self::of(what, "create", id, Map::new(), fields(after))
    }

    /// A record is changed. `verb` says how: `change`, `revoke`.
    pub fn change<T: Serialize>(
        what: &str,
        verb: &str,
        id: impl ToString,
        before: &T,
        after: &T,
    ) -> Self {
        let (mut before, mut after) = (fields(before), fields(after));
        let same = |name: &String, value: &Value| after.get(name) == Some(value);
        let kept: Vec<String> = before
            .iter()
            .filter(|(name, value)| same(name, value))
            .map(|(name, _)| name.clone())
            .collect();
        for name in kept {
            before.shift_remove(&name);
            after.shift_remove(&name);
        }
        Self::of(what, verb, id, before, after)
    }

    /// A record is deleted.
    pub fn delete(what: &str, id: impl ToString, before: &impl Serialize) -> Self {
        Self::of(what, "delete", id, fields(before), Map::new())
    }

    /// Something else, with what is to be known of it.
    pub fn other(action: &str, object: impl ToString, known: Value) -> Self {
        let (action, object) = (action.to_owned(), object.to_string());
        Self { action, object, before: None, after: Some(known) }
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

/// One side of a change, without secrets, and no longer than the trail keeps.
fn side(mut fields: Map<String, Value>) -> Option<Value> {
    if fields.is_empty() {
        return None;
    }
    for (name, value) in &mut fields {
        if SECRETS.contains(&name.as_str()) {
            *value = SECRET.into();
        }
        let size = value.to_string().len();
        if size > MAX_FIELD {
            *value = cut(size);
        }
    }
    let side = Value::Object(fields);
    let size = side.to_string().len();
    Some(if size > MAX_SIDE { json!({ "all": cut(size) }) } else { side })
}

fn cut(size: usize) -> Value {
    format!("({size} bytes, too long for the audit trail)").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_what_changed_and_no_secret() {
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
        let made = Act::create("key", "0000aZ19", &json!({ "digest": "d00d", "label": "x" }));
        assert_eq!(
            (made.before, made.after),
            (None, Some(json!({ "digest": "(secret)", "label": "x" })))
        );
        assert_eq!(Act::delete("role", "r", &json!({ "id": "r" })).after, None);
        assert_eq!(Act::change("role", "change", "r", &before, &before).after, None);
    }

    #[test]
    fn what_is_too_long_is_cut_and_says_so() {
        let long = json!({ "body": "x".repeat(600), "id": "r" });
        let after = Act::create("resource", "r", &long).after.unwrap();
        assert_eq!(after["body"], "(602 bytes, too long for the audit trail)");
        assert_eq!(after["id"], "r");
        let many: Map<String, Value> =
            (0..100).map(|at| (format!("f{at}"), "x".repeat(100).into())).collect();
        let act = Act::delete("resource", "r", &many);
        assert!(
            act.before.unwrap()["all"].as_str().unwrap().ends_with("too long for the audit trail)")
        );
    }
}
