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
