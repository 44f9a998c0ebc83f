//! A document with its lines: whatever is wrong with a record is told with the line that it stands in.

use serde_json::{Map, Value};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::model::Violation;

/// A document that was read.
pub(super) struct Source<'t> {
    text: &'t str,
    document: Spanned<DeTable<'t>>,
}

impl<'t> Source<'t> {
    /// Reads TOML. Nothing of the text is repeated: it holds digests.
    pub fn of(text: &'t str) -> Result<Self, Violation> {
        match DeTable::parse(text) {
            Ok(document) => Ok(Self { text, document }),
            Err(problem) => {
                let at = problem.span().map_or(text.len(), |span| span.start);
                let said = problem.message().lines().next().unwrap_or_default();
                Err(Violation::new(
                    place(text, at),
                    format!("This is not TOML: {said}."),
                    "Write [[users]] and the like on lines of their own, and fields as name = \"text\", name = 10, name = true or name = [\"a\", \"b\"].",
                ))
            }
        }
    }

    /// The document as the forms read it.
    pub fn value(&self) -> Value {
        table(self.document.get_ref())
    }

    /// A violation with the line that it is about. Its own location is a dotted path, in which the records of a list are numbered from 0.
    pub fn place(&self, found: Violation) -> Violation {
        if found.location.is_empty() {
            return found;
        }
        let segments: Vec<&str> = found.location.split('.').collect();
        let (at, named) = self.find(&segments);
        let location = match named {
            Some((name, depth)) if segments.len() > depth => {
                format!("{name}: {}", segments[depth..].join("."))
            }
            Some((name, _)) => name,
            None => found.location,
        };
        match at {
            Some(at) => {
                Violation { location: format!("{}: {location}", place(self.text, at)), ..found }
            }
            None => Violation { location, ..found },
        }
    }

    /// Where the last part of a path begins that is there, and what the record is called that it leads into.
    fn find(&self, path: &[&str]) -> (Option<usize>, Option<(String, usize)>) {
        let (mut at, mut named) = (None, None);
        let mut here = Here::Table(self.document.get_ref());
        let mut rest = path;
        while !rest.is_empty() {
            let (next, taken) = match here {
                Here::Table(fields) => {
                    // A name may have dots of its own.
                    let named =
                        |count: &usize| fields.get_key_value(rest[..*count].join(".").as_str());
                    let Some(taken) = (1..=rest.len()).find(|count| named(count).is_some()) else {
                        break;
                    };
                    let Some((name, value)) = named(&taken) else { break };
                    at = Some(name.span().start);
                    (value.get_ref(), taken)
                }
                Here::List(items) => {
                    let number = rest[0].parse::<usize>().ok();
                    let Some(item) = number.and_then(|number| items.get(number)) else { break };
                    at = Some(item.span().start);
                    if let ([kind, _], DeValue::Table(fields)) =
                        (&path[..path.len() - rest.len() + 1], item.get_ref())
                    {
                        named = title(kind, fields).map(|title| (title, 2));
                    }
                    (item.get_ref(), 1)
                }
            };
            rest = &rest[taken..];
            here = match next {
                DeValue::Table(fields) => Here::Table(fields),
                DeValue::Array(items) => Here::List(items),
                _ => break,
            };
        }
        (at, named)
    }
}

enum Here<'a, 't> {
    Table(&'a DeTable<'t>),
    List(&'a toml::de::DeArray<'t>),
}

/// What a record of the file is called: `user anna`.
fn title(kind: &str, fields: &DeTable<'_>) -> Option<String> {
    let kind = kind.strip_suffix('s')?;
    let field = if kind == "user" { "name" } else { "id" };
    let name = fields.get(field)?.get_ref().as_str()?;
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Some(format!("{kind} {name}"))
}

/// A byte's line and column, counted from 1.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at.min(text.len())).unwrap_or(text);
    let line = 1 + before.bytes().filter(|byte| *byte == b'\n').count();
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    format!("line {line}, column {}", 1 + before[start..].chars().count())
}

fn table(fields: &DeTable<'_>) -> Value {
    let fields =
        fields.iter().map(|(name, field)| (name.get_ref().to_string(), value(field.get_ref())));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// What is no JSON is told by the field that does not take it: it becomes a list, which none of them takes in its place.
fn value(from: &DeValue<'_>) -> Value {
    match from {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| odd(), Into::into)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or_else(
            |_| odd(),
            |number| serde_json::Number::from_f64(number).map_or_else(odd, Value::Number),
        ),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| value(item.get_ref())).collect(),
        DeValue::Table(fields) => table(fields),
    }
}

fn odd() -> Value {
    Value::Array(vec![Value::Null])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = 1\n\n[[users]]\nname = \"anna\"\nroles = [\n  \"a\",\n  \"b\",\n]\n[users.attributes]\n\"x.y\" = \"z\"\n\n[[users]]\nname = \"bob\"\n";

    fn placed(path: &str) -> String {
        let source = Source::of(TEXT).unwrap();
        source.place(Violation::new(path, "", "")).location
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        for (path, said) in [
            ("version", "line 1, column 1: version"),
            ("users.0.name", "line 4, column 1: user anna: name"),
            ("users.0.roles.1", "line 7, column 3: user anna: roles.1"),
            ("users.0.attributes.x.y", "line 10, column 1: user anna: attributes.x.y"),
            ("users.1", "line 12, column 1: user bob"),
            // What is missing is told where the record begins.
            ("users.1.mail", "line 12, column 1: user bob: mail"),
            ("pepper", "pepper"),
            ("", ""),
        ] {
            assert_eq!(placed(path), said, "{path}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_line_and_not_shown() {
        let secret = "$argon2id$secret";
        for (text, line) in [
            (format!("version = 1\npassword = {secret}\n"), "line 2, column 12"),
            (format!("a = \"{secret}\n"), "line 1"),
            ("version = 1\nversion = 1\n".into(), "line 2, column 1"),
            ("[[users]\n".into(), "line 1"),
            ("é = \"é\"\n".into(), "line 1, column 1"),
        ] {
            let found = Source::of(&text).map(|_| ()).unwrap_err();
            assert!(found.location.starts_with(line), "{found}");
            assert!(!found.to_string().contains("secret"), "{found}");
        }
    }
}
