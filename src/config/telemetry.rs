//! The sections about what the operator sees of requests: `[metrics]` and `[access_log]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[metrics]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSection {
    /// Whether requests are counted, and /metrics on the admin listener shows the counts: "on" or
    /// "off".
    #[schemars(extend("enum" = ["on", "off"]))]
    pub counts: String,
    /// The addresses and networks that may read /metrics, separated by commas. A program that
    /// connects to a Unix socket counts as 127.0.0.1.
    pub networks: String,
    /// The file of a token that a client has to send as "Authorization: Bearer TOKEN". The file
    /// must not be readable by others. Empty means no token.
    pub token_file: String,
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self { counts: "on".into(), networks: "127.0.0.0/8, ::1".into(), token_file: String::new() }
    }
}

/// `[access_log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLogSection {
    /// Where the lines go: "stdout", "stderr", or the path of a file, which is opened again after
    /// SIGHUP. Empty means no access log.
    pub output: String,
    /// The format of a line: "json", "logfmt", or "combined" as Apache and nginx write it.
    #[schemars(extend("enum" = ["json", "logfmt", "combined"]))]
    pub format: String,
    /// Which requests are logged: "all" or "denied".
    #[schemars(extend("enum" = ["all", "denied"]))]
    pub requests: String,
    /// Of the allowed requests, one in this many is logged. Denied requests are always logged.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample: i64,
    /// The ids of the resources whose requests are logged, separated by commas. Empty means all
    /// requests, also those without a resource.
    pub resources: String,
}

impl Default for AccessLogSection {
    fn default() -> Self {
        Self {
            output: String::new(),
            format: "json".into(),
            requests: "all".into(),
            sample: 1,
            resources: String::new(),
        }
    }
}
