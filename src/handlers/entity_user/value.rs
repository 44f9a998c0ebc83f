//! The values that a request gives to fields.

use serde_json::Value as Json;

use super::validation::FieldError;
use crate::model::{Secret, Timestamp};

/// The value that a request gives to a field.
#[derive(Debug)]
pub(super) enum FieldValue {
    /// Clears the field.
    Empty,
    Number(u64),
    Text(String),
    Flag(bool),
    Time(Timestamp),
    Password {
        /// The new password; `None` means that the password stays.
        new: Option<Secret>,
        /// The current password, as proof.
        existing: Option<Secret>,
    },
    /// Each role once, with its position in the request.
    Roles(Vec<(usize, String)>),
    /// The texts of a custom field.
    Items(Vec<String>),
    /// The value does not have the type of the field.
    Invalid(Vec<FieldError>),
}

pub(super) const WRONG_TYPE: &str = "This value should be of the correct primitive type.";

/// The boolean of a value.
pub(super) fn flag(json: &Json) -> Option<bool> {
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
