//! The filters of `keyward user list`.

use clap::Args;

use super::{ListOptions, Query, either};

#[derive(Debug, Args)]
pub struct UserFilter {
    /// Only the user with this name; with a * at its end, users whose names begin with the text
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only users with this mail address; a * at its end as for --name
    #[arg(long, value_name = "ADDRESS")]
    mail: Option<String>,
    /// Only users with this role
    #[arg(long, value_name = "ID")]
    role: Option<String>,
    /// Only active users
    #[arg(long, conflicts_with = "blocked")]
    active: bool,
    /// Only blocked users
    #[arg(long)]
    blocked: bool,
    /// Only users who were created before this time: a time, a date, or a span such as 90d for 90
    /// days ago
    #[arg(long, value_name = "TIME")]
    created_before: Option<String>,
    /// Only users who were created at this time or later
    #[arg(long, value_name = "TIME")]
    created_after: Option<String>,
    #[command(flatten)]
    pub options: ListOptions,
}

impl UserFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let query = Query::new([
            ("name", self.name.as_ref()),
            ("mail", self.mail.as_ref()),
            ("role", self.role.as_ref()),
            ("created_before", self.created_before.as_ref()),
            ("created_after", self.created_after.as_ref()),
        ]);
        query.and("active", either(self.active, self.blocked)).target(path, &self.options)
    }
}
