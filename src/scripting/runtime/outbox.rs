//! Events: what becomes of keys and users, told to `events.rhai`, which may refuse a creation and may have webhooks sent.

use std::sync::{Arc, Mutex, PoisonError};

use rhai::{Dynamic, Map};
use serde_json::Value;

use crate::scripting::{Fault, Function, Script, script::CallOptions};

/// The most webhooks of one call.
const MOST: usize = 8;
/// The most bytes of one webhook's data, as JSON: it is kept in one record until it is delivered.
const LONGEST: usize = 4096;
/// The most bytes that these take in the record, where quotation marks take two.
const LONGEST_KEPT: usize = 6144;

/// A webhook that a script wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// To whom, by the name in the configuration.
    pub name: String,
    /// What, as JSON.
    pub data: String,
}

/// Where the webhooks of one call go.
#[derive(Clone, Default)]
pub(in crate::scripting) struct Outbox(Arc<Mutex<Vec<Webhook>>>);

impl Outbox {
    /// Takes one in.
    ///
    /// # Errors
    /// It cannot be sent as it is, or there are too many.
    pub fn add(&self, name: &str, data: &Map) -> Result<(), String> {
        let data = Dynamic::from(data.clone());
        let text = crate::scripting::values::request::is_plain(&data, 0)
            .then(|| serde_json::to_string(&data).ok())
            .flatten()
            .ok_or("the data of a webhook is a map of plain data")?;
        let kept = serde_json::to_string(&text).map_or(usize::MAX, |kept| kept.len());
        if text.len() > LONGEST || kept > LONGEST_KEPT {
            return Err(format!(
                "the data of a webhook has {LONGEST} bytes of JSON at most, and fewer with many quotation marks"
            ));
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            return Err(format!("one call has {MOST} webhooks at most"));
        }
        all.push(Webhook { name: name.to_owned(), data: text });
        Ok(())
    }

    /// All that were taken in.
    pub fn all(&self) -> Vec<Webhook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Script {
    /// Tells the script of an event, and returns the webhooks that it wants sent.
    ///
    /// # Errors
    /// The script refused, or failed.
    pub async fn event(&self, function: Function, event: &Value) -> Result<Vec<Webhook>, Fault> {
        let outbox = Outbox::default();
        let event = rhai::serde::to_dynamic(event)
            .map_err(|_| self.broken("the event cannot be shown to a script"))?;
        let around = CallOptions { hidden: None, outbox: Some(outbox.clone()) };
        let value = self.call(function, [event], around).await?;
        self.nothing(function, &value)?;
        Ok(outbox.all())
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn add(outbox: &Outbox, text: &str) -> Result<(), String> {
        outbox.add("ops", &Map::from([("a".into(), text.into())]))
    }

    #[test]
    fn what_a_call_may_have_sent_is_bounded() {
        let outbox = Outbox::default();
        assert!(add(&outbox, &"x".repeat(4088)).is_ok());
        assert!(add(&outbox, &"x".repeat(4089)).is_err());
        // In the record each of these takes four bytes.
        assert!(add(&outbox, &"\"".repeat(1500)).is_ok());
        assert!(add(&outbox, &"\"".repeat(2000)).is_err());
        let function = Map::from([("a".into(), Dynamic::from(rhai::FnPtr::new("f").unwrap()))]);
        assert!(outbox.add("ops", &function).is_err());
        assert_eq!(outbox.all().len(), 2);
        assert_eq!((0..20).filter(|_| add(&outbox, "x").is_ok()).count(), MOST - 2);
    }
}
