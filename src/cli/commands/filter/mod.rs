//! The options with which a list is filtered, sorted and limited.

pub(super) mod audit;
pub(super) mod keys;
pub(super) mod policy;
pub(super) mod users;

use clap::Args;

use crate::cli::client::paths::with_query;

/// The number and the order of the records of a list.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// Show at most this many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Sort by a field, such as created; with a - before it, the greatest value comes first. A
    /// wrong field is answered with all fields
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    sort: Option<String>,
}

/// The query of a list.
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// The query with these parameters, of which those without a value are left out.
    pub fn new<const N: usize>(parameters: [(&'static str, Option<&String>); N]) -> Self {
        let given = parameters.into_iter().filter_map(|(name, text)| Some((name, text?.clone())));
        Self(given.collect())
    }

    /// Adds a parameter that is present or not.
    pub fn and(mut self, name: &'static str, value: Option<&'static str>) -> Self {
        self.0.extend(value.map(|value| (name, value.to_owned())));
        self
    }

    /// The path of the list with the query and the order.
    pub fn target(self, path: &str, options: &ListOptions) -> String {
        let mut pairs = self.0;
        pairs.extend(options.sort.clone().map(|field| ("sort", field)));
        if pairs.is_empty() {
            return path.to_owned();
        }
        let pairs: Vec<(&str, &str)> =
            pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        with_query(path, &pairs)
    }
}

/// The value of a parameter that two options choose.
fn either(yes: bool, no: bool) -> Option<&'static str> {
    if yes {
        return Some("true");
    }
    no.then_some("false")
}
