//! Prints the effective configuration as TOML, and the JSON Schema of the file.

use super::{File, Loaded};

/// The shipped `config.toml`: every key with its default and description.
#[cfg(test)]
pub(super) const SHIPPED: &str = include_str!("../../config.toml");

/// Returns the JSON Schema (2020-12) of `config.toml`, for editors.
pub fn schema() -> String {
    let schema = schemars::schema_for!(File);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    text.push('\n');
    text
}

/// Returns the effective configuration as TOML, with comments that name the file and the variables
/// that it was read from. The output is a valid configuration file.
pub fn print(loaded: &Loaded) -> String {
    let mut text = match &loaded.source {
        // The path is escaped, because a line break in the path would end the comment.
        Some(path) => format!(
            "# Read from {:?}. Relative paths count from {:?}.\n",
            path.display().to_string(),
            loaded.settings.origin.folder.display().to_string()
        ),
        None => "# There is no configuration file: these are the built-in defaults.\n".into(),
    };
    if !loaded.overrides.is_empty() {
        let names = loaded.overrides.join(", ");
        text.push_str(&format!("# Overridden by the environment: {names}.\n"));
    }
    text.push('\n');
    text.push_str(&toml::to_string(&loaded.file).expect("a file is TOML"));
    text
}
