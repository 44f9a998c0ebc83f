//! Reads records that clients send as JSON. One response reports all violations, each with its
//! location in the record.

use ::http::{Method, StatusCode, header::CONTENT_TYPE, request::Parts};
use serde_json::{Map, Value};

use super::response;
use crate::{
    model::{Credits, RateLimit, Violation, suggest},
    pipeline::{Denial, Phase},
};

/// Reads the fields of an object, and removes each field that is read. Fields that remain at the
/// end are unknown fields.
pub(super) struct FieldReader {
    fields: Map<String, Value>,
    /// The location of the object in the record, with a dot at the end. The location of the record
    /// is the empty text.
    prefix: String,
    /// The names of all fields that the caller has tried to read.
    known: Vec<&'static str>,
    violations: Vec<Violation>,
}

/// Checks that the media type of the body is JSON. The body of a PATCH request may also have the
/// media type of a merge patch (RFC 7396).
pub(super) fn check_type(request: &Parts) -> Result<(), Denial> {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let is_patch = request.method == Method::PATCH;
    let is_known = essence.eq_ignore_ascii_case("application/json")
        || is_patch && essence.eq_ignore_ascii_case("application/merge-patch+json");
    if is_known {
        return Ok(());
    }
    let message = if is_patch {
        "Send application/json or application/merge-patch+json."
    } else {
        "Send application/json."
    };
    let code = "UNSUPPORTED_MEDIA_TYPE";
    Err(Denial::message(Phase::Handler, StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message))
}

