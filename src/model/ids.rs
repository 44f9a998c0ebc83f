//! The names of things: a key's public id, and the form of the ids that people choose.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::Violation;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes `value` in base 62, right-aligned and padded with zeros, over the whole of `out`.
pub(super) fn base62(mut value: u64, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = BASE62[(value % 62) as usize];
        value /= 62;
    }
}

/// The digit of a random byte, or none for a byte that would make some digits likelier than others.
pub(super) fn digit(random: u8) -> Option<u8> {
    (random < 248).then(|| BASE62[usize::from(random % 62)])
}

/// A key's public id: eight base62 digits, held as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// How many ids there are: 62⁸.
    pub const COUNT: u64 = 62u64.pow(8);

    /// The id of this number, wrapped into the ids there are.
    pub fn from_number(number: u64) -> Self {
        Self(number % Self::COUNT)
    }

    /// The id as a number, less than [`KeyId::COUNT`].
    pub fn number(self) -> u64 {
        self.0
    }

    /// Its eight digits, in ASCII.
    pub fn digits(self) -> [u8; 8] {
        let mut out = [0; 8];
        base62(self.0, &mut out);
        out
    }

    /// Reads exactly eight base62 digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 8 {
            return None;
        }
        number(text.as_bytes()).map(Self)
    }
}

/// What each byte is worth as a base62 digit.
const WORTH: [u8; 256] = {
    let mut worth = [NO_DIGIT; 256];
    let mut at = 0;
    while at < BASE62.len() {
        worth[BASE62[at] as usize] = at as u8;
        at += 1;
    }
    worth
};
const NO_DIGIT: u8 = 0x80;

/// Whether all of these bytes are base62 digits.
pub(super) fn is_base62(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |seen, byte| seen | WORTH[usize::from(*byte)]) & NO_DIGIT == 0
}

/// The number that at most ten base62 digits write.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, byte: &u8| number * 62 + u64::from(WORTH[usize::from(*byte)]);
    is_base62(digits).then(|| digits.iter().fold(0, add))
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.digits()).expect("base62 is ASCII"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        from_text(deserializer, "a key id is eight letters and digits", Self::parse)
    }
}

/// Reads a value from its text, which is not copied: at a start there are millions. `what` says what the text has to be.
pub(super) fn from_text<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    what: &'static str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Text<R>(&'static str, R);
    impl<T, R: FnOnce(&str) -> Option<T>> Visitor<'_> for Text<R> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::custom(self.0))
        }
    }
    deserializer.deserialize_str(Text(what, read))
}

/// The form of an id that a person chooses for a role, an application or a resource:
/// 1 to 64 of `a-z 0-9 _ . -`, beginning with a letter or a digit.
pub fn check_id(location: &str, id: &str) -> Result<(), Violation> {
    let form = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let starts = id.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if id.starts_with("keyward.") {
        return Err(Violation::new(
            location,
            "Ids that begin with keyward. are the program's own.",
            "Choose another id.",
        ));
    }
    if starts && id.len() <= 64 && id.bytes().all(form) {
        return Ok(());
    }
    Err(Violation::new(
        location,
        format!("{id:?} cannot be an id."),
        "Use 1 to 64 of a-z, 0-9, _ . - and begin with a letter or a digit.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_read_as_it_is_written() {
        for number in [0, 1, 61, 62, KeyId::COUNT - 1] {
            let id = KeyId::from_number(number);
            assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "1234567", "123456789", "1234567-", "1234567é"] {
            assert_eq!(KeyId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_has_one_form() {
        for good in ["a", "entity.user", "0", "tenant_7-x"] {
            assert!(check_id("id", good).is_ok(), "{good}");
        }
        for bad in ["", "A", ".a", "_x", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(check_id("id", bad).is_err(), "{bad}");
        }
    }
}
