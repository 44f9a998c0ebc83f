//! The option that passes the client's credential on to the upstream.

use clap::Args;
use serde_json::{Map, Value};

/// The option of the handler proxy.
#[derive(Debug, Args)]
pub struct Credential {
    /// For the handler proxy: whether the upstream gets the client's credential and AUTH-METHOD
    /// [default: no]
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    keep_credential: Option<String>,
}

impl Credential {
    /// Sets the field in the settings of the proxy.
    pub fn put(&self, record: &mut Map<String, Value>) {
        let Some(word) = &self.keep_credential else { return };
        let settings = Map::from_iter([("keep_credential".into(), (word == "yes").into())]);
        super::add_to(record, "proxy", settings);
    }
}
