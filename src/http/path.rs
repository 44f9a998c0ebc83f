//! Brings paths into one normal form before routing, so that the path that is checked is also the
//! path that is served and forwarded.
//!
//! An ambiguous path is rejected, because a server behind this server may interpret the path in
//! another way.

use std::borrow::Cow;

/// The reason why a path has no normal form. The text is for the client and does not repeat the
/// path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathProblem {
    #[error("The path does not begin with a slash.")]
    NotAbsolute,
    #[error("The path contains a percent sign that is not followed by two hexadecimal digits.")]
    BadEscape,
    #[error("The path contains an encoded slash or backslash.")]
    HiddenSeparator,
    #[error("The path contains a backslash.")]
    Backslash,
    #[error("The path contains a semicolon.")]
    Semicolon,
    #[error("The path contains a control character.")]
    Control,
    #[error("The path is percent-encoded twice.")]
    EncodedTwice,
    #[error("The path contains bytes that are not percent-encoded UTF-8.")]
    NotText,
    #[error("The path leads above the root.")]
    AboveRoot,
}

/// The normal form of a path: no unreserved character is percent-encoded, all percent-encodings
/// have upper-case digits (RFC 3986, section 6.2.2), and there are no empty segments and no dot
/// segments.
pub(crate) fn normalise(raw: &str) -> Result<Cow<'_, str>, PathProblem> {
    if !raw.starts_with('/') {
        return Err(PathProblem::NotAbsolute);
    }
    if is_normal(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    resolve(&unescape(raw)?).map(Cow::Owned)
}

/// Whether a quick check proves that a path is in its normal form. Almost all paths pass this
/// check.
fn is_normal(raw: &str) -> bool {
    let mut before = b' ';
    raw.bytes().all(|b| {
        let is_plain = match b {
            // A dot after a slash can begin a dot segment.
            b'/' | b'.' => before != b'/',
            b'%' | b'\\' | b';' => false,
            _ => b.is_ascii_graphic(),
        };
        before = b;
        is_plain
    })
}

/// Decodes the characters that need no encoding, in one pass.
fn unescape(raw: &str) -> Result<String, PathProblem> {
    let mut out = Vec::with_capacity(raw.len());
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.as_bytes();
    while let Some((&first, rest)) = bytes.split_first() {
        let (byte, is_encoded) = match first {
            b'%' => (escape(rest).ok_or(PathProblem::BadEscape)?, true),
            _ => (first, false),
        };
        bytes = if is_encoded { &rest[2..] } else { rest };
        match byte {
            b'/' if is_encoded => return Err(PathProblem::HiddenSeparator),
            b'\\' if is_encoded => return Err(PathProblem::HiddenSeparator),
            b'\\' => return Err(PathProblem::Backslash),
            b';' => return Err(PathProblem::Semicolon),
            0..=0x1f | 0x7f => return Err(PathProblem::Control),
            b'%' if escape(bytes).is_some() => return Err(PathProblem::EncodedTwice),
            0x80.. if !is_encoded => return Err(PathProblem::NotText),
            _ => {}
        }
        decoded.push(byte);
        let is_unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if is_unreserved || !is_encoded {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    // Overlong forms and incomplete characters are not UTF-8. The loop above does not see control
    // characters of two bytes.
    let decoded = std::str::from_utf8(&decoded).map_err(|_| PathProblem::NotText)?;
    if decoded.chars().any(char::is_control) {
        return Err(PathProblem::Control);
    }
    Ok(String::from_utf8(out).expect("all bytes that are not ASCII have been encoded"))
}

/// The byte that a percent-encoding stands for. `digits` begins after the percent sign.
fn escape(digits: &[u8]) -> Option<u8> {
    let value = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(value(*digits.first()?)? << 4 | value(*digits.get(1)?)?)
}

fn digit(value: u8) -> u8 {
    b"0123456789ABCDEF"[usize::from(value)]
}

/// Removes empty segments and dot segments (RFC 3986, section 5.2.4).
fn resolve(path: &str) -> Result<String, PathProblem> {
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop().ok_or(PathProblem::AboveRoot)?),
            _ => segments.push(segment),
        }
    }
    let ends_in_folder = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    let slash = if ends_in_folder && !segments.is_empty() { "/" } else { "" };
    Ok(format!("/{}{slash}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_brought_into_their_normal_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/", "/a/"),
            ("//a//b", "/a/b"),
            ("/./a/./b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/%2e/a", "/a"),
            ("/x/%2E%2e/a", "/a"),
            ("/%61%7E", "/a~"),
            ("/a%20b", "/a%20b"),
            ("/a%3ab", "/a%3Ab"),
            ("/%c3%bc", "/%C3%BC"),
            ("/a.b/.c", "/a.b/.c"),
            ("/...", "/..."),
            ("/100%25", "/100%25"),
            ("/100%25zz", "/100%25zz"),
        ] {
            assert_eq!(normalise(raw).as_deref(), Ok(normal), "{raw}");
        }
        assert!(matches!(normalise("/user/1"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn ambiguous_paths_are_rejected() {
        use PathProblem::*;
        for (raw, problem) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a", NotAbsolute),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%zz", BadEscape),
            ("/%u0031", BadEscape),
            ("/a%2fb", HiddenSeparator),
            ("/a%5Cb", HiddenSeparator),
            ("/a\\b", Backslash),
            ("/a;b", Semicolon),
            ("/a%3bb", Semicolon),
            ("/a%00", Control),
            ("/a%0d%0a", Control),
            ("/a\0", Control),
            ("/a%7f", Control),
            ("/%c2%85", Control),
            ("/%2531", EncodedTwice),
            ("/%252e%252e/", EncodedTwice),
            ("/%c0%af", NotText),
            ("/%ff", NotText),
            ("/ü", NotText),
            ("/..", AboveRoot),
            ("/a/../..", AboveRoot),
            ("/%2e%2e/a", AboveRoot),
        ] {
            assert_eq!(normalise(raw), Err(problem), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_path_in_normal_form_is_unchanged(raw in "/([a.%/;\\\\é2Ee5fF \u{0}]|%[0-9a-fA-F]{2}){0,12}") {
            if let Ok(normal) = normalise(&raw) {
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal), "{}", raw);
                let padded = format!("{normal}/");
                for odd in ["//", "/./", "/../"] {
                    prop_assert!(!padded.trim_end_matches('/').contains(odd), "{normal}");
                }
                for odd in ["%2e", "%2E", "%2f", "%2F", "%5c", "%5C", ";", "\\", "%00"] {
                    prop_assert!(!normal.contains(odd), "{normal}");
                }
            }
        }
    }
}
