//! The filters of `keyward audit list`.

use clap::Args;

use crate::cli::client::paths::with_query;

#[derive(Debug, Args)]
pub struct AuditFilter {
    /// Show at most this many entries
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Only entries by this user, about the user, or about the user's keys: the name, or # and the
    /// number; also of a deleted user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only entries by this key or about it: its id
    #[arg(long = "key", value_name = "ID")]
    key_id: Option<String>,
    /// Only this action, such as key.revoke; with a * at its end, actions that begin with the text
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only entries about this object, such as user/7 or role/editor; a * at its end as for
    /// --action
    #[arg(long, value_name = "OBJECT")]
    object: Option<String>,
    /// Only entries of this time or later: a time, a date, or a span such as 24h for 24 hours ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only entries before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show the oldest entries first
    #[arg(long)]
    oldest_first: bool,
}

impl AuditFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let parameters = [
            ("user", &self.user),
            ("key", &self.key_id),
            ("action", &self.action),
            ("object", &self.object),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let mut pairs: Vec<(&str, &str)> = parameters
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.as_deref()?)))
            .collect();
        if self.oldest_first {
            pairs.push(("order", "oldest"));
        }
        if pairs.is_empty() { path.to_owned() } else { with_query(path, &pairs) }
    }
}
