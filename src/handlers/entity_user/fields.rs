//! Reading the request's body into typed fields.
//!
//! Three kinds of faults, each with its own fate: a body that is no JSON object is a 400; one that names what does not exist, or has another
//! structure, is a 422 at once; a value that does not fit its field waits in [`Value::Unfit`] until the field's access was checked.

use ::http::StatusCode;
use serde_json::{Map, Value as Json};

use super::{
    field::{Field, Kind},
    validation::{self, Fault},
};
use crate::{
    model::{Secret, Timestamp},
    pipeline::{Denial, Phase},
};

/// The fields of a request, in the order in which they came.
pub(super) type Fields = Vec<(Field, Value)>;

/// What a request says about a field.
#[derive(Debug)]
pub(super) enum Value {
    /// The field is to be empty.
    Empty,
    Number(u64),
    Text(String),
    Flag(bool),
    Moment(Timestamp),
    Password {
        /// The new one; none: it stays.
        new: Option<Secret>,
        /// The one that it has, as proof.
        existing: Option<Secret>,
    },
    /// Each role once, with its place in the request.
    Roles(Vec<(usize, String)>),
    /// What cannot be a value of the field.
    Unfit(Vec<Fault>),
}

/// Reads a body.
pub(super) fn read(body: &[u8]) -> Result<Fields, Denial> {
    if body.is_empty() {
        return Err(bad("No entity content received."));
    }
    // Of a name that comes twice the last one counts; what is nested deeper than 128 levels is no JSON to us.
    match serde_json::from_slice(body) {
        Ok(Json::Object(entity)) => {
            entity.into_iter().map(|(name, json)| field(&name, json)).collect()
        }
        Ok(_) => {
            Err(bad("The request's body must be a JSON object with the fields of the entity."))
        }
        Err(_) => Err(bad("Syntax error")),
    }
}

fn bad(message: &'static str) -> Denial {
    Denial::message(Phase::Handler, StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}

fn field(name: &str, json: Json) -> Result<(Field, Value), Denial> {
    let Some(field) = Field::parse(name) else {
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
    let kind = field.kind();
    let items = items.into_iter().map(|item| properties(kind, item)).collect::<Result<_, _>>()?;
    let value = if kind == Kind::Roles { roles(items) } else { single(field, items)? };
    Ok((field, value))
}

/// An item's properties. A bare value is the main one.
fn properties(kind: Kind, item: Json) -> Result<Map<String, Json>, Denial> {
    let unknown =
        |name: &str| Err(validation::unprocessable(format!("Property {name} is unknown.")));
    match item {
        Json::Object(properties) => match properties.keys().find(|name| !kind.has_property(name)) {
            Some(name) => unknown(name),
            None => Ok(properties),
        },
        Json::Array(nested) if !nested.is_empty() => unknown("0"),
        Json::Array(_) => Ok(Map::new()),
        bare => Ok(Map::from_iter([(kind.main_property().to_owned(), bare)])),
    }
}

/// The value of a field that holds one.
fn single(field: Field, items: Vec<Map<String, Json>>) -> Result<Value, Denial> {
    if items.len() > 1 {
        let said = format!("{}: this field cannot hold more than 1 values.", field.label());
        return Ok(Value::Unfit(vec![Fault::of(field, said)]));
    }
    let mut item = items.into_iter().next().unwrap_or_default();
    if field == Field::Pass {
        return Ok(password(&mut item));
    }
    let json = match item.remove("value") {
        None | Some(Json::Null) => return Ok(Value::Empty),
        Some(Json::String(text)) if text.is_empty() => return Ok(Value::Empty),
        Some(json) => json,
    };
    let value = match field.kind() {
        Kind::Moment => moment(json)?,
        Kind::Flag => flag(&json).map(Value::Flag),
        Kind::Number => number(&json).map(Value::Number),
        Kind::Text | Kind::Password | Kind::Roles => text(json).map(Value::Text),
    };
    Ok(value.unwrap_or_else(|| unfit(field, "value")))
}

fn unfit(field: Field, property: &str) -> Value {
    let said = "This value should be of the correct primitive type.";
    Value::Unfit(vec![Fault::at(field, format!("0.{property}"), said)])
}

/// Numbers are taken for text too, as clients without types send them.
fn text(json: Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn flag(json: &Json) -> Option<bool> {
    match json {
        Json::Bool(flag) => Some(*flag),
        Json::Number(number) => match number.as_u64()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        Json::String(text) => match text.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        },
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
fn moment(json: Json) -> Result<Option<Value>, Denial> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_207_199;
    let (at, given) = match json {
        Json::Number(number) => (number.as_i64().map(Timestamp), number.to_string()),
        Json::String(text) => {
            let at = text.parse().ok().map(Timestamp).or_else(|| Timestamp::parse(&text));
            (at, text)
        }
        _ => return Ok(None),
    };
    match at.filter(|at| YEARS.contains(&at.0)) {
        Some(at) => Ok(Some(Value::Moment(at))),
        None => Err(validation::unprocessable(format!(
            "The specified date \"{given}\" is not in an accepted format: \"U\" (UNIX timestamp), \
             \"Y-m-d\\TH:i:sO\" (ISO 8601), \"Y-m-d\\TH:i:sP\" (RFC 3339)."
        ))),
    }
}

/// The text of a password moves from the JSON into a [`Secret`], so that it is wiped.
fn password(item: &mut Map<String, Json>) -> Value {
    let mut take = |property: &str| match item.remove(property) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => match text(json) {
            Some(text) => Ok(Some(Secret::new(text)).filter(|secret| !secret.expose().is_empty())),
            None => Err(unfit(Field::Pass, property)),
        },
    };
    match (take("value"), take("existing")) {
        (Ok(new), Ok(existing)) => Value::Password { new, existing },
        (Err(unfit), _) | (_, Err(unfit)) => unfit,
    }
}

/// Each role once. What every user has goes without saying.
fn roles(items: Vec<Map<String, Json>>) -> Value {
    let mut seen = std::collections::HashSet::from([crate::model::AUTHENTICATED.to_owned()]);
    let (mut ids, mut faults) = (Vec::new(), Vec::new());
    for (at, mut item) in items.into_iter().enumerate() {
        let path = || format!("{at}.target_id");
        match item.remove("target_id") {
            None | Some(Json::Null) => {
                faults.push(Fault::at(Field::Roles, path(), "This value should not be null."));
            }
            Some(json) => match text(json) {
                Some(id) if seen.insert(id.clone()) => ids.push((at, id)),
                Some(_) => {}
                None => {
                    let said = "This value should be of the correct primitive type.";
                    faults.push(Fault::at(Field::Roles, path(), said));
                }
            },
        }
    }
    if faults.is_empty() { Value::Roles(ids) } else { Value::Unfit(faults) }
}
