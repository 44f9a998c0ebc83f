//! The filters of `keyward key list`.

use clap::Args;

use super::{ListOptions, Query};

#[derive(Debug, Args)]
pub struct KeyFilter {
    /// Only keys in this state: active, expired or revoked
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only keys with this label; with a * at its end, labels that begin with the text
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Only keys that only this application accepts
    #[arg(long, value_name = "ID")]
    application: Option<String>,
    /// Only keys that were created before this time and not used since: a time, a date, or a span
    /// such as 90d for 90 days ago
    #[arg(long, value_name = "TIME")]
    unused_since: Option<String>,
    /// Only keys whose last use was before this time
    #[arg(long, value_name = "TIME")]
    last_used_before: Option<String>,
    /// Only keys that end before this time: a time, a date, or a span such as 30d for 30 days from
    /// now
    #[arg(long, value_name = "TIME")]
    expires_before: Option<String>,
    /// Only keys that were created before this time
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Only keys that were created at this time or later
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    #[command(flatten)]
    pub options: ListOptions,
}

impl KeyFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let query = Query::new([
            ("state", self.state.as_ref()),
            ("label", self.label.as_ref()),
            ("application", self.application.as_ref()),
            ("unused_since", self.unused_since.as_ref()),
            ("last_used_before", self.last_used_before.as_ref()),
            ("expires_before", self.expires_before.as_ref()),
            ("created_before", self.created_before.as_ref()),
            ("created_after", self.created_after.as_ref()),
        ]);
        query.target(path, &self.options)
    }
}
