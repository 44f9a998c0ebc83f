//! The section of the log.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// The log level (error, warn, info, debug, trace, off), or directives such as
    /// "info,keyward=debug".
    pub level: String,
    /// The format of a log line: "text" for people, "json" for programs.
    #[schemars(extend("enum" = ["text", "json"]))]
    pub format: String,
    /// Which lines about refused clients are logged: "sampled" or "all". "sampled" means that of
    /// the lines with one code from one network, the first in each minute and then every hundredth
    /// is logged, and at most 600 lines a minute.
    #[schemars(extend("enum" = ["sampled", "all"]))]
    pub clients: String,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: "info".into(), format: "text".into(), clients: "sampled".into() }
    }
}
