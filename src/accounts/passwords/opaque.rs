//! Prepares passwords for comparison: the profile OpaqueString of RFC 8265, section 4.2. Keyboards
//! and systems write the same letters in different code points.
//!
//! The profile's rules for spaces and for normalization are applied. No password is refused.

use std::borrow::Cow;

use crate::model::{Secret, compose};

/// The prepared password: unusual spaces become usual ones, and the text is composed (NFC).
pub(super) fn prepare(password: &str) -> Cow<'_, str> {
    if password.is_ascii() {
        return Cow::Borrowed(password);
    }
    let spaces: String =
        password.chars().map(|c| if is_unusual_space(c) { ' ' } else { c }).collect();
    Cow::Owned(compose(&spaces).into_owned())
}

/// The texts that a digest may have been made of: the prepared password and, if it differs, the
/// password as it was sent. Other systems, and older versions of Keyward, have hashed passwords as
/// they were sent.
pub(super) fn candidates(password: Secret) -> Vec<Secret> {
    let prepared = Secret::new(prepare(password.expose()).into_owned());
    if prepared.expose() == password.expose() { vec![password] } else { vec![prepared, password] }
}

/// Whether a character is a space outside of ASCII (general category Zs).
fn is_unusual_space(c: char) -> bool {
    matches!(
        c,
        '\u{A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_prepared_as_the_profile_says() {
        for (typed, prepared) in [
            ("correct horse", "correct horse"),
            ("Correct Horse", "Correct Horse"),
            ("pa\u{308}ss", "p\u{e4}ss"),
            ("p\u{e4}ss", "p\u{e4}ss"),
            ("foo\u{1680}bar\u{A0}x", "foo bar x"),
            // Neither case nor width is mapped.
            ("ｆＵ", "ｆＵ"),
            ("ﬁ", "ﬁ"),
        ] {
            assert_eq!(prepare(typed), prepared, "{typed:?}");
        }
    }

    #[test]
    fn password_is_also_tried_as_it_was_sent() {
        let texts = |password: &str| -> Vec<String> {
            candidates(Secret::new(password)).iter().map(|text| text.expose().to_owned()).collect()
        };
        assert_eq!(texts("pa\u{308}ss"), ["p\u{e4}ss", "pa\u{308}ss"]);
        assert_eq!(texts("p\u{e4}ss"), ["p\u{e4}ss"]);
        assert_eq!(texts("pass"), ["pass"]);
    }
}
