//! The filters of `keyward role list`, `app list` and `resource list`.

use clap::Args;

use super::{ListOptions, Query, either};

#[derive(Debug, Args)]
pub struct RoleFilter {
    /// Only roles with this id or label; with a * at its end, those that begin with the text
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only roles that grant this permission
    #[arg(long, value_name = "PERMISSION")]
    permission: Option<String>,
    #[command(flatten)]
    pub options: ListOptions,
}

#[derive(Debug, Args)]
pub struct AppFilter {
    /// Only applications with this id or name; with a * at its end, those that begin with the text
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only applications with this authentication type
    #[arg(long = "type", value_name = "TYPE")]
    auth_type: Option<String>,
    /// Only enabled applications
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
    /// Only disabled applications
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    pub options: ListOptions,
}

#[derive(Debug, Args)]
pub struct ResourceFilter {
    /// Only resources with this id; with a * at its end, those that begin with the text
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only resources with this path, as in the record; a * at its end as for --name
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only resources of this host; a * at its end as for --name
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Only resources with this handler; a * at its end as for --name
    #[arg(long, value_name = "HANDLER")]
    handler: Option<String>,
    /// Only resources that accept this application, or anonymous requests (anonymous)
    #[arg(long, value_name = "ID")]
    application: Option<String>,
    /// Only resources of which a method requires this permission
    #[arg(long, value_name = "PERMISSION")]
    permission: Option<String>,
    /// Only enabled resources
    #[arg(long, conflicts_with = "disabled")]
    enabled: bool,
    /// Only disabled resources
    #[arg(long)]
    disabled: bool,
    #[command(flatten)]
    pub options: ListOptions,
}

impl RoleFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let parameters = [("name", self.name.as_ref()), ("permission", self.permission.as_ref())];
        Query::new(parameters).target(path, &self.options)
    }
}

impl AppFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let query = Query::new([("name", self.name.as_ref()), ("type", self.auth_type.as_ref())]);
        query.and("enabled", either(self.enabled, self.disabled)).target(path, &self.options)
    }
}

impl ResourceFilter {
    /// The path of the list with the filters.
    pub fn target(&self, path: &str) -> String {
        let query = Query::new([
            ("name", self.name.as_ref()),
            ("path", self.path.as_ref()),
            ("host", self.host.as_ref()),
            ("handler", self.handler.as_ref()),
            ("application", self.application.as_ref()),
            ("permission", self.permission.as_ref()),
        ]);
        query.and("enabled", either(self.enabled, self.disabled)).target(path, &self.options)
    }
}
