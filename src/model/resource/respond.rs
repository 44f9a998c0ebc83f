//! The fixed response of the `respond` handler.

use serde::{Deserialize, Serialize};

use super::{Format, Handler, Resource};
use crate::model::Violation;

/// A fixed response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status code, 200 to 599.
    #[serde(default = "default_status")]
    pub status: u16,
    /// The media type of the body.
    #[serde(default = "default_content_type")]
    pub content_type: String,
    /// The body.
    #[serde(default)]
    pub body: String,
}

fn default_status() -> u16 {
    200
}

fn default_content_type() -> String {
    Format::Json.media_types()[0].into()
}

impl Default for Respond {
    fn default() -> Self {
        Self { status: default_status(), content_type: default_content_type(), body: String::new() }
    }
}

impl Resource {
    pub(super) fn check_respond(&self, found: &mut Vec<Violation>) {
        let Some(respond) = &self.respond else { return };
        if self.handler != Handler::Respond {
            found.push(Violation::new(
                "respond",
                "Only the handler respond has a fixed response.",
                "Leave respond out, or set the handler to respond.",
            ));
        }
        if !(200..=599).contains(&respond.status) {
            found.push(Violation::new(
                "respond.status",
                format!("{} cannot be the status of a response.", respond.status),
                "Use 200 to 599.",
            ));
        }
        if matches!(respond.status, 204 | 205 | 304) && !respond.body.is_empty() {
            found.push(Violation::new(
                "respond.body",
                format!("A response with status {} has no body.", respond.status),
                "Leave the body empty, or choose another status.",
            ));
        }
        let is_printable = respond.content_type.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !is_printable || !respond.content_type.contains('/') {
            found.push(Violation::new(
                "respond.content_type",
                format!("{:?} is not a media type.", respond.content_type),
                "Give a media type such as application/json.",
            ));
        }
    }
}
