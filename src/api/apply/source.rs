//! A parsed TOML document that can report the line and column of each violation.

use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::model::Violation;

/// A parsed document.
pub(super) struct TomlDocument<'t> {
    text: &'t str,
    document: Spanned<DeTable<'t>>,
}

impl<'t> TomlDocument<'t> {
    /// Parses TOML. The error never repeats the text, because the text contains digests.
    pub fn parse(text: &'t str) -> Result<Self, Violation> {
        match DeTable::parse(text) {
            Ok(document) => Ok(Self { text, document }),
            Err(problem) => {
                let offset = problem.span().map_or(text.len(), |span| span.start);
                let message = problem.message().lines().next().unwrap_or_default();
                Err(Violation::new(
                    line_and_column(text, offset),
                    format!("This is not TOML: {message}."),
                    "Write headings such as [[users]] on lines of their own, and fields as \
                     name = \"text\", name = 10, name = true or name = [\"a\", \"b\"].",
                ))
            }
        }
    }

    /// The document as JSON.
    pub fn to_json(&self) -> Value {
        table_to_json(self.document.get_ref())
    }

    /// Adds the line and the column to the location of a violation. The location is a path with
    /// dots, such as `users.0.name`, in which the records of a list are numbered from 0.
    pub fn with_line(&self, violation: Violation) -> Violation {
        if violation.location.is_empty() {
            return violation;
        }
        let segments: Vec<&str> = violation.location.split('.').collect();
        let (offset, record) = self.find(&segments);
        let location = match record {
            Some((name, depth)) if segments.len() > depth => {
                format!("{name}: {}", segments[depth..].join("."))
            }
            Some((name, _)) => name,
            None => violation.location,
        };
        match offset {
            Some(offset) => Violation {
                location: format!("{}: {location}", line_and_column(self.text, offset)),
                ..violation
            },
            None => Violation { location, ..violation },
        }
    }

    /// Follows a path to its last segment that exists in the document. Returns the offset in bytes
    /// at which that segment begins. If the path leads into a record, also returns the record's
    /// title and the number of segments that lead to the record.
    fn find(&self, path: &[&str]) -> (Option<usize>, Option<(String, usize)>) {
        let (mut offset, mut record) = (None, None);
        let mut node = Node::Table(self.document.get_ref());
        let mut rest = path;
        while !rest.is_empty() {
            let (next, taken) = match node {
                Node::Table(fields) => {
                    // The name of a field may contain dots, so several segments may form one name.
                    let field =
                        |count: &usize| fields.get_key_value(rest[..*count].join(".").as_str());
                    let Some(taken) = (1..=rest.len()).find(|count| field(count).is_some()) else {
                        break;
                    };
                    let Some((name, value)) = field(&taken) else { break };
                    offset = Some(name.span().start);
                    (value.get_ref(), taken)
                }
                Node::List(items) => {
                    let number = rest[0].parse::<usize>().ok();
                    let Some(item) = number.and_then(|number| items.get(number)) else { break };
                    offset = Some(item.span().start);
                    if let ([kind, _], DeValue::Table(fields)) =
                        (&path[..path.len() - rest.len() + 1], item.get_ref())
                    {
                        record = title(kind, fields).map(|title| (title, 2));
                    }
                    (item.get_ref(), 1)
                }
            };
            rest = &rest[taken..];
            node = match next {
                DeValue::Table(fields) => Node::Table(fields),
                DeValue::Array(items) => Node::List(items),
                _ => break,
            };
        }
        (offset, record)
    }
}

enum Node<'a, 't> {
    Table(&'a DeTable<'t>),
    List(&'a toml::de::DeArray<'t>),
}

/// The title of a record in a location, such as `user anna`.
fn title(kind: &str, fields: &DeTable<'_>) -> Option<String> {
    let kind = kind.strip_suffix('s')?;
    let field = if kind == "user" { "name" } else { "id" };
    let name = fields.get(field)?.get_ref().as_str()?;
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Some(format!("{kind} {name}"))
}

/// The line and the column of the byte at an offset. Both are counted from 1.
fn line_and_column(text: &str, offset: usize) -> String {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    format!("line {line}, column {}", 1 + before[start..].chars().count())
}

fn table_to_json(fields: &DeTable<'_>) -> Value {
    let fields =
        fields.iter().map(|(name, field)| (name.get_ref().to_string(), to_json(field.get_ref())));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// Converts a value to JSON. A value that JSON cannot represent becomes the list `[null]`, which
/// every field reader rejects.
fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| unsupported(), Into::into),
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or_else(
            |_| unsupported(),
            |number| serde_json::Number::from_f64(number).map_or_else(unsupported, Value::Number),
        ),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(fields) => table_to_json(fields),
    }
}

fn unsupported() -> Value {
    Value::Array(vec![Value::Null])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = 1\n\n[[users]]\nname = \"anna\"\nroles = [\n  \"a\",\n  \"b\",\n]\n[users.attributes]\n\"x.y\" = \"z\"\n\n[[users]]\nname = \"bob\"\n";

    fn locate(path: &str) -> String {
        let toml = TomlDocument::parse(TEXT).unwrap();
        toml.with_line(Violation::new(path, "", "")).location
    }

    #[test]
    fn location_of_a_violation_has_the_line_of_its_field() {
        for (path, location) in [
            ("version", "line 1, column 1: version"),
            ("users.0.name", "line 4, column 1: user anna: name"),
            ("users.0.roles.1", "line 7, column 3: user anna: roles.1"),
            ("users.0.attributes.x.y", "line 10, column 1: user anna: attributes.x.y"),
            ("users.1", "line 12, column 1: user bob"),
            // The location of a missing field has the line where its record begins.
            ("users.1.mail", "line 12, column 1: user bob: mail"),
            ("pepper", "pepper"),
            ("", ""),
        ] {
            assert_eq!(locate(path), location, "{path}");
        }
    }

    #[test]
    fn syntax_error_has_its_line_and_does_not_repeat_the_text() {
        let secret = "$argon2id$secret";
        for (text, line) in [
            (format!("version = 1\npassword = {secret}\n"), "line 2, column 12"),
            (format!("a = \"{secret}\n"), "line 1"),
            ("version = 1\nversion = 1\n".into(), "line 2, column 1"),
            ("[[users]\n".into(), "line 1"),
            ("é = \"é\"\n".into(), "line 1, column 1"),
        ] {
            let error = TomlDocument::parse(&text).map(|_| ()).unwrap_err();
            assert!(error.location.starts_with(line), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