/// Parses JSON. If the JSON has a syntax error, the returned [`Denial`] contains the position of
/// the error, but no part of the body.
pub(super) fn parse(body: &[u8]) -> Result<Value, Denial> {
    serde_json::from_slice(body).map_err(|problem| {
        let (line, column) = (problem.line(), problem.column());
        let message = format!("The body is not JSON: line {line}, column {column}.");
        Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "INVALID_JSON", message)
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
    /// A reader of the fields of a whole record.
    pub fn new(value: Value) -> Self {
        Self::with_prefix(value, String::new())
    }

    fn with_prefix(value: Value, prefix: String) -> Self {
        let mut reader =
            Self { fields: Map::new(), prefix, known: Vec::new(), violations: Vec::new() };
        match value {
            Value::Object(fields) => reader.fields = fields,
            _ => reader.violations.push(Violation::new(
                reader.prefix.trim_end_matches('.'),
                "This is not an object.",
                "Send a JSON object with the record's fields.",
            )),
        }
        reader
    }

    /// Removes a field and returns its value, whatever its type is. `None` means that the field is
    /// absent or `null`.
    pub fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The text of a field that was not read yet.
    pub fn peek(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// Sets a field that is absent or `null`.
    pub fn set_default(&mut self, name: &str, value: impl Into<Value>) {
        if self.fields.get(name).is_none_or(Value::is_null) {
            self.fields.insert(name.into(), value.into());
        }
    }

    /// Reads an optional text. As for all types of fields, `None` means that the field is absent,
    /// or that a violation was added.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => self.wrong_type(name, "text", "Send a string."),
        }
    }

    /// Reads a required text. If the field is absent or invalid, adds a violation and returns `""`.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let count = self.violations.len();
        let text = self.text(name);
        if text.is_none() && self.violations.len() == count {
            self.reject(name, "This field is required.", "Send a string.");
        }
        text.unwrap_or_default()
    }

    /// Reads an optional boolean.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.take(name)? {
            Value::Bool(flag) => Some(flag),
            _ => self.wrong_type(
                name,
                "true or false",
                "Send true or false, without quotation marks.",
            ),
        }
    }

    /// Reads an optional whole number in the range of `T`.
    pub fn number<T: TryFrom<i64>>(&mut self, name: &'static str) -> Option<T> {
        let value = self.take(name)?;
        match value.as_i64().and_then(|number| T::try_from(number).ok()) {
            Some(number) => Some(number),
            None => self.wrong_type(name, "a number in the allowed range", "Send a whole number."),
        }
    }

    /// Reads the optional rate limit.
    pub fn rate_limit(&mut self) -> Option<RateLimit> {
        let value = self.take("rate_limit")?;
        self.rule(RateLimit::read("rate_limit", &value))
    }

    /// Reads the optional credits for a day, a week or a month.
    pub fn credits(&mut self) -> Option<Credits> {
        let value = self.take("credits")?;
        self.rule(Credits::read("credits", &value))
    }

    /// Reads an optional list of strings.
    pub fn words(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let Value::Array(items) = value else {
            return self.wrong_type(name, "a list", "Send a list of strings.");
        };
        let mut words = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(word) => words.push(word),
                _ => self.reject(&format!("{name}.{index}"), "This is not text.", "Send a string."),
            }
        }
        Some(words)
    }

    /// Reads an optional object in which the client chooses the names of the fields.
    pub fn entries(&mut self, name: &'static str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(entries) => Some(entries),
            _ => self.wrong_type(name, "an object", "Send a JSON object."),
        }
    }

    /// Reads the fields of the nested object `value` with a new reader, and adds the violations of
    /// that reader. The nested object may be an entry of [`FieldReader::entries`].
    pub fn entry<T>(&mut self, name: &str, value: Value, read: impl FnOnce(&mut Self) -> T) -> T {
        let mut reader = Self::with_prefix(value, format!("{}{name}.", self.prefix));
        let result = read(&mut reader);
        self.violations.extend(reader.into_violations());
        result
    }

    /// Reads the optional nested object `name`.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let value = self.take(name)?;
        Some(self.entry(name, value, read))
    }

    /// Unwraps a `Result` that a function of `model` returned. If it is a violation, adds the
    /// violation and returns `None`.
    pub fn rule<T>(&mut self, result: Result<T, Violation>) -> Option<T> {
        let add = |violation: Violation| {
            let location = format!("{}{}", self.prefix, violation.location);
            self.violations.push(Violation { location, ..violation });
        };
        result.map_err(add).ok()
    }

    /// Adds a violation of the field `name`.
    pub fn reject(&mut self, name: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.violations.push(Violation::new(format!("{}{name}", self.prefix), message, fix));
    }

    /// Adds a violation of a field that has another type than `expected`.
    fn wrong_type<T>(&mut self, name: &str, expected: &str, fix: &str) -> Option<T> {
        self.reject(name, format!("This is not {expected}."), fix);
        None
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// All violations. A field that was not read is unknown, and an unknown field is a violation.
    pub fn finish(self) -> Result<(), Denial> {
        let violations = self.into_violations();
        if violations.is_empty() { Ok(()) } else { Err(response::invalid(violations)) }
    }

    /// Ends the reading and returns all violations. A field that was not read is unknown, and an
    /// unknown field is a violation.
    pub fn into_violations(mut self) -> Vec<Violation> {
        for name in self.fields.keys() {
            let fix = match suggest(name, self.known.iter().copied()) {
                Some(known) => format!("Did you mean {known}?"),
                None => format!("Known fields: {}.", self.known.join(", ")),
            };
            let short_name: String = name.chars().take(64).collect();
            self.violations.push(Violation::new(
                format!("{}{short_name}", self.prefix),
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
    fn merge_patch_gives_the_results_of_the_examples_in_rfc_7396() {
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
    fn all_violations_are_reported_at_once() {
        let mut reader = FieldReader::new(json!({
            "enabled": "yes",
            "labl": "x",
            "words": ["a", 1],
            "inner": { "status": "x" },
            "far": 1,
            "many": 300,
        }));
        assert_eq!(reader.required_text("label"), "");
        assert_eq!(reader.flag("enabled"), None);
        assert_eq!(reader.words("words"), Some(vec!["a".to_owned()]));
        assert_eq!(reader.object("inner", |inner| inner.number::<u16>("status")), Some(None));
        assert_eq!(reader.number::<u8>("many"), None);
        let violations = reader.into_violations();
        let locations: Vec<&str> = violations.iter().map(|v| v.location.as_str()).collect();
        assert_eq!(
            locations,
            ["label", "enabled", "words.1", "inner.status", "many", "labl", "far"]
        );
        assert_eq!(violations[5].fix, "Did you mean label?");
        assert!(
            violations[6].fix.starts_with("Known fields: label, enabled"),
            "{}",
            violations[6].fix
        );
    }

    #[test]
    fn value_that_is_not_an_object_is_rejected() {
        for value in [json!([]), json!("x"), json!(null), json!(7)] {
            let mut reader = FieldReader::new(value.clone());
            assert_eq!(reader.text("name"), None);
            assert_eq!(reader.into_violations().len(), 1, "{value}");
        }
    }
}
