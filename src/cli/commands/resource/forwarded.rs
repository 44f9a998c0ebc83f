//! The option for the header fields in which an upstream is told about the client.

use clap::Args;
use serde_json::{Map, Value, json};

use super::add_to;

#[derive(Debug, Args)]
pub struct ForwardedOption {
    /// For the handler proxy: a header field that tells the upstream about the client
    /// (x-forwarded-for, -proto, -host, -port, -prefix, x-real-ip, forwarded), or none; repeatable
    /// [default: all]
    #[arg(long = "forwarded", value_name = "FIELD")]
    fields: Vec<String>,
}

impl ForwardedOption {
    /// Adds the list to the settings of the handler, if the option is given.
    pub fn put(&self, record: &mut Map<String, Value>) {
        let list = match self.fields.as_slice() {
            [] => return,
            [none] if none == "none" => json!([]),
            fields => json!(fields),
        };
        add_to(record, "proxy", Map::from_iter([("forwarded".into(), list)]));
    }
}
