//! Overrides from the environment: `KEYWARD_SECTION__KEY`, with two underscores between the section
//! and the key.
//!
//! A variable with two underscores that names no key is an error: otherwise a misspelled limit
//! would silently have no effect. Variables without two underscores are ignored, because
//! orchestrators set variables such as `KEYWARD_PORT` for a service that is named keyward.

use super::{
    Place, Problem,
    draft::{Draft, Entry, Unfit, moved_to},
};
use crate::model::suggest;

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "KEYWARD_CONFIG";
const PREFIX: &str = "KEYWARD_";
const SEPARATOR: &str = "__";

/// Returns the environment variables whose names begin with `KEYWARD_`. Bytes that are not UTF-8
/// become U+FFFD, so that a later check can reject the variable by name; [`std::env::vars`] would
/// panic.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
}

/// Returns the file that the variable [`CONFIG`] names. An empty value counts as unset.
pub(super) fn config_file(variables: &[(String, String)]) -> Option<&str> {
    let (_, path) = variables.iter().find(|(name, _)| name == CONFIG)?;
    (!path.is_empty()).then_some(path.as_str())
}

/// Writes the overrides into `draft`, and returns the sorted names of the applied variables.
pub(super) fn apply(draft: &mut Draft, variables: &[(String, String)]) -> Vec<String> {
    let mut applied = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| is_override(name)) {
        let place = Place::Variable(name.clone());
        let (key, result) = match draft.keys.iter_mut().find(|entry| variable(entry) == *name) {
            Some(entry) => (entry.name(), entry.take_text(value, &place)),
            None => (String::new(), Err(unknown(draft, name))),
        };
        match result {
            Ok(()) => applied.push(name.clone()),
            Err(Unfit { message, fix }) => {
                draft.found.push(Problem { place, key, message, fix });
            }
        }
    }
    applied.sort();
    applied
}

fn is_override(name: &str) -> bool {
    name.starts_with(PREFIX) && name.contains(SEPARATOR)
}

/// Returns the name of the variable that overrides a key.
fn variable(entry: &Entry) -> String {
    let section = entry.section.to_uppercase().replace('.', SEPARATOR);
    let key = entry.key.to_uppercase();
    format!("{PREFIX}{section}{SEPARATOR}{key}")
}

fn unknown(draft: &Draft, name: &str) -> Unfit {
    let lower = name.trim_start_matches(PREFIX).to_lowercase();
    let key = lower.split_once(SEPARATOR).and_then(|(section, key)| moved_to(section, key));
    if let Some(key) = key {
        let new = key.to_uppercase().replace('.', SEPARATOR);
        let fix = format!("Use {PREFIX}{new}.");
        return Unfit { message: "The key of this variable has moved.".into(), fix };
    }
    let names: Vec<String> = draft.keys.iter().map(variable).collect();
    let near = suggest(name, names.iter().map(String::as_str));
    let fix = near.map_or_else(String::new, |near| format!("Did you mean {near}?"));
    Unfit { message: "There is no key for this variable.".into(), fix }
}
