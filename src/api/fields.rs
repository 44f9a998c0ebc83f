//! Records as clients send them: JSON objects, read field by field, so that everything that is wrong is told at once with its place.

use ::http::{Method, StatusCode, header::CONTENT_TYPE, request::Parts};
use serde_json::{Map, Value};

use super::response;
use crate::{
    model::{Credits, RateLimit, Violation, suggest},
    pipeline::{Denial, Phase},
};

/// What a field must look like to be meant when its name is misspelt.

/// An object that is being read. What was read is taken out; what is left at the end has no business there.
pub(super) struct FieldReader {
    fields: Map<String, Value>,
    at: String,
    known: Vec<&'static str>,
    violations: Vec<Violation>,
}

/// A body's media type: JSON, or for a change a merge patch (RFC 7396).
pub(super) fn check_type(request: &Parts) -> Result<(), Denial> {
    let given = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_patch = request.method == Method::PATCH;
    let is_known = essence.eq_ignore_ascii_case("application/json")
        || is_patch && essence.eq_ignore_ascii_case("application/merge-patch+json");
    if is_known {
        return Ok(());
    }
    let said = match is_patch {
        true => "Send application/json or application/merge-patch+json.",
        false => "Send application/json.",
    };
    let code = "UNSUPPORTED_MEDIA_TYPE";
    Err(Denial::message(Phase::Handler, StatusCode::UNSUPPORTED_MEDIA_TYPE, code, said))
}

/// Reads JSON. What the message tells of a fault is its place, never what stands there.
pub(super) fn parse(body: &[u8]) -> Result<Value, Denial> {
    serde_json::from_slice(body).map_err(|problem| {
        let (line, column) = (problem.line(), problem.column());
        let said = format!("The body is not JSON: line {line}, column {column}.");
        Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_JSON", said)
    })
}

/// Applies a merge patch (RFC 7396, section 2).
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), change);
        }
    }
}

impl FieldReader {
    /// Begins to read `value`, which stands at `at` in the record.
    pub fn new(value: Value) -> Self {
        Self::inside(value, String::new())
    }

    fn inside(value: Value, at: String) -> Self {
        let mut form = Self { fields: Map::new(), at, known: Vec::new(), violations: Vec::new() };
        match value {
            Value::Object(fields) => form.fields = fields,
            _ => form.violations.push(Violation::new(
                form.at.trim_end_matches('.'),
                "This is not an object.",
                "Send a JSON object with the record's fields.",
            )),
        }
        form
    }

    /// Takes a field out, whatever it is; null is not there.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Text.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => self.unlike(name, "text", "Send a string."),
        }
    }

    /// Text that must be there.
    pub fn needed_text(&mut self, name: &'static str) -> String {
        let count = self.violations.len();
        let text = self.text(name);
        if text.is_none() && self.violations.len() == count {
            self.reject(name, "This field is required.", "Send a string.");
        }
        text.unwrap_or_default()
    }

    /// True or false.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => self.unlike(name, "true or false", "Send true or false, without quotation marks."),
        }
    }

    /// A whole number.
    pub fn number<T: TryFrom<i64>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name)?;
        match value.as_i64().and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.unlike(name, "a number that can stand here", "Send a whole number."),
        }
    }

    /// How fast something may be used.
    pub fn rate_limit(&mut self) -> Option<RateLimit> {
        let value = self.take("rate_limit")?;
        self.rule(RateLimit::read("rate_limit", &value))
    }

    /// How often something may be used in a day, a week or a month.
    pub fn credits(&mut self) -> Option<Credits> {
        let value = self.take("credits")?;
        self.rule(Credits::read("credits", &value))
    }

    /// A list of words.
    pub fn words(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let Value::Array(items) = value else {
            return self.unlike(name, "a list", "Send a list of strings.");
        };
        let mut words = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Value::String(word) => words.push(word),
                _ => self.reject(&format!("{name}.{at}"), "This is not text.", "Send a string."),
            }
        }
        Some(words)
    }

    /// An object whose fields people name: each with its value.
    pub fn entries(&mut self, name: &'static str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(entries) => Some(entries),
            _ => self.unlike(name, "an object", "Send a JSON object."),
        }
    }

    /// Reads one entry of [`FieldReader::entries`] as a form of its own.
    pub fn entry<T>(&mut self, name: &str, value: Value, read: impl FnOnce(&mut Self) -> T) -> T {
        let mut form = Self::inside(value, format!("{}{name}.", self.at));
        let read = read(&mut form);
        self.violations.extend(form.end());
        read
    }

    /// An object with fields of its own.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let value = self.take(name)?;
        Some(self.entry(name, value, read))
    }

    /// Passes on what a rule of the model says.
    pub fn rule<T>(&mut self, read: Result<T, Violation>) -> Option<T> {
        let told = |violation: Violation| {
            let location = format!("{}{}", self.at, violation.location);
            self.violations.push(Violation { location, ..violation });
        };
        read.map_err(told).ok()
    }

    /// Names a fault.
    pub fn reject(&mut self, name: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.violations.push(Violation::new(format!("{}{name}", self.at), message, fix));
    }

    fn unlike<T>(&mut self, name: &str, what: &str, fix: &str) -> Option<T> {
        self.reject(name, format!("This is not {what}."), fix);
        None
    }

    /// Ends the reading: what is left is unknown, and all that was wrong comes out.
    pub fn finish(self) -> Result<(), Denial> {
        let found = self.end();
        if found.is_empty() { Ok(()) } else { Err(response::invalid(found)) }
    }

    /// The same, for whoever has more to say of it.
    pub fn end(mut self) -> Vec<Violation> {
        for name in self.fields.keys() {
            let fix = match suggest(name, self.known.iter().copied()) {
                Some(known) => format!("Did you mean {known}?"),
                None => format!("There are: {}.", self.known.join(", ")),
            };
            let shown: String = name.chars().take(64).collect();
            self.violations.push(Violation::new(
                format!("{}{shown}", self.at),
                "There is no such field.",
                fix,
            ));
        }
        self.violations
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_does_what_its_definition_shows() {
        // RFC 7396, appendix A.
        for (before, patch, after) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut target = before.clone();
            merge(&mut target, patch.clone());
            assert_eq!(target, after, "{before} {patch}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut form = FieldReader::new(json!({
            "enabled": "yes", "labl": "x", "words": ["a", 1], "inner": { "status": "x" }, "far": 1, "many": 300
        }));
        assert_eq!(form.needed_text("label"), "");
        assert_eq!(form.flag("enabled"), None);
        assert_eq!(form.words("words"), Some(vec!["a".to_owned()]));
        assert_eq!(form.object("inner", |inner| inner.number::<u16>("status")), Some(None));
        assert_eq!(form.number::<u8>("many"), None);
        let found = form.end();
        let places: Vec<&str> = found.iter().map(|one| one.location.as_str()).collect();
        assert_eq!(places, ["label", "enabled", "words.1", "inner.status", "many", "labl", "far"]);
        assert_eq!(found[5].fix, "Did you mean label?");
        assert!(found[6].fix.starts_with("There are: label, enabled"), "{}", found[6].fix);
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for value in [json!([]), json!("x"), json!(null), json!(7)] {
            let mut form = FieldReader::new(value.clone());
            assert_eq!(form.text("name"), None);
            assert_eq!(form.end().len(), 1, "{value}");
        }
    }
}
