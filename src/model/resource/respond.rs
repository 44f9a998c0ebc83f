//! The fixed response of the `respond` handler.

use serde::{Deserialize, Serialize};

use super::{Format, Handler, Resource};
use crate::model::Violation;

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status code, 200 to 599.
    #[serde(default = "two_hundred")]
    pub status: u16,
    /// The media type of the body.
    #[serde(default = "json")]
    pub content_type: String,
    /// The body.
    #[serde(default)]
    pub body: String,
}

fn two_hundred() -> u16 {
    200
}

fn json() -> String {
    Format::Json.media_types()[0].into()
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: two_hundred(), content_type: json(), body: String::new() }
    }
}

impl Resource {
    pub(super) fn check_respond(&self, found: &mut Vec<Violation>) {
        let Some(respond) = &self.respond else { return };
        if self.handler != Handler::Respond {
            found.push(Violation::new(
                "respond",
                "Only the handler respond has a fixed answer.",
                "Leave respond out, or set the handler to respond.",
            ));
        }
        if !(200..=599).contains(&respond.status) {
            found.push(Violation::new(
                "respond.status",
                format!("{} cannot be the status of an answer.", respond.status),
                "Use 200 to 599.",
            ));
        }
        if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
            found.push(Violation::new(
                "respond.body",
                format!("An answer with status {} has no body.", respond.status),
                "Leave the body empty, or choose another status.",
            ));
        }
        let printable = respond.content_type.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !printable || !respond.content_type.contains('/') {
            found.push(Violation::new(
                "respond.content_type",
                format!("{:?} is not a media type.", respond.content_type),
                "Give one such as application/json.",
            ));
        }
    }
}
