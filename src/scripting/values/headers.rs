//! What a script may put into an answer's header: valid names and values, and none that frames the message or speaks for Keyward.

use http::{HeaderMap, HeaderName, HeaderValue};
use rhai::Map;

/// Fields that belong to the connection or frame the message (RFC 9110, section 7.6.1; RFC 9112, section 6).
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

/// Fields with which Keyward tells an upstream who somebody is.
const OWN: &str = "x-keyward-";

/// How many fields a script may set in one answer.
pub(in crate::scripting) const MOST: usize = 64;

/// A name that a script may set.
///
/// # Errors
/// It is no name, or one that is not for scripts.
pub(in crate::scripting) fn name(text: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("{:?} is no name of a header field", clip(text)))?;
    if FORBIDDEN.contains(&name.as_str()) || name.as_str().starts_with(OWN) {
        return Err(format!("the header field {name} is not for scripts to set"));
    }
    Ok(name)
}

/// A value that a script may set: visible text and spaces. CR, LF, NUL and other controls would end the field and begin another.
///
/// # Errors
/// It holds something else. The value itself is not told.
pub(in crate::scripting) fn value(name: &HeaderName, text: &str) -> Result<HeaderValue, String> {
    let is_plain = text.chars().all(|c| c == '\t' || !c.is_control()) && text.len() <= 8192;
    is_plain
        .then(|| HeaderValue::from_str(text).ok())
        .flatten()
        .ok_or_else(|| format!("the value for {name} holds control characters or is too long"))
}

/// Puts a field in, in place of one of the same name.
pub(in crate::scripting) fn set(
    map: &mut HeaderMap,
    field: &str,
    text: &str,
) -> Result<(), String> {
    let name = name(field)?;
    let value = value(&name, text)?;
    if map.keys_len() >= MOST && !map.contains_key(&name) {
        return Err(format!("more than {MOST} header fields"));
    }
    map.insert(name, value);
    Ok(())
}

/// Reads a map of names to values.
pub(in crate::scripting) fn read(map: &Map) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in map {
        let value = value
            .clone()
            .into_string()
            .map_err(|_| format!("the value for the header field {:?} is no text", clip(name)))?;
        set(&mut headers, name, &value)?;
    }
    Ok(headers)
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
