//! The line that confirms a change.

use serde_json::{Map, Value};

use super::{
    screen::printable,
    table::{cell, cell_or},
    width::cut,
};

/// The maximum number of cells of a value in a confirmation.
const MAX_VALUE: usize = 40;
/// The fields that change by themselves.
const COMPUTED: [&str; 7] = ["changed", "access", "login", "uses", "last_used", "state", "init"];

/// A change of a record.
#[derive(Debug)]
pub struct Change {
    /// The record before the change.
    pub before: Value,
    /// The record after the change.
    pub after: Value,
    /// The fields that the request contained. Records do not show some of them, such as a password.
    /// An empty list means that no request was sent.
    pub sent: Vec<String>,
}

/// The record that a line is about, such as `the role editor`.
pub fn subject(kind: &str, record: &Value) -> String {
    match kind {
        "user" => cell(&record["name"]),
        "key" => match record["username"].as_str() {
            Some(owner) => format!("the key {} of {}", cell(&record["id"]), printable(owner)),
            None => format!("the key {}", cell(&record["id"])),
        },
        kind => format!("the {} {}", printable(kind), cell(&record["id"])),
    }
}

/// Confirms a new record.
pub fn created(kind: &str, record: &Value) -> String {
    if kind != "user" {
        return sentence(&format!("{} is created", subject(kind, record)));
    }
    let state = if record["active"] == false { "; it is blocked" } else { "" };
    let roles = match record["roles"].as_array().map(Vec::as_slice) {
        Some([_, ..]) => format!(" with the roles {}", cell(&record["roles"])),
        _ => String::new(),
    };
    let text = format!("{} is created as user #{}", cell(&record["name"]), cell(&record["uid"]));
    line(&format!("{text}{roles}{state}"))
}

/// Confirms a change. `keys` is the number of keys of a user who was blocked or unblocked.
pub fn changed(kind: &str, change: &Change, keys: Option<usize>) -> String {
    let Change { before, after, sent } = change;
    let subject = subject(kind, after);
    let switched = |name: &str| before[name] != after[name];
    let count = match keys {
        Some(1) => "1 key".to_owned(),
        keys => format!("{} keys", keys.unwrap_or_default()),
    };
    let changes = differences(before, after);
    let others = |name: &str| {
        let rest: Vec<&str> = changes
            .iter()
            .filter(|(field, _)| field != name)
            .map(|(_, text)| text.as_str())
            .collect();
        if rest.is_empty() { String::new() } else { format!("; {}", rest.join("; ")) }
    };
    let ending = if keys == Some(1) { "s" } else { "" };
    match (kind, after["active"].as_bool(), after["enabled"].as_bool()) {
        _ if changes.is_empty() && !sent.is_empty() => {
            sentence(&format!("{subject} is changed: {}", printable(&sent.join(", "))))
        }
        _ if changes.is_empty() => {
            sentence(&format!("{subject} is like that already: nothing was changed"))
        }
        ("user", Some(false), _) if switched("active") => {
            let effect = format!("{count} no longer work{ending}");
            line(&format!("{subject} is blocked; {effect}{}", others("active")))
        }
        ("user", Some(true), _) if switched("active") => {
            line(&format!("{subject} is active; {count} work{ending} again{}", others("active")))
        }
        (_, _, Some(is_enabled)) if switched("enabled") => {
            let state = if is_enabled { "enabled" } else { "disabled" };
            sentence(&format!("{subject} is {state}{}", others("enabled")))
        }
        _ => {
            let changes: Vec<String> = changes.into_iter().map(|(_, text)| text).collect();
            sentence(&format!("{subject} is changed: {}", changes.join("; ")))
        }
    }
}

/// Confirms a new key.
pub fn key_created(key: &Value) -> String {
    let owner = key["username"].as_str().map(|name| format!(" of {}", printable(name)));
    let end = match key["expires"].as_str() {
        Some(_) => format!("expires at {}", cell(&key["expires"])),
        None => "never expires".to_owned(),
    };
    let id = cell(&key["id"]);
    line(&format!("The key {id}{} is created; it {end}", owner.unwrap_or_default()))
}

/// The changed fields, each with its name and a text such as `mail: none → a@b`.
fn differences(before: &Value, after: &Value) -> Vec<(String, String)> {
    let empty = Map::new();
    let (old, new) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let removed = old.keys().filter(|name| !new.contains_key(*name));
    new.keys()
        .chain(removed)
        .filter(|name| !COMPUTED.contains(&name.as_str()) && before[*name] != after[*name])
        .map(|name| {
            let value = |record: &Value| match &record[name] {
                Value::String(text) if text.is_empty() => "none".to_owned(),
                value => cut(&cell_or(value, "none"), MAX_VALUE),
            };
            let text = format!("{}: {} → {}", printable(name), value(before), value(after));
            (name.clone(), text)
        })
        .collect()
}

/// A sentence whose first letter is a capital.
fn sentence(text: &str) -> String {
    match text.strip_prefix("the ") {
        Some(rest) => line(&format!("The {rest}")),
        None => line(text),
    }
}

fn line(text: &str) -> String {
    format!("{text}.\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn change_is_one_line_that_says_what_it_does() {
        let user = |active: bool, mail: Option<&str>| json!({ "uid": 3, "name": "builder", "active": active, "mail": mail, "changed": active });
        let changed = |kind: &str, before: &Value, after: &Value, keys| {
            let sent = if before == after { Vec::new() } else { vec!["x".to_owned()] };
            let change = Change { before: before.clone(), after: after.clone(), sent };
            changed(kind, &change, keys)
        };
        let block = |keys| changed("user", &user(true, None), &user(false, None), Some(keys));
        assert_eq!(block(2), "builder is blocked; 2 keys no longer work.\n");
        assert_eq!(block(1), "builder is blocked; 1 key no longer works.\n");
        let unblocked = changed("user", &user(false, None), &user(true, Some("a@b")), Some(0));
        assert_eq!(unblocked, "builder is active; 0 keys work again; mail: none → a@b.\n");
        let again = changed("user", &user(true, None), &user(true, None), None);
        assert_eq!(again, "builder is like that already: nothing was changed.\n");
        let role = |label: &str| json!({ "id": "editor", "label": label });
        assert_eq!(
            changed("role", &role("A"), &role("\x1b[31mB"), None),
            "The role editor is changed: label: A → [31mB.\n"
        );
        let app = |enabled: bool| json!({ "id": "web", "enabled": enabled });
        assert_eq!(
            changed("application", &app(true), &app(false), None),
            "The application web is disabled.\n"
        );
        let key = |label: &str| json!({ "id": "0000aZ19", "username": "ann", "label": label });
        assert_eq!(
            changed("key", &key("ci"), &key(&"x".repeat(50)), None),
            format!("The key 0000aZ19 of ann is changed: label: ci → {}….\n", "x".repeat(39))
        );
    }

    #[test]
    fn change_that_the_record_does_not_show_is_confirmed() {
        let record = json!({ "uid": 3, "name": "ann", "has_password": true });
        let sent = vec!["password".to_owned()];
        let change = Change { before: record.clone(), after: record, sent };
        assert_eq!(changed("user", &change, None), "ann is changed: password.\n");
    }

    #[test]
    fn new_record_is_confirmed_in_one_line() {
        let user = json!({ "uid": 2, "name": "ann", "roles": ["a", "b"], "active": false });
        let text = "ann is created as user #2 with the roles a, b; it is blocked.\n";
        assert_eq!(created("user", &user), text);
        assert_eq!(
            created("resource", &json!({ "id": "motd" })),
            "The resource motd is created.\n"
        );
    }
}
