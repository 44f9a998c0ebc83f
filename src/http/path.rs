//! Brings paths into one normal form before routing, so that the path that is checked is also the
//! path that is served and forwarded.
//!
//! An ambiguous path is rejected, because a server behind this server may interpret the path in
//! another way.

use std::{borrow::Cow, ops::Deref};

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
    #[error("The path contains a dot segment beside an encoded slash or a semicolon.")]
    HiddenDots,
    #[error("The path can also be read as a path that is guarded more strictly.")]
    OtherReading,
}

/// A path in its normal form. Derefs to the text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NormalPath<'a> {
    text: Cow<'a, str>,
    kept: Kept,
}

/// The ambiguous characters of a path in its normal form. Only a resource that keeps them may get
/// such a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// An encoded slash, as `%2F`.
    pub encoded_slash: bool,
    /// A semicolon, as `;` or `%3B`.
    pub semicolon: bool,
}

impl Kept {
    pub const NONE: Self = Self { encoded_slash: false, semicolon: false };

    /// The problem of a path for a resource that keeps only the characters in `allowed`.
    pub fn check(self, allowed: Self) -> Result<(), PathProblem> {
        if self.encoded_slash && !allowed.encoded_slash {
            return Err(PathProblem::HiddenSeparator);
        }
        if self.semicolon && !allowed.semicolon {
            return Err(PathProblem::Semicolon);
        }
        Ok(())
    }
}

impl NormalPath<'_> {
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// The text, if the client sent another text.
    pub fn into_changed(self) -> Option<String> {
        match self.text {
            Cow::Borrowed(_) => None,
            Cow::Owned(text) => Some(text),
        }
    }
}

impl Deref for NormalPath<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// The normal form of a path: no unreserved character is percent-encoded, all percent-encodings
/// have upper-case digits (RFC 3986, section 6.2.2), and there are no empty segments and no dot
/// segments. An encoded slash and a semicolon stay as they are, for [`Kept::check`].
pub(crate) fn normalise(raw: &str) -> Result<NormalPath<'_>, PathProblem> {
    if !raw.starts_with('/') {
        return Err(PathProblem::NotAbsolute);
    }
    if is_normal(raw) {
        return Ok(NormalPath { text: Cow::Borrowed(raw), kept: Kept::NONE });
    }
    let (path, kept) = unescape(raw)?;
    let path = resolve(&path)?;
    if kept != Kept::NONE && hides_dots(&path) {
        return Err(PathProblem::HiddenDots);
    }
    Ok(NormalPath { text: Cow::Owned(path), kept })
}

/// Whether a program that decodes an encoded slash, or removes a semicolon with the text behind it,
/// would find a dot segment.
fn hides_dots(path: &str) -> bool {
    let is_dots = |part: &str| [".", ".."].contains(&without_parameters(part));
    path.split('/').any(|segment| segment.split("%2F").any(is_dots))
}

/// A segment without its parameters (RFC 3986, section 3.3).
fn without_parameters(segment: &str) -> &str {
    let end = segment.find(';').into_iter().chain(segment.find("%3B")).min();
    &segment[..end.unwrap_or(segment.len())]
}

/// The other paths that programs may read in a path with kept characters.
pub(crate) fn other_readings(path: &NormalPath<'_>) -> Vec<String> {
    let Kept { encoded_slash, semicolon } = path.kept;
    let mut readings = Vec::new();
    for (decodes, removes) in [(true, false), (false, true), (true, true)] {
        if (decodes && !encoded_slash) || (removes && !semicolon) {
            continue;
        }
        let decoded = if decodes { path.replace("%2F", "/") } else { (**path).to_owned() };
        let segment = |segment| if removes { without_parameters(segment) } else { segment };
        let read = decoded.split('/').map(segment).collect::<Vec<_>>().join("/");
        // The normal form hides no dot segments, so this does not fail.
        readings.extend(resolve(&read));
    }
    readings
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
fn unescape(raw: &str) -> Result<(String, Kept), PathProblem> {
    let mut kept = Kept::NONE;
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
            b'/' if is_encoded => kept.encoded_slash = true,
            b'\\' if is_encoded => return Err(PathProblem::HiddenSeparator),
            b'\\' => return Err(PathProblem::Backslash),
            b';' => kept.semicolon = true,
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
    let out = String::from_utf8(out).expect("all bytes that are not ASCII have been encoded");
    Ok((out, kept))
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

    /// The normal form for a resource that keeps no ambiguous characters.
    fn checked(raw: &str) -> Result<String, PathProblem> {
        let path = normalise(raw)?;
        path.kept().check(Kept::NONE)?;
        Ok(path.to_string())
    }

    #[test]
    fn kept_characters_have_one_spelling_and_hide_no_dot_segments() {
        for (raw, normal, readings) in [
            ("/a%2fb", "/a%2Fb", ["/a/b"].as_slice()),
            ("//x/../%61%2Fb/", "/a%2Fb/", &["/a/b/"]),
            ("/a%2f%2fb", "/a%2F%2Fb", &["/a/b"]),
            ("/a;b=c/d", "/a;b=c/d", &["/a/d"]),
            ("/a%3bb", "/a%3Bb", &["/a"]),
            ("/;x/a", "/;x/a", &["/a"]),
            ("/a;x%2fb", "/a;x%2Fb", &["/a;x/b", "/a", "/a/b"]),
        ] {
            let path = normalise(raw).unwrap();
            assert_eq!(&*path, normal, "{raw}");
            assert_eq!(other_readings(&path), readings, "{raw}");
            assert_eq!(normalise(&path).as_deref(), Ok(normal), "{raw}");
        }
        for raw in
            ["/a/..%2fb", "/a%2f../b", "/a%2f%2e%2e", "/a/..;/b", "/.;x", "/..%3bx", "/a%2f.;x"]
        {
            assert_eq!(normalise(raw), Err(PathProblem::HiddenDots), "{raw}");
        }
    }

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
            assert_eq!(checked(raw).as_deref(), Ok(normal), "{raw}");
        }
        assert!(matches!(normalise("/user/1").unwrap().text, Cow::Borrowed(_)));
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
            assert_eq!(checked(raw), Err(problem), "{raw}");
        }
    }

    proptest! {
        #[test]
        fn a_path_in_normal_form_is_unchanged(raw in "/([a.%/;\\\\é2Ee5fF \u{0}]|%[0-9a-fA-F]{2}){0,12}") {
            if let Ok(normal) = normalise(&raw) {
                let again = normalise(&normal);
                prop_assert_eq!(again.as_deref(), Ok(&*normal), "{}", raw);
            }
            if let Ok(normal) = checked(&raw) {
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
