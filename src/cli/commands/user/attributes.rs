//! The options of `keyward user` for attributes.

use clap::Args;
use serde_json::{Map, Value, json};

/// The option that sets attributes.
#[derive(Debug, Args)]
pub struct SetAttributes {
    /// Set an attribute, and keep the others; repeatable. The value is text; a value in double
    /// quotation marks is a JSON string, such as team="\"a\\tb\""
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
}

/// The option that removes attributes.
#[derive(Debug, Args)]
pub struct RemoveAttributes {
    /// Remove an attribute, and keep the others; repeatable
    #[arg(long = "no-attribute", value_name = "NAME")]
    no_attributes: Vec<String>,
}

impl SetAttributes {
    /// Sets the attributes in a record.
    pub fn put(&self, user: &mut Map<String, Value>) {
        if self.attributes.is_empty() {
            return;
        }
        let attributes = user.entry("attributes").or_insert_with(|| json!({}));
        let Some(attributes) = attributes.as_object_mut() else { return };
        attributes
            .extend(self.attributes.iter().map(|(n, value)| (n.clone(), value.clone().into())));
    }
}

impl RemoveAttributes {
    /// Removes the attributes from a record. `notes` gets a sentence for each attribute that the
    /// user does not have.
    pub fn put(&self, user: &mut Map<String, Value>, notes: &mut Vec<String>) {
        let mut attributes = user.get_mut("attributes").and_then(Value::as_object_mut);
        for name in &self.no_attributes {
            if attributes.as_mut().and_then(|found| found.shift_remove(name)).is_none() {
                notes.push(format!("The user has no attribute {name}: nothing was removed."));
            }
        }
    }
}

/// Parses `NAME=VALUE`. A value that is a JSON string is decoded, so that it can have characters
/// that are difficult to write in a shell. Every other value is the text itself, because attributes
/// are texts.
fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let decoded = serde_json::from_str::<String>(value);
            Ok((name.to_owned(), decoded.unwrap_or_else(|_| value.to_owned())))
        }
        _ => Err("use NAME=VALUE, such as team=blue".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_text_and_a_json_string_is_decoded() {
        for (argument, value) in [
            ("a=blue", "blue"),
            ("a=", ""),
            ("a=5", "5"),
            ("a=true", "true"),
            ("a=x=y", "x=y"),
            (r#"a="x\ty""#, "x\ty"),
            (r#"a="5""#, "5"),
            (r#"a=["x"]"#, r#"["x"]"#),
            (r#"a="open"#, r#""open"#),
        ] {
            assert_eq!(attribute(argument), Ok(("a".to_owned(), value.to_owned())), "{argument}");
        }
        for bad in ["", "team", "=x"] {
            assert!(attribute(bad).is_err(), "{bad}");
        }
    }
}
