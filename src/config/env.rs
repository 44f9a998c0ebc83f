//! Overrides from the environment: `KEYWARD_SECTION__KEY`, with two underscores between the section
//! and the key.
//!
//! A variable that looks like a key and names none is an error: otherwise a misspelled limit would
//! silently have no effect. Variables that an orchestrator sets for a service named keyward, such
//! as `KEYWARD_PORT`, and those of Keyward's own tests are ignored. Any other variable is reported.

use super::{
    Place, Problem,
    draft::{Draft, Entry, Unfit, moved_to},
};
use crate::model::suggest;

/// The variable that names the configuration file.
pub(super) const CONFIG: &str = "KEYWARD_CONFIG";
const PREFIX: &str = "KEYWARD_";
const SEPARATOR: &str = "__";
/// The beginnings of the names of variables that only Keyward's tests and tools read.
const TEST_PREFIXES: [&str; 3] = ["KEYWARD_TEST_", "KEYWARD_FAULT_", "KEYWARD_WRITE_DOCS"];

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

/// Returns the sorted names of the variables that name no key, and adds a problem for each variable
/// that looks like a misspelled key.
pub(super) fn unknown_names(draft: &mut Draft, variables: &[(String, String)]) -> Vec<String> {
    let mut unknown = Vec::new();
    for (name, _) in variables.iter().filter(|(name, _)| is_other(name)) {
        match misspelled(draft, name) {
            Some(fix) => {
                let message = "This variable has no effect.".into();
                let place = Place::Variable(name.clone());
                draft.found.push(Problem { place, key: String::new(), message, fix });
            }
            None => unknown.push(name.clone()),
        }
    }
    unknown.sort();
    unknown
}

fn is_override(name: &str) -> bool {
    name.starts_with(PREFIX) && name.contains(SEPARATOR)
}

/// Whether a variable is neither an override nor one that Keyward has to ignore.
fn is_other(name: &str) -> bool {
    !is_override(name)
        && name.starts_with(PREFIX)
        && name != CONFIG
        && !TEST_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !is_of_orchestrator(name)
}

/// Whether Kubernetes or Docker sets such a variable for a service named keyward or keyward-NAME:
/// `…_SERVICE_HOST`, `…_SERVICE_PORT`, `…_SERVICE_PORT_NAME`, `…_PORT`, `…_PORT_8080_TCP`,
/// `…_PORT_8080_TCP_ADDR`.
fn is_of_orchestrator(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let of_port = name.split("_PORT_").skip(1).any(|rest| {
        let mut parts = rest.split('_');
        parts.next().is_some_and(is_number)
            && parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol))
    });
    of_port
        || name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT_")
}

/// Returns the fix for a variable that looks like a misspelled key: the nearest variables, or the
/// form of a variable. `None` means that the variable looks like no key.
fn misspelled(draft: &Draft, name: &str) -> Option<String> {
    let meant = |names: &[String]| format!("Did you mean {}?", names.join(" or "));
    let names: Vec<String> = draft.keys.iter().map(variable).collect();
    let one_underscore = |name: &String| name.replace(SEPARATOR, "_");
    if let Some(exact) = names.iter().find(|known| one_underscore(known) == name) {
        return Some(meant(std::slice::from_ref(exact)));
    }
    let word = name.trim_start_matches(PREFIX).to_lowercase();
    let same_key = draft.keys.iter().filter(|entry| entry.key == word).map(variable);
    let same_key: Vec<String> = same_key.collect();
    if !same_key.is_empty() {
        return Some(meant(&same_key));
    }
    // The common prefix would make all names similar.
    let endings =
        names.iter().map(String::as_str).chain([CONFIG]).map(|name| &name[PREFIX.len()..]);
    if let Some(near) = suggest(&word, endings) {
        return Some(meant(&[format!("{PREFIX}{near}")]));
    }
    let is_of_section = |entry: &Entry| word.starts_with(&format!("{}_", entry.section));
    draft.keys.iter().any(is_of_section).then(|| {
        format!("Write {PREFIX}SECTION{SEPARATOR}KEY, with two underscores before the key.")
    })
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
