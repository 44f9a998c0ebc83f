//! Options of the limits of a resource's request bodies.

use clap::Args;
use serde_json::{Map, Value};

/// The options that set the limits of request bodies.
#[derive(Debug, Clone, Args)]
pub struct BodyOptions {
    /// The maximum size of a request's body in bytes. The word none means no limit and is only for
    /// the handler proxy; default means limits.body_bytes of the server [default: default]
    #[arg(long, value_name = "BYTES", value_parser = limit)]
    body_bytes: Option<Value>,
    /// The time limit for receiving a request's body, in seconds. The word none means no limit and
    /// is only for the handler proxy; default means limits.body_read_seconds of the server
    /// [default: default]
    #[arg(long, value_name = "SECONDS", value_parser = limit)]
    body_read_seconds: Option<Value>,
}

impl BodyOptions {
    /// Sets the limits that are given in a record.
    pub fn put(&self, record: &mut Map<String, Value>) {
        for (name, limit) in
            [("body_bytes", &self.body_bytes), ("body_read_seconds", &self.body_read_seconds)]
        {
            record.extend(limit.clone().map(|limit| (name.into(), limit)));
        }
    }
}

/// Parses a limit. In a record, null means the limit of the server.
fn limit(text: &str) -> Result<Value, String> {
    match text {
        "default" => Ok(Value::Null),
        "none" => Ok("none".into()),
        _ => match text.parse::<u64>() {
            Ok(number) => Ok(number.into()),
            Err(_) => Err("use a whole number, none or default".into()),
        },
    }
}
