//! The cursor of a list with filters or an order: a position, and a fingerprint of the filters that
//! the position belongs to.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::Value;

use crate::{
    accounts::{Position, SortKey},
    model::Violation,
};

/// The number of hexadecimal digits of a fingerprint.
const FINGERPRINT: usize = 16;

/// A short text that differs for other filters.
pub fn fingerprint(filters: &Value) -> String {
    let digest = blake3::hash(filters.to_string().as_bytes());
    digest.to_hex().as_str()[..FINGERPRINT].to_owned()
}

/// The cursor after a position.
pub fn format(position: &Position, fingerprint: &str) -> String {
    let position = match position {
        Position::Row(row) => serde_json::json!([hex::encode(row)]),
        Position::Sorted(key, row) => serde_json::json!([hex::encode(row), key]),
    };
    format!("{fingerprint}.{}", BASE64.encode(position.to_string()))
}

/// Parses a cursor.
///
/// # Errors
/// The cursor is malformed, or belongs to other filters.
pub fn parse(cursor: &str, expected: &str) -> Result<Position, Violation> {
    let (fingerprint, position) = cursor.split_once('.').ok_or_else(of_other_filters)?;
    if fingerprint != expected {
        return Err(of_other_filters());
    }
    let decoded = BASE64.decode(position).map_err(|_| malformed())?;
    let parts: Vec<Value> = serde_json::from_slice(&decoded).map_err(|_| malformed())?;
    let row = parts.first().and_then(Value::as_str).and_then(|row| hex::decode(row).ok());
    let row = row.ok_or_else(malformed)?;
    match parts.get(1) {
        None => Ok(Position::Row(row)),
        Some(key) => {
            let key: SortKey = serde_json::from_value(key.clone()).map_err(|_| malformed())?;
            Ok(Position::Sorted(key, row))
        }
    }
}

/// Whether a cursor is one of a list with filters.
pub fn belongs_to_filters(cursor: &str) -> bool {
    let fingerprint = cursor.split_once('.').map(|(fingerprint, _)| fingerprint);
    fingerprint.is_some_and(|text| {
        text.len() == FINGERPRINT && text.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

pub fn malformed() -> Violation {
    Violation::new(
        "after",
        "This is not a cursor of this list.",
        "Send the value of `next` in the previous page, unchanged.",
    )
}

pub fn of_other_filters() -> Violation {
    Violation::new(
        "after",
        "This is the cursor of a list with other filters or another order.",
        "Send the filters and the order of the previous page, or leave out the cursor.",
    )
}
