//! Removes keys from text that is not secret, such as a log line: in clear text, inside Base64
//! credentials, and with percent-encoding.
//!
//! Unlike the scanner for leaked keys, this also removes text that only looks like a key: a key
//! with a typing error still contains most of its secret.

use std::{borrow::Cow, ops::Range};

use percent_encoding::percent_decode_str;

use super::{
    scan::{decoded_runs, is_run},
    text::ID,
};

/// The length of the shortest secret that is removed. A shorter one may be a name.
const SHORTEST_SECRET: usize = 20;
/// The length of the shortest Base64 text that can contain such a secret with its key's id.
const SHORTEST_RUN: usize = (1 + ID + 1 + SHORTEST_SECRET) * 4 / 3;
const REMOVED: &str = "[removed]";

/// The text without the secrets of keys. A key's prefix and id stay, so that it can be revoked.
/// Borrowed if there is no key.
pub fn redact_keys(text: &str) -> Cow<'_, str> {
    let mut ranges: Vec<Range<usize>> = secrets(text.as_bytes());
    ranges.extend(encoded_secrets(text.as_bytes()));
    ranges.extend(percent_encoded_secrets(text));
    if ranges.is_empty() {
        return text.into();
    }
    ranges.sort_by_key(|range| range.start);
    let (mut redacted, mut end) = (String::with_capacity(text.len()), 0);
    for range in ranges {
        // An encoded secret can lie within another one.
        if range.end <= end {
            continue;
        }
        redacted.push_str(&text[end..range.start.max(end)]);
        redacted.push_str(REMOVED);
        end = range.end;
    }
    redacted.push_str(&text[end..]);
    redacted.into()
}

/// The ranges of secrets in clear text: what follows `_`, an id and `_`.
fn secrets(text: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut index = 0;
    while let Some(distance) = memchr::memchr(b'_', &text[index..]) {
        index += distance + 1;
        let Some(id) = text.get(index..=index + ID) else { break };
        if id[ID] != b'_' || !id[..ID].iter().all(u8::is_ascii_alphanumeric) {
            continue;
        }
        let begin = index + ID + 1;
        let length = text[begin..].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
        if length >= SHORTEST_SECRET {
            ranges.push(begin..begin + length);
            index = begin + length;
        }
    }
    ranges
}

/// The ranges of Base64 texts that contain a secret.
fn encoded_secrets(text: &[u8]) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut begin = 0;
    for run in text.split(|b| !is_run(*b)) {
        if run.len() >= SHORTEST_RUN
            && decoded_runs(run).any(|decoded| !secrets(&decoded).is_empty())
        {
            ranges.push(begin..begin + run.len());
        }
        begin += run.len() + 1;
    }
    ranges
}

/// The ranges of percent-encoded words that contain a secret, also inside Base64.
fn percent_encoded_secrets(text: &str) -> Vec<Range<usize>> {
    if !text.contains('%') {
        return Vec::new();
    }
    let mut ranges = Vec::new();
    let mut begin = 0;
    for word in text.split(|c: char| c.is_ascii_whitespace() || c == '"') {
        if word.contains('%') {
            let decoded: Vec<u8> = percent_decode_str(word).collect();
            if !secrets(&decoded).is_empty() || !encoded_secrets(&decoded).is_empty() {
                ranges.push(begin..begin + word.len());
            }
        }
        begin += word.len() + 1;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;
    use crate::model::{Entropy, KeyText};

    #[test]
    fn no_form_of_a_key_survives() {
        let generated = KeyText::generate("kw", &Entropy::seeded(1));
        let (key, id) = (generated.text.expose(), generated.id);
        let secret = &key[12..];
        let credential = STANDARD.encode(format!("administrator:{key}"));
        let mistyped = format!("{}X{}", &key[..30], &key[31..]);
        let percent = key.replace('_', "%5F").replace('a', "%61");
        for text in [
            key.to_owned(),
            format!("GET /user/{key}/x"),
            format!("a {key} b {key}"),
            format!("é{key}é"),
            format!("{{\"path\":\"/user/{key}\",\"code\":\"X\"}}"),
            format!("path=/{mistyped}"),
            format!("path=/{}", &key[..40]),
            format!("header {credential}"),
            format!("path=/a/{credential}"),
            format!("Basic%20{}", credential.replace('=', "%3D")),
            format!("/user/{percent}"),
            format!("/user/%2F{key}"),
        ] {
            let redacted = redact_keys(&text);
            assert!(redacted.contains(REMOVED), "{redacted}");
            for part in [&secret[..19], &secret[19..], &credential[..60], &percent[20..]] {
                assert!(!redacted.contains(part), "{text} became {redacted}");
            }
            let is_encoded = text.contains('%') || text.contains(&credential);
            assert!(is_encoded || redacted.contains(&id.to_string()), "{redacted}");
        }
        let line = format!("{{\"path\":\"/user/{key}\",\"code\":\"X\"}}");
        assert!(serde_json::from_str::<serde_json::Value>(&redact_keys(&line)).is_ok());
    }

    #[test]
    fn text_without_keys_is_unchanged() {
        for text in [
            "",
            "_",
            "kw_",
            "kw_12345678_short",
            "INFO keyward::server: refused phase=\"header\" code=\"MISSING_API_KEY_HEADER\"",
            "keyward_store_commit_duration_seconds",
            "/a%20b%2Fc?x",
            "the key VTbmcRWV is revoked",
            &"A".repeat(5000),
        ] {
            assert!(matches!(redact_keys(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
