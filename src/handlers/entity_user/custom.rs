//! Fields of the user entity that the operator has declared. Their values are attributes of the
//! user.

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{Map, Value as Json, json};

use super::{
    access::Visibility,
    field::UserField,
    validation::FieldError,
    value::{FieldValue, WRONG_TYPE, flag},
};
use crate::{
    handlers::custom_field::{CustomField, CustomType},
    model::User,
};

/// The maximum length of a text, in characters.
const MAX_CHARACTERS: usize = 255;
/// The maximum length of an attribute, in bytes.
const MAX_BYTES: usize = 512;

/// Reads the value of a field from its items.
pub(super) fn read(field: &'static CustomField, items: Vec<Map<String, Json>>) -> FieldValue {
    let as_field = UserField::Custom(field);
    let invalid = |error| FieldValue::Invalid(vec![error]);
    if items.len() > field.cardinality {
        let (name, most) = (&field.name, field.cardinality);
        let message = format!("{name}: this field cannot hold more than {most} values.");
        return invalid(FieldError::of(as_field, message));
    }
    let mut texts = Vec::new();
    for (position, mut item) in items.into_iter().enumerate() {
        let error =
            |message: String| FieldError::at(as_field, format!("{position}.value"), message);
        match item.remove("value") {
            None | Some(Json::Null) => {}
            Some(Json::String(text)) if text.is_empty() => {}
            Some(json) => match text_of(field.field_type, json) {
                Some(text) if text.chars().count() > MAX_CHARACTERS => {
                    let name = &field.name;
                    let message =
                        format!("{name}: may not be longer than {MAX_CHARACTERS} characters.");
                    return invalid(error(message));
                }
                Some(text) => texts.push(text),
                None => return invalid(error(WRONG_TYPE.to_owned())),
            },
        }
    }
    if attribute(field, &texts).is_some_and(|text| text.len() > MAX_BYTES) {
        let message = format!("{}: may not be longer than {MAX_BYTES} bytes.", field.name);
        return invalid(FieldError::of(as_field, message));
    }
    FieldValue::Items(texts)
}

/// The text of a value. `None` means that the value has another type.
fn text_of(field_type: CustomType, json: Json) -> Option<String> {
    match (field_type, json) {
        (CustomType::String, Json::String(text)) => Some(text),
        (CustomType::String, Json::Number(number)) => Some(number.to_string()),
        (CustomType::Integer, Json::Number(number)) => number.as_i64().map(|n| n.to_string()),
        (CustomType::Integer, Json::String(text)) => {
            text.parse::<i64>().ok().map(|n| n.to_string())
        }
        (CustomType::Boolean, json) => flag(&json).map(|flag| flag.to_string()),
        _ => None,
    }
}

/// The attribute for the texts of a field. `None` means that the user does not have it.
fn attribute(field: &CustomField, texts: &[String]) -> Option<String> {
    match texts {
        [] => None,
        [text] if field.cardinality == 1 => Some(text.clone()),
        texts => Some(json!(texts).to_string()),
    }
}

/// The texts of a field of an account. An attribute that was not written by this field counts as
/// one text.
fn texts(field: &CustomField, account: &User) -> Vec<String> {
    let Some(attribute) = account.attributes.get(&field.attribute) else { return Vec::new() };
    if field.cardinality == 1 {
        return vec![attribute.clone()];
    }
    serde_json::from_str(attribute).unwrap_or_else(|_| vec![attribute.clone()])
}

/// Whether the field of an account has these texts.
pub(super) fn equals(account: &User, field: &CustomField, value: &FieldValue) -> bool {
    matches!(value, FieldValue::Items(items) if texts(field, account) == *items)
}

/// Writes the texts of a field into an account.
pub(super) fn write(account: &mut User, field: &CustomField, items: &[String]) {
    match attribute(field, items) {
        Some(text) => drop(account.attributes.insert(field.attribute.clone(), text)),
        None => drop(account.attributes.remove(&field.attribute)),
    }
}

/// The visible custom fields of an account, in the order of their names.
pub(super) struct CustomFields<'a> {
    pub account: &'a User,
    pub fields: &'a [&'static CustomField],
    pub visibility: Visibility,
}

impl Serialize for CustomFields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in self.fields {
            if self.visibility.shows(UserField::Custom(field)) {
                let items = texts(field, self.account);
                let items: Vec<Json> = items
                    .iter()
                    .map(|text| json!({ "value": shown(field.field_type, text) }))
                    .collect();
                map.serialize_entry(&field.name, &items)?;
            }
        }
        map.end()
    }
}

/// The value of a text in JSON. A text that does not have the type of the field is shown as text.
fn shown(field_type: CustomType, text: &str) -> Json {
    let value = match field_type {
        CustomType::String => None,
        CustomType::Integer => text.parse::<i64>().ok().map(Json::from),
        CustomType::Boolean => text.parse::<bool>().ok().map(Json::from),
    };
    value.unwrap_or_else(|| text.into())
}
