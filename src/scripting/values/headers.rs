//! Checks the header fields that a script sets in a response: names and values must be valid.
//! Scripts cannot set fields that frame the message, or fields that state the caller's identity.

use http::{HeaderMap, HeaderName, HeaderValue};
use rhai::Map;

/// Fields that belong to the connection or frame the message (RFC 9110, section 7.6.1; RFC 9112,
/// section 6).
const FORBIDDEN: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The prefix of the fields in which Keyward tells an upstream the identity of the caller.
const IDENTITY_PREFIX: &str = "x-keyward-";

/// The maximum number of fields that a script may set in one response.
const MAX_FIELDS: usize = 64;
/// The maximum length of a field's value, in bytes.
const MAX_VALUE_BYTES: usize = 8192;

/// Parses the name of a field that a script may set.
///
/// # Errors
/// The name is invalid, or scripts may not set this field.
pub(in crate::scripting) fn parse_name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{:?} is not the name of a header field", clip(text)))?;
    if FORBIDDEN.contains(&name.as_str()) || name.as_str().starts_with(IDENTITY_PREFIX) {
        return Err(format!("scripts cannot set the header field {name}"));
    }
    Ok(name)
}

/// Parses a value that a script may set: visible text, spaces and tabs. Control characters such as
/// CR, LF and NUL are rejected, because they could end the field and begin another field.
///
/// # Errors
/// The value contains control characters or is too long. The message does not quote the value.
pub(in crate::scripting) fn parse_value(
    name: &HeaderName,
    text: &str,
) -> Result<HeaderValue, String> {
    let has_control = text.chars().any(|c| c != '\t' && c.is_control());
    let is_allowed = !has_control && text.len() <= MAX_VALUE_BYTES;
    is_allowed
        .then(|| HeaderValue::from_str(text).ok())
        .flatten()
        .ok_or_else(|| format!("the value for {name} contains control characters or is too long"))
}

/// Sets a field, replacing a field of the same name.
pub(in crate::scripting) fn set(
    headers: &mut HeaderMap,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let name = parse_name(name)?;
    let value = parse_value(&name, value)?;
    if headers.keys_len() >= MAX_FIELDS && !headers.contains_key(&name) {
        return Err(format!("a script cannot set more than {MAX_FIELDS} header fields"));
    }
    headers.insert(name, value);
    Ok(())
}

/// Reads a script's map of names and values.
pub(in crate::scripting) fn read(map: &Map) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in map {
        let value = value.clone().into_string().map_err(|_| {
            format!("the value for the header field {:?} is not a text", clip(name))
        })?;
        set(&mut headers, name, &value)?;
    }
    Ok(headers)
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The size of the largest header field, with all its values.
pub(super) fn largest_field(headers: &HeaderMap) -> usize {
    let size = |name| headers.get_all(name).iter().map(HeaderValue::len).sum();
    headers.keys().map(size).max().unwrap_or(0)
}
