//! Settings of the user entity: `[entity_user]`.

use super::{Check, file::EntityUserSection};
use crate::handlers::{CustomField, CustomType};

/// The maximum number of custom fields: the maximum number of attributes of a user.
const MAX_FIELDS: usize = 16;
/// The maximum number of values of a field.
const MAX_VALUES: usize = 100;
const FIX: &str = "Write fields such as field_first_name = first_name, field_age: integer = age, \
                   field_tag: string[5] = tags.";

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn custom_fields(&mut self, raw: &EntityUserSection) -> Vec<CustomField> {
        let mut fields: Vec<CustomField> = Vec::new();
        for (index, text) in items(&raw.fields).enumerate() {
            match parse(text) {
                Ok(field) if fields.iter().any(|other| other.name == field.name) => {
                    let message = format!("Field {} is declared twice.", index + 1);
                    self.broken("entity_user.fields", &message, "Remove one of the two.");
                }
                Ok(field) if fields.iter().any(|other| other.attribute == field.attribute) => {
                    let message =
                        format!("Field {} has the attribute of an earlier field.", index + 1);
                    self.broken("entity_user.fields", &message, "Give each field its own.");
                }
                Ok(field) => fields.push(field),
                Err(problem) => {
                    let message = format!("Field {} {problem}", index + 1);
                    self.broken("entity_user.fields", &message, FIX);
                }
            }
        }
        if fields.len() > MAX_FIELDS {
            let message = format!("There are more than {MAX_FIELDS} fields.");
            self.broken("entity_user.fields", &message, "A user has at most 16 attributes.");
        }
        for (index, name) in items(&raw.own_fields).enumerate() {
            match fields.iter_mut().find(|field| field.name == name) {
                Some(field) => field.is_own = true,
                None => {
                    let message = format!("Field {} is not a custom field.", index + 1);
                    let fix = "Declare it in entity_user.fields, or remove it here.";
                    self.broken("entity_user.own_fields", &message, fix);
                }
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields
    }
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// Reads `NAME = ATTRIBUTE`, `NAME: TYPE = ATTRIBUTE` or `NAME: TYPE[N] = ATTRIBUTE`. The error is
/// the end of a sentence that does not contain any part of the text.
fn parse(text: &str) -> Result<CustomField, &'static str> {
    let (declared, attribute) = text.split_once('=').ok_or("names no attribute.")?;
    let (name, kind) = declared.split_once(':').unwrap_or((declared, "string"));
    let (name, kind, attribute) = (name.trim(), kind.trim(), attribute.trim());
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.starts_with("field_") || name.len() > 32 || !name.chars().all(is_word) {
        return Err("does not have the name of a custom field: the name begins with field_, and \
                    has at most 32 lower-case letters, digits and underscores.");
    }
    if attribute.is_empty() || attribute.len() > 64 {
        return Err("has an attribute without a name of 1 to 64 bytes.");
    }
    let (kind, cardinality) = match kind.strip_suffix(']').and_then(|kind| kind.split_once('[')) {
        Some((kind, count)) => {
            let count = count.parse().ok().filter(|count| (1..=MAX_VALUES).contains(count));
            (kind, count.ok_or("has a number of values that is not 1 to 100.")?)
        }
        None => (kind, 1),
    };
    let field_type = match kind {
        "string" => CustomType::String,
        "integer" => CustomType::Integer,
        "boolean" => CustomType::Boolean,
        _ => return Err("has a type that does not exist."),
    };
    let (name, attribute) = (name.to_owned(), attribute.to_owned());
    Ok(CustomField { name, field_type, cardinality, attribute, is_own: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_are_read() {
        let field = |text: &str| {
            let field = parse(text).unwrap();
            (field.name, field.field_type, field.cardinality, field.attribute)
        };
        let expected = ("field_a".to_owned(), CustomType::String, 1, "a".to_owned());
        assert_eq!(field("field_a = a"), expected);
        assert_eq!(field("field_a:string=a"), expected);
        let expected = ("field_n".to_owned(), CustomType::Integer, 5, "n".to_owned());
        assert_eq!(field("field_n: integer[5] = n"), expected);
        for bad in [
            "field_a",
            "name = a",
            "field_A = a",
            "field_a =",
            "field_a: text = a",
            "field_a: string[0] = a",
            "field_a: string[101] = a",
            "field_a: string[x] = a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
