//! The options of resources that concern paths.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::cli::client::paths::with_query;

/// The treatment of ambiguous characters in the path.
#[derive(Debug, Args)]
pub struct PathFields {
    /// An encoded slash (%2F) in the path: refuse the request, or keep it as a part of its segment
    #[arg(long, value_name = "TREATMENT")]
    encoded_slashes: Option<Treatment>,
    /// A semicolon in the path: refuse the request, or keep it as a part of its segment
    #[arg(long, value_name = "TREATMENT")]
    semicolons: Option<Treatment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Treatment {
    Refuse,
    Keep,
}

/// The consent to a change that opens guarded paths.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OpensGuarded {
    /// Allow a change that opens a path which another resource guards
    #[arg(long)]
    opens_guarded: bool,
}

impl PathFields {
    pub fn put(&self, record: &mut Map<String, Value>) {
        let fields = [("encoded_slashes", self.encoded_slashes), ("semicolons", self.semicolons)];
        for (name, treatment) in fields {
            match treatment {
                Some(Treatment::Keep) => drop(record.insert(name.into(), "keep".into())),
                Some(Treatment::Refuse) => drop(record.shift_remove(name)),
                None => {}
            }
        }
    }
}

impl OpensGuarded {
    /// The target of a request for the change.
    pub fn target(self, path: &str) -> String {
        if self.opens_guarded {
            with_query(path, &[("opens_guarded", "true")])
        } else {
            path.to_owned()
        }
    }
}
