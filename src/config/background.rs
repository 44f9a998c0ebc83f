//! Sections of the configuration file about work without a request: `[backup]` and
//! `[webhooks.NAME]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[backup]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSection {
    /// The time between two backups that the server writes, such as "24h". Empty means none.
    pub every: String,
    /// The number of these backups that are kept. Older ones are removed.
    #[schemars(range(min = 1, max = 10_000))]
    pub keep: i64,
    /// The folder of these backups, one for each server. It must exist. Empty means the store's
    /// path with .backups appended, which Keyward creates.
    pub dir: String,
}

impl Default for BackupSection {
    fn default() -> Self {
        Self { every: String::new(), keep: 7, dir: String::new() }
    }
}

/// `[webhooks.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WebhookSection {
    /// The URL: http:// or https://, a host, and optionally a port, a path and a query.
    pub url: String,
    /// The name of the file in scripts.secrets_dir that contains the signing secret: `whsec_`
    /// followed by base64, or any other text.
    pub secret: String,
    /// The file of the certificate authorities of the receiver, in PEM. Empty means the public
    /// authorities.
    pub ca: String,
    /// The time limit of one attempt, in seconds.
    #[schemars(range(min = 1, max = 120))]
    pub timeout_seconds: i64,
}

impl Default for WebhookSection {
    fn default() -> Self {
        Self { url: String::new(), secret: String::new(), ca: String::new(), timeout_seconds: 15 }
    }
}

/// `[audit]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditSection {
    /// The maximum number of entries. Beyond this limit, the oldest entries are removed. An entry
    /// takes about 500 bytes.
    #[schemars(range(min = 1000, max = 10_000_000))]
    pub entries: i64,
    /// The denied requests that get an entry: "none", "sampled" or "all".
    #[schemars(extend("enum" = ["none", "sampled", "all"]))]
    pub denials: String,
    /// With "sampled", the first of similar denials in each minute gets an entry, and after it one
    /// of every denial_sample denials.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub denial_sample: i64,
    /// The maximum number of entries of denied requests per day, at most a tenth of audit.entries.
    /// A quarter of them is available at once. Further denials are counted in one entry per hour.
    #[schemars(range(min = 4, max = 1_000_000))]
    pub denial_entries: i64,
}
