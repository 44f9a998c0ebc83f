//! The exceptions from the path rules that one resource can make.

use serde::{Deserialize, Serialize};

use super::{Resource, is_default};
use crate::model::Violation;

/// The exceptions of a resource from the rule that an ambiguous path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathOptions {
    /// The treatment of an encoded slash (`%2F`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub encoded_slashes: Ambiguous,
    /// The treatment of a semicolon, encoded or not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub semicolons: Ambiguous,
}

/// The treatment of characters that programs read in different ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ambiguous {
    /// A path with such a character is refused.
    #[default]
    Refuse,
    /// The character is a part of its segment, and stays as it is.
    Keep,
}

impl Ambiguous {
    /// The treatment with this name.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        match name {
            "refuse" => Ok(Self::Refuse),
            "keep" => Ok(Self::Keep),
            other => {
                let message = format!("{other:?} is not a treatment of a character.");
                Err(Violation::new(location, message, "Use refuse or keep."))
            }
        }
    }
}

impl PathOptions {
    /// The exceptions that both make.
    #[must_use]
    pub fn narrowed_to(self, other: Self) -> Self {
        Self {
            encoded_slashes: self.encoded_slashes.min(other.encoded_slashes),
            semicolons: self.semicolons.min(other.semicolons),
        }
    }
}

impl Resource {
    pub(super) fn check_path_options(&self, found: &mut Vec<Violation>) {
        let PathOptions { encoded_slashes, semicolons } = self.path_options;
        for (name, treatment) in [("encoded_slashes", encoded_slashes), ("semicolons", semicolons)]
        {
            if treatment == Ambiguous::Keep && self.handler.fixed_paths().is_some() {
                found.push(Violation::new(
                    name,
                    format!("The handler {} has fixed paths.", self.handler.name()),
                    format!("Leave {name} out."),
                ));
            }
        }
    }
}
