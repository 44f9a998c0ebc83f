//! A key that `key scan` has found in a file.

use crate::model::{Form, Found};

/// A key in a file.
pub struct Finding {
    /// The path of the file, without the secrets of keys in it. `-` is standard input.
    pub file: String,
    /// Whether the key is in the content of the file, and not in its name.
    pub is_content: bool,
    /// The key and its place.
    pub found: Found,
}

impl Finding {
    /// The name of the form for programs.
    pub fn form(&self) -> &'static str {
        match (self.is_content, self.found.form) {
            (false, _) => "name",
            (true, Form::Plain) => "plain",
            (true, Form::Escaped) => "escaped",
            (true, Form::Encoded) => "base64",
        }
    }
}
