//! Ids: a key's public id, and the format of the ids that people choose.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use super::Violation;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Writes `value` in base 62 into `out`, padded with zeros on the left.
pub(super) fn base62(mut value: u64, out: &mut [u8]) {
    for slot in out.iter_mut().rev() {
        *slot = BASE62[(value % 62) as usize];
        value /= 62;
    }
}

/// The digit for a random byte. `None` means that the caller must draw another byte: 256 is not a
/// multiple of 62, so the eight highest bytes would make some digits more likely than others.
pub(super) fn digit(random: u8) -> Option<u8> {
    (random < 248).then(|| BASE62[usize::from(random % 62)])
}

/// A key's public id: eight base62 digits, stored as a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// The number of possible ids: 62⁸.
    pub const COUNT: u64 = 62u64.pow(8);

    /// The id with this number, modulo [`KeyId::COUNT`].
    pub fn from_number(number: u64) -> Self {
        Self(number % Self::COUNT)
    }

    /// The id as a number, less than [`KeyId::COUNT`].
    pub fn number(self) -> u64 {
        self.0
    }

    /// The eight digits, in ASCII.
    pub fn digits(self) -> [u8; 8] {
        let mut out = [0; 8];
        base62(self.0, &mut out);
        out
    }

    /// Parses exactly eight base62 digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 8 {
            return None;
        }
        number(text.as_bytes()).map(Self)
    }
}

/// The value of each byte as a base62 digit, or [`NO_DIGIT`].
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut index = 0;
    while index < BASE62.len() {
        values[BASE62[index] as usize] = index as u8;
        index += 1;
    }
    values
};
/// A bit that is set in no digit's value.
const NO_DIGIT: u8 = 0x80;

/// Whether all of these bytes are base62 digits.
pub(super) fn is_base62(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |bits, byte| bits | DIGIT_VALUES[usize::from(*byte)]) & NO_DIGIT == 0
}

/// The value of at most ten base62 digits. `None` means that a byte is not a digit.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, byte: &u8| number * 62 + u64::from(DIGIT_VALUES[usize::from(*byte)]);
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

/// Deserialises a value from text without a copy of the text, because a server that starts parses
/// millions of values. `what` is the error message: it describes the expected text.
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

/// Checks the id of a role, an application or a resource: 1 to 64 characters of `a-z 0-9 _ . -`,
/// beginning with a letter or a digit.
pub fn check_id(location: &str, id: &str) -> Result<(), Violation> {
    let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
    let has_valid_start =
        id.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if id.starts_with("keyward.") {
        return Err(Violation::new(
            location,
            "Ids that begin with keyward. are reserved for the program.",
            "Choose another id.",
        ));
    }
    if has_valid_start && id.len() <= 64 && id.bytes().all(is_allowed) {
        return Ok(());
    }
    Err(Violation::new(
        location,
        format!("{id:?} cannot be an id."),
        "Use 1 to 64 characters of a-z, 0-9, _ . - and begin with a letter or a digit.",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_id_round_trips() {
        for number in [0, 1, 61, 62, KeyId::COUNT - 1] {
            let id = KeyId::from_number(number);
            assert_eq!(KeyId::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "1234567", "123456789", "1234567-", "1234567é"] {
            assert_eq!(KeyId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_ids_in_the_documented_format_are_accepted() {
        for good in ["a", "entity.user", "0", "tenant_7-x"] {
            assert!(check_id("id", good).is_ok(), "{good}");
        }
        for bad in ["", "A", ".a", "_x", "a b", "a/b", "é", &"a".repeat(65)] {
            assert!(check_id("id", bad).is_err(), "{bad}");
        }
    }
}
