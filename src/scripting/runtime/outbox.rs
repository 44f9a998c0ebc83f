//! Collects the webhooks that a call of an event function requests.

use std::sync::Arc;

use parking_lot::Mutex;
use rhai::{Dynamic, Map};

use crate::scripting::values::request::is_plain_data;

/// The maximum number of webhooks of one call.
const MAX_WEBHOOKS: usize = 8;
/// The maximum size of one webhook's data as JSON, in bytes. A record in the store holds the data
/// until the webhook is delivered.
const MAX_DATA_BYTES: usize = 4096;
/// The maximum size of the data in this record, in bytes. The record holds the data as a JSON
/// string, in which a quotation mark takes two bytes.
const MAX_STORED_BYTES: usize = 6144;

/// A webhook that a script has requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedWebhook {
    /// The receiver, by its name in the configuration.
    pub name: String,
    /// The data to send, as JSON.
    pub data: String,
}

/// The webhooks that one call has requested. Cheap to clone.
#[derive(Clone, Default)]
pub(in crate::scripting) struct ScriptOutbox(Arc<Mutex<Vec<RequestedWebhook>>>);

impl ScriptOutbox {
    /// Adds a webhook.
    ///
    /// # Errors
    /// The data is not plain data or is too large, or the call has too many webhooks.
    pub fn add(&self, name: &str, data: &Map) -> Result<(), String> {
        let data = Dynamic::from(data.clone());
        let text = is_plain_data(&data, 0)
            .then(|| serde_json::to_string(&data).ok())
            .flatten()
            .ok_or("the data of a webhook must be a map of plain data")?;
        let stored = serde_json::to_string(&text).map_or(usize::MAX, |stored| stored.len());
        if text.len() > MAX_DATA_BYTES || stored > MAX_STORED_BYTES {
            return Err(format!(
                "the data of a webhook must have at most {MAX_DATA_BYTES} bytes of JSON, and fewer if it contains many quotation marks"
            ));
        }
        let mut webhooks = self.0.lock();
        if webhooks.len() >= MAX_WEBHOOKS {
            return Err(format!("one call can send at most {MAX_WEBHOOKS} webhooks"));
        }
        webhooks.push(RequestedWebhook { name: name.to_owned(), data: text });
        Ok(())
    }

    /// All webhooks that were added.
    pub fn all(&self) -> Vec<RequestedWebhook> {
        self.0.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(outbox: &ScriptOutbox, text: &str) -> Result<(), String> {
        outbox.add("ops", &Map::from([("a".into(), text.into())]))
    }

    #[test]
    fn webhooks_are_bounded_in_size_and_number() {
        let outbox = ScriptOutbox::default();
        let max_text = MAX_DATA_BYTES - r#"{"a":""}"#.len();
        assert!(add(&outbox, &"x".repeat(max_text)).is_ok());
        assert!(add(&outbox, &"x".repeat(max_text + 1)).is_err());
        // A quotation mark takes two bytes in the JSON of the data, and four bytes in the record.
        assert!(add(&outbox, &"\"".repeat(1500)).is_ok());
        assert!(add(&outbox, &"\"".repeat(2000)).is_err());
        let function = Map::from([("a".into(), Dynamic::from(rhai::FnPtr::new("f").unwrap()))]);
        assert!(outbox.add("ops", &function).is_err());
        assert_eq!(outbox.all().len(), 2);
        let added = (0..20).filter(|_| add(&outbox, "x").is_ok()).count();
        assert_eq!(added, MAX_WEBHOOKS - 2);
    }
}
