//! Reads the request's body into typed fields.
//!
//! There are three kinds of errors. A body that is not a JSON object is denied with a 400. An
//! unknown field or property, a value with the wrong structure, or a wrong date is denied
//! immediately with a 422. Any other value that does not fit its field becomes a
//! [`FieldValue::Invalid`], which is reported only after the access to the field was checked.

use ::http::StatusCode;
use serde_json::{Map, Value as Json};

use super::{
    custom,
    field::{FieldType, UserField},
    numbers::keep_digits,
    validation::{self, FieldError},
    value::{FieldValue, WRONG_TYPE, flag},
};
use crate::{
    handlers::custom_field::CustomField,
    model::{Secret, Timestamp},
    pipeline::{Denial, Phase},
};

/// The fields of a request, in the order of the request.
pub(super) type Fields = Vec<(UserField, FieldValue)>;

/// Reads a body. `custom` are the custom fields.
pub(super) fn read(body: &[u8], custom: &[&'static CustomField]) -> Result<Fields, Denial> {
    if body.is_empty() {
        return Err(bad_request("No entity content received."));
    }
    // If a name is repeated, the last value counts. JSON with more than 128 levels is rejected.
    match serde_json::from_slice(&keep_digits(body)) {
        Ok(Json::Object(entity)) => {
            entity.into_iter().map(|(name, json)| field(&name, json, custom)).collect()
        }
        Ok(_) => Err(bad_request(
            "The request's body must be a JSON object with the fields of the entity.",
        )),
        Err(_) => Err(bad_request("Syntax error")),
    }
}

fn bad_request(message: &'static str) -> Denial {
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

fn field(
    name: &str,
    json: Json,
    custom: &[&'static CustomField],
) -> Result<(UserField, FieldValue), Denial> {
    let Some(field) = UserField::parse_any(name, custom) else {
        return Err(validation::unprocessable(format!("Field {name} is unknown.")));
    };
    let items = match json {
        Json::Array(items) => items,
        Json::Object(item) if item.is_empty() => Vec::new(),
        Json::Object(item) => vec![Json::Object(item)],
        _ => {
            return Err(validation::unprocessable(format!(
                "Field values for \"{name}\" must use an array structure"
            )));
        }
    };
    let field_type = field.field_type();
    let items =
        items.into_iter().map(|item| properties(field_type, item)).collect::<Result<_, _>>()?;
    let value = match field {
        UserField::Custom(field) => custom::read(field, items),
        UserField::Roles => roles(items),
        _ => single_value(field, items)?,
    };
    Ok((field, value))
}

/// The properties of an item. A bare value is the main property.
fn properties(field_type: FieldType, item: Json) -> Result<Map<String, Json>, Denial> {
    let unknown =
        |name: &str| Err(validation::unprocessable(format!("Property {name} is unknown.")));
    match item {
        Json::Object(properties) => {
            match properties.keys().find(|name| !field_type.has_property(name)) {
                Some(name) => unknown(name),
                None => Ok(properties),
            }
        }
        Json::Array(nested) if !nested.is_empty() => unknown("0"),
        Json::Array(_) => Ok(Map::new()),
        bare => Ok(Map::from_iter([(field_type.main_property().to_owned(), bare)])),
    }
}

/// The value of a field that has at most one item.
fn single_value(field: UserField, items: Vec<Map<String, Json>>) -> Result<FieldValue, Denial> {
    if items.len() > 1 {
        let message = format!("{}: this field cannot hold more than 1 values.", field.label());
        return Ok(FieldValue::Invalid(vec![FieldError::of(field, message)]));
    }
    let mut item = items.into_iter().next().unwrap_or_default();
    if field == UserField::Pass {
        return Ok(password(&mut item));
    }
    let json = match item.remove("value") {
        None | Some(Json::Null) => return Ok(FieldValue::Empty),
        Some(Json::String(text)) if text.is_empty() => return Ok(FieldValue::Empty),
        Some(json) => json,
    };
    let value = match field.field_type() {
        FieldType::Time => time(json)?,
        FieldType::Flag => flag(&json).map(FieldValue::Flag),
        FieldType::Number => number(&json).map(FieldValue::Number),
        FieldType::Text | FieldType::Password | FieldType::Roles => {
            text(json).map(FieldValue::Text)
        }
    };
    Ok(value.unwrap_or_else(|| wrong_type(field, "value")))
}

fn wrong_type(field: UserField, property: &str) -> FieldValue {
    FieldValue::Invalid(vec![FieldError::at(field, format!("0.{property}"), WRONG_TYPE)])
}

/// The text of a value. A number becomes a text, because clients in untyped languages send numbers
/// for texts. [`keep_digits`] has kept its digits as they were sent.
fn text(json: Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number(json: &Json) -> Option<u64> {
    match json {
        Json::Number(number) => number.as_u64(),
        Json::String(text) => text.parse().ok(),
        _ => None,
    }
}

/// A point in time: seconds since the epoch, or RFC 3339. Years have four digits.
fn time(json: Json) -> Result<Option<FieldValue>, Denial> {
    // The years 0000 to 9999. The range ends 26 hours before the year 10000, like the range of
    // `jiff::Timestamp`, so that the latest time has a four-digit year in every time zone.
    const FOUR_DIGIT_YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_207_199;
    let (time, original) = match json {
        Json::Number(number) => (number.as_i64().map(Timestamp), number.to_string()),
        Json::String(text) => {
            let time = text.parse().ok().map(Timestamp).or_else(|| Timestamp::parse(&text));
            (time, text)
        }
        _ => return Ok(None),
    };
    match time.filter(|time| FOUR_DIGIT_YEARS.contains(&time.0)) {
        Some(time) => Ok(Some(FieldValue::Time(time))),
        None => Err(validation::unprocessable(format!(
            "The specified date \"{original}\" is not in an accepted format: \"U\" (UNIX \
             timestamp), \"Y-m-d\\TH:i:sO\" (ISO 8601), \"Y-m-d\\TH:i:sP\" (RFC 3339)."
        ))),
    }
}

/// Moves the text of a password from the JSON into a [`Secret`], so that the text is wiped.
fn password(item: &mut Map<String, Json>) -> FieldValue {
    let mut take = |property: &str| match item.remove(property) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => match text(json) {
            Some(text) => Ok(Some(Secret::new(text)).filter(|secret| !secret.expose().is_empty())),
            None => Err(wrong_type(UserField::Pass, property)),
        },
    };
    match (take("value"), take("existing")) {
        (Ok(new), Ok(existing)) => FieldValue::Password { new, existing },
        (Err(invalid), _) | (_, Err(invalid)) => invalid,
    }
}

/// Each role once, without `authenticated`, which every user has.
fn roles(items: Vec<Map<String, Json>>) -> FieldValue {
    let mut seen = std::collections::HashSet::from([crate::model::AUTHENTICATED.to_owned()]);
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    for (position, mut item) in items.into_iter().enumerate() {
        let error =
            |message| FieldError::at(UserField::Roles, format!("{position}.target_id"), message);
        match item.remove("target_id") {
            None | Some(Json::Null) => errors.push(error("This value should not be null.")),
            Some(json) => match text(json) {
                Some(id) if seen.insert(id.clone()) => ids.push((position, id)),
                Some(_) => {}
                None => errors.push(error(WRONG_TYPE)),
            },
        }
    }
    if errors.is_empty() { FieldValue::Roles(ids) } else { FieldValue::Invalid(errors) }
}
