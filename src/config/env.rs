//! Overrides from the environment: `KEYWARD_SECTION__KEY`, two underscores between the section and
//! the key.
//!
//! A variable with two underscores that names no key is an error, for a limit that is spelled wrong
//! is no limit. One without them is not ours to judge: orchestrators make `KEYWARD_PORT` and the
//! like for a service of our name.

use super::{
    Place, Problem,
    draft::{Draft, Entry, Unfit},
};
use crate::model::suggest;

/// Names the configuration file.
pub(super) const CONFIG: &str = "KEYWARD_CONFIG";
const PREFIX: &str = "KEYWARD_";
const BETWEEN: &str = "__";

/// The variables of this process that may concern Keyward. One that is not UTF-8 is kept with
/// U+FFFD in it, and refused later by name; [`std::env::vars`] would panic.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
}

/// The file that [`CONFIG`] names. An empty one names none.
pub(super) fn config_file(variables: &[(String, String)]) -> Option<&str> {
    let (_, path) = variables.iter().find(|(name, _)| name == CONFIG)?;
    (!path.is_empty()).then_some(path.as_str())
}

/// Writes the overrides into `draft`, and returns the names of those that were applied, in order.
pub(super) fn apply(draft: &mut Draft, variables: &[(String, String)]) -> Vec<String> {
    let mut applied = Vec::new();
    for (name, value) in variables.iter().filter(|(name, _)| is_override(name)) {
        let place = Place::Variable(name.clone());
        let (key, taken) = match draft.keys.iter_mut().find(|entry| variable(entry) == *name) {
            Some(entry) => (entry.name(), entry.take_text(value, &place)),
            None => (String::new(), Err(unknown(draft, name))),
        };
        match taken {
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
    name.starts_with(PREFIX) && name.contains(BETWEEN)
}

/// The variable that overrides a key.
fn variable(entry: &Entry) -> String {
    let section = entry.section.to_uppercase().replace('.', BETWEEN);
    let key = entry.key.to_uppercase();
    format!("{PREFIX}{section}{BETWEEN}{key}")
}

fn unknown(draft: &Draft, name: &str) -> Unfit {
    let names: Vec<String> = draft.keys.iter().map(variable).collect();
    let near = suggest(name, names.iter().map(String::as_str));
    let fix = near.map_or_else(String::new, |near| format!("Did you mean {near}?"));
    Unfit { message: "No key has this variable.".into(), fix }
}
