//! The text of a key: `kw_<8 base62: id>_<30 base62: secret><6 base62: CRC32>`.
//!
//! The format follows GitHub's tokens: scanners find the prefix, and the checksum tells a typing
//! error from a wrong key without a look-up. The CRC32 (ISO-HDLC, as in zlib) covers all
//! characters before the checksum.

use crate::model::{
    Entropy, KeyId, Secret, Violation,
    ids::{base62, digit, is_base62, number},
};

/// The maximum length of a prefix, in bytes.
pub const MAX_PREFIX: usize = 16;
/// The length of the id, in characters.
pub(in crate::model) const ID: usize = 8;
/// The length of the secret, in characters.
pub(in crate::model) const SECRET: usize = 30;
/// The length of the checksum, in characters.
pub(in crate::model) const CHECK: usize = 6;
/// The length of a key after its prefix: `_`, the id, `_`, the secret and the checksum.
const TAIL: usize = 1 + ID + 1 + SECRET + CHECK;

/// The text of a new key. Keyward shows the text once and does not store it.
#[derive(Debug, Clone)]
pub struct KeyText {
    /// The public id, which is also part of the text.
    pub id: KeyId,
    /// The whole text.
    pub text: Secret,
}

/// The format of a presented text, known before any look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyShape {
    /// Keyward's format with a valid checksum.
    Ours(KeyId),
    /// Keyward's format with a wrong checksum. The key was mistyped, truncated or invented.
    Damaged,
    /// Any other text: another system's key, or no key at all.
    Foreign,
}

impl KeyText {
    /// Generates a key whose secret has about 178 random bits.
    pub fn generate(prefix: &str, entropy: &Entropy) -> Self {
        Self::with_id(prefix, KeyId::from_number(u64::from_le_bytes(entropy.bytes())), entropy)
    }

    /// Generates a key with a given id.
    pub fn with_id(prefix: &str, id: KeyId, entropy: &Entropy) -> Self {
        let mut text = String::with_capacity(prefix.len() + 2 + ID + SECRET + CHECK);
        text.push_str(prefix);
        text.push('_');
        text.push_str(&id.to_string());
        text.push('_');
        let mut missing = SECRET;
        while missing > 0 {
            let random: [u8; 32] = entropy.bytes();
            for digit in random.into_iter().filter_map(digit).take(missing) {
                text.push(char::from(digit));
                missing -= 1;
            }
        }
        let check = checksum(&text);
        text.push_str(std::str::from_utf8(&check).expect("base62 is ASCII"));
        Self { id, text: Secret::new(text) }
    }

    /// The last four characters, which a listing may show.
    pub fn last_four(&self) -> &str {
        let text = self.text.expose();
        &text[text.len() - 4..]
    }

    /// The format of `text`.
    pub fn shape(text: &str) -> KeyShape {
        Self::parse(text).unwrap_or(KeyShape::Foreign)
    }

    /// Parses the text from its end, because all parts after the prefix have fixed lengths. `None`
    /// means that the text does not have Keyward's format.
    fn parse(text: &str) -> Option<KeyShape> {
        let (prefix, rest) = text.as_bytes().split_at_checked(text.len().checked_sub(TAIL)?)?;
        let (id, secret) = rest.strip_prefix(b"_")?.split_at_checked(ID)?;
        let secret = secret.strip_prefix(b"_")?;
        if !is_prefix(prefix) || !is_base62(secret) {
            return None;
        }
        let id = KeyId::from_number(number(id)?);
        let body = &text.as_bytes()[..text.len() - CHECK];
        let is_intact = number(&secret[SECRET..])? == u64::from(crc32fast::hash(body));
        Some(if is_intact { KeyShape::Ours(id) } else { KeyShape::Damaged })
    }
}

fn checksum(body: &str) -> [u8; CHECK] {
    let mut out = [0; CHECK];
    base62(u64::from(crc32fast::hash(body.as_bytes())), &mut out);
    out
}

/// Checks a prefix: 1 to 16 characters of `a-z 0-9`, of which the first is a letter.
pub(in crate::model) fn check_prefix(location: &str, prefix: &str) -> Result<(), Violation> {
    if is_prefix(prefix.as_bytes()) {
        return Ok(());
    }
    Err(Violation::new(
        location,
        format!("{prefix:?} cannot be the prefix of a key."),
        "Use 1 to 16 characters of a-z and 0-9, and begin with a letter.",
    ))
}

fn is_prefix(text: &[u8]) -> bool {
    let is_allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= MAX_PREFIX
        && text.first().is_some_and(u8::is_ascii_lowercase)
        && text.iter().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_has_the_documented_format() {
        let key = KeyText::generate("kw", &Entropy::seeded(1));
        let text = key.text.expose();
        assert_eq!(text.len(), 2 + 1 + 8 + 1 + 30 + 6);
        assert!(text.starts_with(&format!("kw_{}_", key.id)));
        assert_eq!(KeyText::shape(text), KeyShape::Ours(key.id));
        assert_ne!(
            KeyText::generate("kw", &Entropy::system()).text.expose(),
            KeyText::generate("kw", &Entropy::system()).text.expose()
        );
    }

    #[test]
    fn checksum_detects_one_wrong_character() {
        let key = KeyText::generate("kw", &Entropy::seeded(2));
        let text = key.text.expose();
        for index in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[index] = if bytes[index] == b'x' { b'y' } else { b'x' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(!matches!(KeyText::shape(&changed), KeyShape::Ours(_)), "{changed}");
        }
    }

    #[test]
    fn other_texts_are_foreign() {
        for text in [
            "",
            "_",
            "__",
            "kw_",
            "secret",
            "kw_12345678_short",
            "KW_12345678_",
            "käy_12345678_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
            "kw_1234567é_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
        ] {
            assert_eq!(KeyText::shape(text), KeyShape::Foreign, "{text}");
        }
        assert_eq!(
            KeyText::shape("kw_12345678_abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"),
            KeyShape::Damaged
        );
    }
}
