//! Recognizes values that cannot be the text of a key: digests of other systems, and cells that a
//! spreadsheet has changed.

use crate::accounts::DigestFormat;

/// The minimum length of a key's text, in bytes. Shorter texts can be guessed.
const MIN_LENGTH: usize = 8;
/// The maximum length of a key's text, in bytes.
const MAX_LENGTH: usize = 512;
/// The correction for a key whose text is not the original text.
const NEW_KEY: &str = "Remove the row, and give the user a new key.";
const EXPORT_AGAIN: &str =
    "Export the keys again without a spreadsheet, or give the user a new key.";

/// A kind of digest that a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LikelyDigest {
    /// The name in messages.
    pub name: &'static str,
    /// The option `--digest` that imports keys of this kind. `None` means that they cannot be
    /// imported.
    pub option: Option<&'static str>,
}

/// The beginnings of digests that are slow to check. They are compared without regard to case.
const PREFIXES: &[(&str, &str, Option<&str>)] = &[
    ("$2a$", "bcrypt", Some("bcrypt")),
    ("$2b$", "bcrypt", Some("bcrypt")),
    ("$2x$", "bcrypt", None),
    ("$2y$", "bcrypt", Some("bcrypt")),
    ("$argon2", "Argon2", Some("argon2")),
    ("$apr1$", "MD5-crypt", None),
    ("$1$", "MD5-crypt", None),
    ("$5$", "SHA-crypt", None),
    ("$6$", "SHA-crypt", None),
    ("$7$", "scrypt", None),
    ("$gy$", "yescrypt", None),
    ("$h$", "phpass", None),
    ("$md5", "MD5-crypt", None),
    ("$p$", "phpass", None),
    ("$pbkdf2", "PBKDF2", None),
    ("$s$", "Drupal", None),
    ("$scrypt$", "scrypt", None),
    ("$y$", "yescrypt", None),
    ("argon2$", "Argon2", None),
    ("bcrypt$", "bcrypt", None),
    ("bcrypt_sha256$", "bcrypt", None),
    ("md5$", "MD5", None),
    ("pbkdf2", "PBKDF2", None),
    ("scrypt:", "scrypt", None),
    ("scrypt$", "scrypt", None),
    ("sha1$", "SHA-1", None),
    ("sha256$", "SHA-256", None),
    ("sha512$", "SHA-512", None),
    ("u$h$", "Drupal", None),
    ("u$p$", "Drupal", None),
    ("u$s$", "Drupal", None),
    ("{argon2", "Argon2", None),
    ("{crypt}", "crypt", None),
    ("{md5}", "MD5", None),
    ("{pbkdf2", "PBKDF2", None),
    ("{sha", "SHA", None),
    ("{smd5}", "MD5", None),
    ("{ssha", "SHA", None),
    ("{x-", "crypt", None),
];

/// The kind of digest that a value looks like. `None` means that the value does not look like a
/// digest. Digests in 32 hexadecimal digits are not recognized, because keys of Drupal's module
/// look like that.
pub(crate) fn likely_digest(text: &str) -> Option<LikelyDigest> {
    let starts_with = |prefix: &str| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    if let Some((_, name, option)) = PREFIXES.iter().find(|(prefix, ..)| starts_with(prefix)) {
        return Some(LikelyDigest { name, option: *option });
    }
    if DigestFormat::detect(text).is_some() {
        return Some(LikelyDigest { name: "password", option: None });
    }
    let digits = match text.strip_prefix('*') {
        // MySQL writes an asterisk before its digests.
        Some(digits) if digits.len() == 40 => digits,
        _ => text,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    match digits.len() {
        40 => Some(LikelyDigest { name: "SHA-1", option: None }),
        64 => Some(LikelyDigest { name: "SHA-256", option: Some("sha256") }),
        128 => Some(LikelyDigest { name: "SHA-512", option: None }),
        _ => None,
    }
}

/// The message and the correction for a text that cannot be a key. `None` means that the text can
/// be a key.
pub(super) fn key_problem(text: &str) -> Option<(String, &'static str)> {
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&text.len()) || text.chars().any(char::is_control) {
        let message = format!("A key has {MIN_LENGTH} to {MAX_LENGTH} bytes of text on one line.");
        return Some((message, NEW_KEY));
    }
    if let Some(damage) = spreadsheet_damage(text) {
        return Some((format!("{damage} The original key is lost."), EXPORT_AGAIN));
    }
    has_invisible_characters(text).then(|| {
        ("The key contains a character that cannot be seen.".to_owned(), "Copy the key again.")
    })
}

/// How a spreadsheet has changed a cell. `None` means that the text looks unchanged. A lost leading
/// zero cannot be seen.
pub(super) fn spreadsheet_damage(text: &str) -> Option<&'static str> {
    if is_formula(text) {
        return Some("This is a formula of a spreadsheet.");
    }
    if text.starts_with('#') && (text.ends_with(['!', '?', '#']) || text == "#N/A") {
        return Some("This is an error of a spreadsheet.");
    }
    if is_scientific(text) {
        return Some("A spreadsheet has rounded this number.");
    }
    if is_whole_with_fraction(text) {
        return Some("A spreadsheet has added a fraction to this number.");
    }
    None
}

