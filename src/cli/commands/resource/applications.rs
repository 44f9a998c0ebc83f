//! Options of the list of applications among which a request chooses by its credential.

use clap::Args;
use serde_json::{Map, Value, json};

/// The options that set or remove the list.
#[derive(Debug, Args)]
pub struct Applications {
    /// An application that requests without AUTH-METHOD can use, chosen by the credential that they
    /// carry; repeatable [default: the default application]
    #[arg(long = "application", value_name = "ID")]
    applications: Vec<String>,
    /// Remove the list of applications, so that requests without AUTH-METHOD use the default
    /// application
    #[arg(long, conflicts_with = "applications")]
    no_applications: bool,
}

impl Applications {
    /// Sets the list in a record, or in a merge patch.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if !self.applications.is_empty() {
            record.insert("applications".into(), json!(self.applications));
        }
        if self.no_applications {
            record.insert("applications".into(), Value::Null);
        }
    }
}
