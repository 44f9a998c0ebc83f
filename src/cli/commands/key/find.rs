//! Finds the keys in a text on standard input, in any form in which clients send them.

use serde_json::{Value, json};

use crate::cli::{
    CliError, Exit, Session,
    client::paths::path,
    terminal::{prompt, screen::printable, table::cell},
};

/// The keys in the text on standard input, with what was recognized.
///
/// # Errors
/// The text contains no key that the server knows or that has the format of a key.
pub async fn read(session: &Session) -> Result<Vec<Value>, CliError> {
    let text = prompt::read_credential()?;
    let body = json!({ "text": text.expose() });
    let mut response = session.client.post(&path(&["keys", "find"]), &body).await?.body;
    match response["items"].take() {
        Value::Array(items) if !items.is_empty() => Ok(items),
        _ => Err(prompt::not_a_key(&text)),
    }
}

/// The id of the only key in the text on standard input.
///
/// # Errors
/// Those of [`read`], or the text contains several keys, or a deleted one.
pub async fn read_one(session: &Session) -> Result<String, CliError> {
    let keys = read(session).await?;
    let [key] = keys.as_slice() else {
        let ids: Vec<String> = keys.iter().map(|key| cell(&key["id"])).collect();
        let text = format!("the text on standard input contains several keys: {}", ids.join(", "));
        return Err(CliError::new(Exit::Usage, text));
    };
    match lost(key) {
        Some(text) => Err(CliError::new(Exit::Failed, text)),
        None => Ok(cell(&key["id"])),
    }
}

/// The kind of the text around a key, as a sentence.
pub fn recognized(key: &Value) -> String {
    let form = cell(&key["recognized"]["form"]);
    match key["recognized"]["username"].as_str() {
        Some(user) => format!("Recognized {form}, for the user {}.", printable(user)),
        None => format!("Recognized {form}."),
    }
}

/// Why a found key has no record, as a sentence. `None` means that it has a record.
pub fn lost(key: &Value) -> Option<String> {
    let id = cell(&key["id"]);
    match key["state"].as_str() {
        Some("deleted") => {
            let owner = owner(key);
            let is_alone = key["deleted_alone"] == true;
            let when = match key["deleted"].as_str() {
                Some(_) if is_alone => {
                    format!(", and its record was deleted at {}", cell(&key["deleted"]))
                }
                Some(_) => format!(", who was deleted at {}", cell(&key["deleted"])),
                None => String::new(),
            };
            Some(format!("The key {id} belonged to {owner}{when}. It is not accepted any more."))
        }
        Some("unknown") => Some(format!(
            "There is no key {id}: this store never had it, or the audit trail has forgotten it."
        )),
        _ => None,
    }
}

/// The owner of a key: the name, and the number.
pub fn owner(key: &Value) -> String {
    let uid = cell(&key["user"]);
    match key["username"].as_str() {
        Some(name) => format!("{} (#{uid})", printable(name)),
        None => format!("the user #{uid}"),
    }
}