fn is_formula(text: &str) -> bool {
    let is_call = || text.contains('(') && text.ends_with(')');
    text.starts_with('=') || text.starts_with(['+', '-', '@']) && is_call()
}

/// Whether a text is a number such as `1.23457E+15`, `1,23E+15` or `1.23457E15`.
fn is_scientific(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some((mantissa, exponent)) = unsigned.split_once(['e', 'E']) else { return false };
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let (whole, fraction) = mantissa.split_once(['.', ',']).unwrap_or((mantissa, ""));
    // Without a sign and a fraction, the text may be hexadecimal digits.
    let is_marked = digits != exponent || mantissa.contains(['.', ',']);
    is_marked && are_digits(whole) && are_digits(digits) && fraction.bytes().all(is_digit)
}

/// Whether a text is a whole number with a fraction of zeros, such as `1234567890.0`.
fn is_whole_with_fraction(text: &str) -> bool {
    text.split_once(['.', ',']).is_some_and(|(whole, fraction)| {
        are_digits(whole) && !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0')
    })
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_digit)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// Whether a text contains characters that cannot be seen, such as a zero-width space, a direction
/// mark or a no-break space. Documents and chats add them to copied text.
fn has_invisible_characters(text: &str) -> bool {
    text.chars().any(|c| {
        matches!(u32::from(c),
            0x80..=0xA0 | 0xAD | 0x61C | 0x180E | 0x2000..=0x200F | 0x2028..=0x202F
            | 0x205F..=0x206F | 0x3000 | 0xFEFF | 0xFFF9..=0xFFFD)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_other_systems_are_recognized() {
        let hex = |count: usize| "0123456789abcdef".repeat(count / 16 + 1)[..count].to_owned();
        for (text, name, option) in [
            (hex(64), "SHA-256", Some("sha256")),
            (hex(64).to_uppercase(), "SHA-256", Some("sha256")),
            (hex(40), "SHA-1", None),
            (format!("*{}", hex(40).to_uppercase()), "SHA-1", None),
            (hex(128), "SHA-512", None),
            ("$2y$10$abcdefghijklmnopqrstuu".into(), "bcrypt", Some("bcrypt")),
            ("$2a$10$x".into(), "bcrypt", Some("bcrypt")),
            ("$2b$10$x".into(), "bcrypt", Some("bcrypt")),
            ("$argon2id$v=19$m=1,t=1,p=1$a$b".into(), "Argon2", Some("argon2")),
            ("$S$D123".into(), "Drupal", None),
            ("U$S$D123".into(), "Drupal", None),
            ("$H$9abc".into(), "phpass", None),
            ("$P$Babc".into(), "phpass", None),
            ("{SHA}abc=".into(), "SHA", None),
            ("{SSHA512}abc=".into(), "SHA", None),
            ("$apr1$a$b".into(), "MD5-crypt", None),
            ("$5$a$b".into(), "SHA-crypt", None),
            ("$6$a$b".into(), "SHA-crypt", None),
            ("pbkdf2_sha256$1000$a$b".into(), "PBKDF2", None),
            ("pbkdf2:sha256:1000$a$b".into(), "PBKDF2", None),
            ("$y$j9T$a$b".into(), "yescrypt", None),
        ] {
            assert_eq!(likely_digest(&text), Some(LikelyDigest { name, option }), "{text}");
        }
        for key in [
            "a-key-of-bobs",
            "kw_0123456789",
            "d41d8cd98f00b204e9800998ecf8427e",
            &hex(63),
            &hex(65),
            &format!("{}g", hex(63)),
            "$2",
            "",
        ] {
            assert_eq!(likely_digest(key), None, "{key}");
        }
    }

    #[test]
    fn cells_that_a_spreadsheet_changed_are_recognized() {
        for damaged in [
            "1.23457E+15",
            "1,23E+15",
            "1E+21",
            "1e-07",
            "-1.5E+10",
            "1.23457E15",
            "1234567890.0",
            "12345678,00",
            "=A1&B1",
            "=\"0123\"",
            "+SUM(A1:A2)",
            "@CONCAT(A1)",
            "#N/A",
            "#REF!",
            "#NAME?",
            "########",
        ] {
            assert!(spreadsheet_damage(damaged).is_some(), "{damaged}");
        }
        for key in [
            "1234567890123456",
            "00123456",
            "1234e5678",
            "12345678.5",
            "1.2.3",
            "+abc/def=",
            "-abc_def",
            "#hashtag",
            "12345678.",
            "E+15",
            "",
        ] {
            assert_eq!(spreadsheet_damage(key), None, "{key}");
        }
    }

    #[test]
    fn characters_that_cannot_be_seen_are_found() {
        for text in ["a\u{200B}b", "a\u{A0}", "\u{FEFF}a", "a\u{202E}b", "a\u{AD}b"] {
            assert!(has_invisible_characters(text), "{text:?}");
        }
        assert!(!has_invisible_characters("schlüssel-日本"));
    }
}
