//! The options of `keyward resource` for pages of other origins.

use clap::Args;
use serde_json::{Map, Value, json};

use super::add_to;

#[derive(Debug, Args)]
pub struct CorsOptions {
    /// An origin whose pages may use the resource, such as https://app.example.com,
    /// https://*.example.com or *; repeatable
    #[arg(long = "cors-origin", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// A method that pages may use; repeatable [default: the resource's methods]
    #[arg(long = "cors-method", value_name = "METHOD")]
    cors_methods: Vec<String>,
    /// A header field that pages may set, or *; repeatable [default: the fields that carry
    /// credentials, and Content-Type]
    #[arg(long = "cors-header", value_name = "NAME")]
    cors_headers: Vec<String>,
    /// A header field of responses that pages may read, or *; repeatable
    #[arg(long = "cors-expose", value_name = "NAME")]
    cors_expose: Vec<String>,
    /// Let browsers send cookies, client certificates and their own logins [default: false]
    #[arg(long = "cors-credentials", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cors_credentials: Option<bool>,
    /// The time for which browsers keep the response to a preflight, in seconds [default: 600]
    #[arg(long = "cors-max-age", value_name = "SECONDS")]
    cors_max_age: Option<u32>,
    /// The program that responds to preflights: answer (Keyward) or pass (the application, which
    /// gets them without authentication) [default: answer]
    #[arg(long = "cors-preflight", value_name = "MODE")]
    cors_preflight: Option<String>,
    /// Let pages of public networks use the resource in a private network [default: false]
    #[arg(long = "cors-private-network", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cors_private_network: Option<bool>,
    /// Remove all CORS settings
    #[arg(long, conflicts_with_all = ["cors_origins", "cors_methods", "cors_headers", "cors_expose", "cors_credentials", "cors_max_age", "cors_preflight", "cors_private_network"])]
    no_cors: bool,
}

impl CorsOptions {
    /// Sets the given settings in a record. A list replaces the record's list.
    pub fn put(&self, record: &mut Map<String, Value>) {
        if self.no_cors {
            record.insert("cors".into(), Value::Null);
        }
        let mut cors = Map::new();
        for (name, words) in [
            ("origins", &self.cors_origins),
            ("methods", &self.cors_methods),
            ("headers", &self.cors_headers),
            ("expose", &self.cors_expose),
        ] {
            if !words.is_empty() {
                cors.insert(name.into(), json!(words));
            }
        }
        for (name, flag) in
            [("credentials", self.cors_credentials), ("private_network", self.cors_private_network)]
        {
            cors.extend(flag.map(|flag| (name.into(), flag.into())));
        }
        cors.extend(self.cors_max_age.map(|seconds| ("max_age".into(), seconds.into())));
        cors.extend(self.cors_preflight.clone().map(|mode| ("preflight".into(), mode.into())));
        add_to(record, "cors", cors);
    }
}
