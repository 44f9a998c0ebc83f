//! The password digests of Drupal 7 to 10.0, and of phpass, which they are derived from.
//!
//! A digest is `$S$`, `$H$` or `$P$`, one digit for the binary logarithm of the number of rounds,
//! eight characters of salt, and the digest in 43 or 22 digits. `$S$` is SHA-512, cut to 55
//! characters (`includes/password.inc` of Drupal 7, `PhpassHashedPasswordBase.php` of Drupal 8).
//! `$H$` and `$P$` are MD5 (<https://www.openwall.com/phpass/>). A `U` in front means that the text
//! is not the password but its MD5 digest, from an update of Drupal 6. No maintained crate
//! implements these formats.

use md5::{Digest, Md5};
use sha2::Sha512;

use super::crypt64::{CRYPT64, MALFORMED, TOO_EXPENSIVE};

/// The minimum binary logarithm of the number of rounds, as in Drupal.
const MIN_LOG2: usize = 7;
/// The maximum binary logarithm of the number of rounds. Drupal's default is 15 or 16. Adding one
/// doubles the time.
const MAX_LOG2: usize = 19;
/// The length of the prefix, the digit of the rounds and the salt.
const SETTING: usize = 12;

/// The parts of a digest.
struct Parts<'a> {
    is_of_md5: bool,
    is_sha512: bool,
    log2: usize,
    salt: &'a [u8],
    sum: &'a [u8],
}

/// Whether a text begins like such a digest.
pub(super) fn is_likely(digest: &str) -> bool {
    let digest = digest.strip_prefix('U').unwrap_or(digest);
    ["$S$", "$H$", "$P$"].iter().any(|prefix| digest.starts_with(prefix))
}

/// Checks the syntax and the cost of a digest.
pub(super) fn validate(digest: &str) -> Result<(), &'static str> {
    match parse(digest) {
        Some(parts) if parts.log2 > MAX_LOG2 => Err(TOO_EXPENSIVE),
        Some(parts) if parts.log2 >= MIN_LOG2 => Ok(()),
        _ => Err(MALFORMED),
    }
}

/// Whether the digest was made of this text.
pub(super) fn matches(digest: &str, text: &[u8]) -> bool {
    if validate(digest).is_err() {
        return false;
    }
    let Some(parts) = parse(digest) else { return false };
    let md5;
    let text = if parts.is_of_md5 {
        md5 = hex::encode(Md5::digest(text));
        md5.as_bytes()
    } else {
        text
    };
    let computed = if parts.is_sha512 {
        stretch::<Sha512>(text, parts.salt, parts.log2)
    } else {
        stretch::<Md5>(text, parts.salt, parts.log2)
    };
    constant_time_eq::constant_time_eq(&computed.as_bytes()[..parts.sum.len()], parts.sum)
}

fn parse(digest: &str) -> Option<Parts<'_>> {
    let (is_of_md5, digest) = match digest.strip_prefix('U') {
        Some(rest) => (true, rest),
        None => (false, digest),
    };
    let is_sha512 = digest.starts_with("$S$");
    // Drupal has cut the digests of SHA-512 to 55 characters.
    let length = if is_sha512 { 55 } else { 34 };
    let bytes = digest.as_bytes();
    let is_complete =
        is_likely(digest) && bytes.len() == length && !digest.starts_with('U') && digest.is_ascii();
    if !is_complete || !bytes[SETTING..].iter().all(|byte| CRYPT64.contains(byte)) {
        return None;
    }
    let log2 = CRYPT64.iter().position(|digit| *digit == bytes[3])?;
    Some(Parts { is_of_md5, is_sha512, log2, salt: &bytes[4..SETTING], sum: &bytes[SETTING..] })
}

/// The digest of a text in 2^`log2` rounds, in crypt64 digits.
fn stretch<D: Digest>(text: &[u8], salt: &[u8], log2: usize) -> String {
    let mut sum = D::new().chain_update(salt).chain_update(text).finalize();
    for _ in 0..1_u32 << log2 {
        sum = D::new().chain_update(&sum).chain_update(text).finalize();
    }
    encode(&sum)
}

/// The crypt64 digits of bytes: each three bytes, the first the lowest, become four digits, the
/// lowest first.
fn encode(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for part in bytes.chunks(3) {
        let value = part.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        for digit in 0..=part.len() {
            digits.push(char::from(CRYPT64[(value >> (6 * digit) & 63) as usize]));
        }
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Public test vectors: the example hashes 400 and 7900 of hashcat, and the test of phpass.
    const SAMPLES: &[(&str, &str)] = &[
        ("hashcat", "$S$C33783772bRXEx1aCsvY.dqgaaSu76XmVlKrW9Qu8IQlvxHlmzLf"),
        ("hashcat", "$P$984478476IagS59wHZvyQMArzfx58u."),
        ("hashcat", "$H$984478476IagS59wHZvyQMArzfx58u."),
        ("test12345", "$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"),
    ];

    #[test]
    fn digest_matches_only_the_text_that_it_was_made_from() {
        for (text, digest) in SAMPLES {
            assert!(is_likely(digest));
            assert_eq!(validate(digest), Ok(()), "{digest}");
            assert!(matches(digest, text.as_bytes()), "{digest}");
            for other in ["", "Hashcat", "hashcat ", "test1234"] {
                assert!(!matches(digest, other.as_bytes()), "{digest} {other}");
            }
            for cut in 0..digest.len() {
                assert_eq!(validate(&digest[..cut]), Err(MALFORMED), "{digest} {cut}");
            }
            assert_eq!(validate(&format!("{digest}x")), Err(MALFORMED));
            assert_eq!(validate(&format!("UU{digest}")), Err(MALFORMED));
        }
    }

    #[test]
    fn digest_of_an_md5_digest_matches_the_password() {
        // An update of Drupal 6 computes the digest of the MD5 digest.
        let md5 = hex::encode(Md5::digest("old password"));
        let (text, salt) = (md5.as_bytes(), b"abcdefgh");
        for digest in [
            format!("U$S$5abcdefgh{}", &stretch::<Sha512>(text, salt, 7)[..43]),
            format!("U$P$5abcdefgh{}", stretch::<Md5>(text, salt, 7)),
        ] {
            assert_eq!(validate(&digest), Ok(()), "{digest}");
            assert!(matches(&digest, b"old password"), "{digest}");
            assert!(!matches(&digest[1..], b"old password"), "{digest}");
            assert!(!matches(&digest, b"other password"), "{digest}");
        }
    }

    #[test]
    fn number_of_rounds_is_limited() {
        let sample = SAMPLES[0].1;
        // The digit of a logarithm is a position in the alphabet.
        for (log2, expected) in
            [(6, Err(MALFORMED)), (7, Ok(())), (16, Ok(())), (19, Ok(())), (20, Err(TOO_EXPENSIVE))]
        {
            let digit = char::from(CRYPT64[log2]);
            let digest = format!("$S${digit}{}", &sample[4..]);
            assert_eq!(validate(&digest), expected, "{log2}");
        }
        assert_eq!(validate(&format!("$S$z{}", &sample[4..])), Err(TOO_EXPENSIVE));
        assert!(!matches(&format!("$S$z{}", &sample[4..]), b"hashcat"));
    }
}
