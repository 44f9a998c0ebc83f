//! Fields that a document clears in existing records, because it leaves them out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value};

use super::{Difference, record::StateRecord};
use crate::model::Violation;

/// Whether a document may clear fields that it leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeftOut {
    /// The document is refused if a field that it leaves out has a value that would be lost.
    #[default]
    Refuse,
    /// A field that the document leaves out gets its default.
    Clear,
}

/// The names of the fields that each record of a document has, as dotted paths. Without names, all
/// fields count as written: a program that makes a document chooses each field.
#[derive(Debug, Clone, Default)]
pub struct DocumentFields(BTreeMap<&'static str, Vec<Arc<BTreeSet<String>>>>);

impl DocumentFields {
    /// Adds the next record of a list.
    pub fn push(&mut self, list: &'static str, record: &Value) {
        let mut names = BTreeSet::new();
        add_names("", record, &mut names);
        let all = self.0.entry(list).or_default();
        // The records of a long list mostly have the same fields.
        let names = match all.last() {
            Some(last) if **last == names => last.clone(),
            _ => Arc::new(names),
        };
        all.push(names);
    }

    fn of(&self, list: &str, index: usize) -> Option<&BTreeSet<String>> {
        self.0.get(list)?.get(index).map(|names| &**names)
    }

    /// The fields that a change clears although the document does not name them. `before` and
    /// `after` are the fields that differ, and `at` is the index of the record in its list.
    pub(super) fn cleared<T: StateRecord>(
        &self,
        at: Option<usize>,
        before: &Map<String, Value>,
        after: &Map<String, Value>,
    ) -> Vec<String> {
        let mut cleared = Vec::new();
        if let Some(names) = at.and_then(|index| self.of(T::LIST, index)) {
            add_cleared("", before, after, names, &mut cleared);
        }
        cleared
    }
}

fn add_names(prefix: &str, value: &Value, names: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = format!("{prefix}{name}");
        add_names(&format!("{path}."), value, names);
        names.insert(path);
    }
}

fn add_cleared(
    prefix: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    names: &BTreeSet<String>,
    cleared: &mut Vec<String>,
) {
    for (name, old) in before.iter().filter(|(name, old)| after.get(*name) != Some(old)) {
        let path = format!("{prefix}{name}");
        if !names.contains(&path) {
            cleared.push(path);
            continue;
        }
        let new = after.get(name).and_then(Value::as_object);
        if let (Value::Object(old), Some(new)) = (old, new) {
            add_cleared(&format!("{path}."), old, new, names, cleared);
        }
    }
}

/// The violations of a change that clears fields.
pub(super) fn violations<T: StateRecord>(at: usize, change: &Difference) -> Vec<Violation> {
    let violation = |field: &String| {
        let message = format!(
            "The file leaves {field} out, and the {} {} would lose its value.",
            change.kind, change.id
        );
        let fix = "Write the field, or use patch=true to keep what the file leaves out, or \
                   clear=true to clear it (on the command line: --patch or --clear).";
        Violation::new(format!("{}.{at}.{field}", T::LIST), message, fix)
    };
    change.cleared.iter().map(violation).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cleared(document: Value, before: Value, after: Value) -> Vec<String> {
        let (Value::Object(before), Value::Object(after)) = (before, after) else { panic!() };
        let mut fields = DocumentFields::default();
        fields.push("users", &json!({ "other": 1 }));
        fields.push("users", &document);
        let mut cleared = Vec::new();
        add_cleared("", &before, &after, fields.of("users", 1).unwrap(), &mut cleared);
        // The order of the fields depends on the features of serde_json.
        cleared.sort();
        cleared
    }

    #[test]
    fn only_fields_that_the_document_leaves_out_are_cleared() {
        let before = json!({ "mail": "a@b", "roles": ["x"], "active": false });
        let after = json!({ "roles": [], "active": true });
        let named = json!({ "name": "a", "roles": [] });
        assert_eq!(cleared(named, before.clone(), after.clone()), ["active", "mail"]);
        let named = json!({ "mail": "", "roles": [], "active": true });
        assert!(cleared(named, before, after).is_empty());
    }

    #[test]
    fn fields_within_a_table_are_compared_too() {
        let document = json!({ "permissions": { "DELETE": ["void"] }, "respond": { "body": "x" } });
        let before = json!({
            "permissions": { "GET": ["see"], "DELETE": ["cancel"] },
            "respond": { "status": 207, "body": "y" },
        });
        let after = json!({
            "permissions": { "DELETE": ["void"] },
            "respond": { "status": 200, "body": "x" },
        });
        assert_eq!(cleared(document, before, after), ["permissions.GET", "respond.status"]);
    }
}
