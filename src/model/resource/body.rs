//! The limits of the request bodies of one resource, instead of the limits of the server.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

use super::{Handler, Resource};
use crate::model::Violation;

/// The largest number of bytes: 1 TiB.
const MAX_BYTES: u64 = 1 << 40;
/// The largest number of bytes of a body that is kept in memory: 1 GiB.
const MAX_BUFFERED_BYTES: u64 = 1 << 30;
/// The largest number of seconds: one day.
const MAX_SECONDS: u64 = 86_400;

/// The limits of the request bodies of one resource. `None` means the limit of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BodyRules {
    /// The maximum size in bytes.
    #[serde(rename = "body_bytes", default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<BodyLimit>,
    /// The maximum time until the whole body has arrived, in seconds.
    #[serde(rename = "body_read_seconds", default, skip_serializing_if = "Option::is_none")]
    pub read_seconds: Option<BodyLimit>,
}

/// A limit of a resource's request bodies: a number, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLimit {
    /// No limit: `none`.
    Unlimited,
    /// At most this number.
    AtMost(u64),
}

impl BodyLimit {
    /// The number. `None` means no limit.
    #[must_use]
    pub fn value(self) -> Option<u64> {
        match self {
            Self::Unlimited => None,
            Self::AtMost(number) => Some(number),
        }
    }

    /// Reads a limit from JSON: a number, or the text `none`.
    ///
    /// # Errors
    /// The value is neither of them. `name` is the name of the field.
    pub fn read(name: &str, value: &Value) -> Result<Self, Violation> {
        match value {
            Value::String(text) if text == "none" => Ok(Self::Unlimited),
            value => value.as_u64().map(Self::AtMost).ok_or_else(|| {
                let fix = "Use a whole number, or \"none\" for no limit.";
                Violation::new(name, "This is no limit.", fix)
            }),
        }
    }
}

impl Serialize for BodyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unlimited => serializer.serialize_str("none"),
            Self::AtMost(number) => serializer.serialize_u64(*number),
        }
    }
}

impl<'de> Deserialize<'de> for BodyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::read("", &value).map_err(|violation| D::Error::custom(violation.message))
    }
}

impl Resource {
    pub(super) fn check_body(&self, found: &mut Vec<Violation>) {
        let max_bytes = if self.buffer_body { MAX_BUFFERED_BYTES } else { MAX_BYTES };
        for (name, limit, max) in [
            ("body_bytes", self.body.bytes, max_bytes),
            ("body_read_seconds", self.body.read_seconds, MAX_SECONDS),
        ] {
            match limit {
                Some(BodyLimit::AtMost(number)) if !(1..=max).contains(&number) => {
                    found.push(Violation::new(
                        name,
                        format!("{number} is out of range."),
                        format!("Use a whole number from 1 to {max}."),
                    ));
                }
                Some(BodyLimit::Unlimited) if self.buffer_body => found.push(Violation::new(
                    name,
                    "A body that is read before the decision needs a limit.",
                    "Use a number, or turn buffer_body off.",
                )),
                Some(BodyLimit::Unlimited) if self.handler != Handler::Proxy => {
                    found.push(Violation::new(
                        name,
                        "Only the handler proxy can stream bodies without a limit.",
                        "Use a number, or set the handler to proxy.",
                    ));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_numbers_or_none_in_json() {
        let rules = |value: Value| serde_json::from_value::<BodyRules>(value);
        let read = rules(json!({ "body_bytes": 7, "body_read_seconds": "none" })).unwrap();
        assert_eq!(read.bytes, Some(BodyLimit::AtMost(7)));
        assert_eq!(read.read_seconds, Some(BodyLimit::Unlimited));
        let written = serde_json::to_value(read).unwrap();
        assert_eq!(written, json!({ "body_bytes": 7, "body_read_seconds": "none" }));
        assert_eq!(rules(json!({})).unwrap(), BodyRules::default());
        assert_eq!(serde_json::to_value(BodyRules::default()).unwrap(), json!({}));
        for bad in [json!("None"), json!(-1), json!(1.5), json!(true), json!("7")] {
            assert!(rules(json!({ "body_bytes": bad })).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_proxy_that_buffers_nothing_has_no_limit() {
        let locations = |handler, buffer_body, bytes, read_seconds| {
            let body = BodyRules { bytes: Some(bytes), read_seconds: Some(read_seconds) };
            let mut found = Vec::new();
            Resource { handler, buffer_body, body, ..Resource::entity_user() }
                .check_body(&mut found);
            found.into_iter().map(|violation| violation.location).collect::<Vec<_>>()
        };
        let both = ["body_bytes", "body_read_seconds"];
        let (none, one) = (BodyLimit::Unlimited, BodyLimit::AtMost(1));
        assert_eq!(locations(Handler::Proxy, false, none, none), [""; 0]);
        assert_eq!(locations(Handler::Respond, true, one, one), [""; 0]);
        assert_eq!(locations(Handler::Proxy, true, none, none), both);
        assert_eq!(locations(Handler::Respond, false, none, none), both);
        let zero = BodyLimit::AtMost(0);
        assert_eq!(locations(Handler::Proxy, false, zero, zero), both);
        let large = BodyLimit::AtMost(1 << 31);
        assert_eq!(locations(Handler::Proxy, false, large, one), [""; 0]);
        assert_eq!(locations(Handler::Proxy, true, large, one), ["body_bytes"]);
    }
}
