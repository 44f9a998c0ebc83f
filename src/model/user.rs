//! The user record, and the rules for its name and mail address.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Credits, PasswordDigest, RateLimit, Timestamp};

/// A person or machine that can authenticate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's number, which is never reused.
    pub uid: u64,
    /// The UUID, for other systems.
    pub uuid: Uuid,
    /// The name, which credentials contain. No two users have names that look alike
    /// ([`fold`](super::fold)).
    pub name: String,
    /// The mail address. No two users have addresses that look alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<String>,
    /// The first mail address of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// `true` means that the user is active, `false` that the user is blocked.
    pub status: bool,
    /// The ids of the user's roles, without duplicates and without `authenticated`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The digest of the password. `None` means the user cannot authenticate with a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordDigest>,
    /// The time of creation.
    pub created: Timestamp,
    /// The time of the last change.
    pub changed: Timestamp,
    /// The time of the last access. `0` means never.
    #[serde(default)]
    pub access: Timestamp,
    /// The time of the last login. `0` means never.
    #[serde(default)]
    pub login: Timestamp,
    /// The language of the record (BCP 47).
    pub langcode: String,
    /// The user's preferred language.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_langcode: Option<String>,
    /// The user's preferred language for administration pages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_admin_langcode: Option<String>,
    /// The time zone (IANA).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Attributes that scripts can read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// The rate limit of all the user's credentials together. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// The credits of all the user's credentials together. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credits: Option<Credits>,
}

/// The error message for an invalid name of a user. `None` means that the name is valid.
///
/// The rules and texts come from Drupal's `UserNameConstraint`.
pub fn name_problem(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("You must enter a username.".into());
    }
    if name.starts_with(' ') {
        return Some("The username cannot begin with a space.".into());
    }
    if name.ends_with(' ') {
        return Some("The username cannot end with a space.".into());
    }
    if name.contains("  ") {
        return Some("The username cannot contain multiple spaces in a row.".into());
    }
    if !name.chars().all(is_allowed_in_name) {
        return Some("The username contains an invalid character.".into());
    }
    if name.chars().count() > 60 {
        return Some(format!("The username {name} is too long: it must be 60 characters or less."));
    }
    None
}

/// Whether a user's name may contain this character.
fn is_allowed_in_name(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric() || " @+_.'-".contains(c);
    }
    // Invisible and confusable characters are not allowed: controls, unusual spaces, soft hyphen,
    // direction marks, byte order mark, full-width Latin, specials.
    !matches!(u32::from(c),
        0x80..=0xA0 | 0xAD | 0x2000..=0x200F | 0x2028..=0x202F | 0x205F..=0x206F | 0xFEFF
        | 0xFF01..=0xFF60 | 0xFFF9..=0xFFFD)
}

/// The error message for an invalid mail address. `None` means that the address is valid: a
/// dot-atom, an `@`, and the name of a host. Both may have letters of all scripts (RFC 6531).
pub fn mail_problem(mail: &str) -> Option<String> {
    let invalid = || Some("This value is not a valid email address.".to_owned());
    let Some((local, domain)) = mail.rsplit_once('@') else {
        return invalid();
    };
    let is_atom = |c: char| {
        if c.is_ascii() {
            c.is_ascii_alphanumeric() || "!#$%&'*+/=?^_`{|}~-".contains(c)
        } else {
            // The joiners are part of words in some scripts.
            is_allowed_in_name(c) || matches!(c, '\u{200C}' | '\u{200D}')
        }
    };
    let local_ok = local.len() <= 64
        && local.split('.').all(|part| !part.is_empty() && part.chars().all(is_atom));
    let is_label = |part: &str| {
        !part.is_empty()
            && part.len() <= 63
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    // The limits of the domain name system are those of the ASCII form.
    let ascii_domain = if domain.is_ascii() {
        Some(domain.to_owned())
    } else {
        idna::domain_to_ascii(domain).ok()
    };
    let domain_ok =
        ascii_domain.is_some_and(|name| name.len() <= 253 && name.split('.').all(is_label));
    if local_ok && domain_ok && mail.len() <= 254 { None } else { invalid() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules() {
        for good in ["a", "Llama", "a b", "O'Neil+x@y_z.-1", "Ünïcode", "日本"] {
            assert_eq!(name_problem(good), None, "{good}");
        }
        for (bad, says) in [
            ("", "You must enter a username."),
            (" a", "The username cannot begin with a space."),
            ("a ", "The username cannot end with a space."),
            ("a  b", "The username cannot contain multiple spaces in a row."),
            ("a:b", "The username contains an invalid character."),
            ("a\0", "The username contains an invalid character."),
            ("a\u{200B}b", "The username contains an invalid character."),
            ("a\u{FF21}b", "The username contains an invalid character."),
        ] {
            assert_eq!(name_problem(bad).as_deref(), Some(says), "{bad:?}");
        }
        assert_eq!(name_problem(&"é".repeat(60)), None);
        assert!(
            name_problem(&"é".repeat(61))
                .unwrap()
                .ends_with("is too long: it must be 60 characters or less.")
        );
    }

    #[test]
    fn mail_addresses_follow_the_rules() {
        for good in [
            "a@b",
            "a.b+c@example.com",
            "o'neil@x-y.example",
            "संपर्क@डाटामेल.भारत",
            "user@डाटामेल.भारत",
            "ทดสอบ้@ตัวอย่าง.ไทย",
            "jürgen@example.com",
            "ju\u{308}rgen@example.com",
            "用户@例子.公司",
            "שָׁלוֹם@דוגמה.קום",
        ] {
            assert_eq!(mail_problem(good), None, "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b..c",
            ".a@b",
            "a b@c",
            "a@-b",
            "a@b@c d",
            "a\u{A0}b@c",
            "a\u{200B}b@c",
            "a@b\u{200B}c d",
            "a@\u{301}b",
            "a\u{202E}@b",
        ] {
            assert!(mail_problem(bad).is_some(), "{bad}");
        }
    }
}
