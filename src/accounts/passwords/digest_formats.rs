//! Slow digests of other systems: detecting the format of a digest, validating its syntax and cost,
//! and comparing it with a text.
//!
//! The formats are the PHC strings of Argon2, `$2y$` of bcrypt, `$5$` and `$6$` of U. Drepper's
//! SHA-crypt, `$apr1$` and `{SHA}` of Apache's `htpasswd` files, and the digests of Drupal
//! ([`phpass`]).

use argon2::{
    Argon2, Params,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use super::{
    crypt64::{CRYPT64, MALFORMED, TOO_EXPENSIVE},
    phpass,
};
use crate::model::PasswordDigest;

/// The maximum memory of one check, in KiB.
const MAX_KIB: u32 = 128 * 1024;
/// The maximum number of passes of Argon2.
const MAX_PASSES: u32 = 16;
/// The maximum cost of bcrypt. Adding one to the cost doubles the time.
const MAX_COST: u32 = 14;
/// The maximum number of rounds of SHA-crypt, which is twenty times the default.
const MAX_ROUNDS: u32 = 100_000;
/// The maximum length in bytes of a text that is compared with a digest of another system. In some
/// formats the time of a check grows with the length.
const MAX_TEXT_LENGTH: usize = 256;
/// The maximum length of a digest, in bytes.
const MAX_DIGEST_LENGTH: usize = 512;

/// The algorithm of a password digest from another system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestFormat {
    /// Argon2i, Argon2d or Argon2id (RFC 9106).
    Argon2,
    /// bcrypt with the prefix `$2a$`, `$2b$` or `$2y$`. The prefix `$2x$` is not supported: it
    /// marks digests from a faulty PHP version.
    Bcrypt,
    /// SHA-crypt: SHA-256 or SHA-512 in many rounds.
    ShaCrypt,
    /// Apache's variant of MD5-crypt: MD5 in 1,000 rounds.
    Apr1,
    /// SHA-1 in one round, without salt.
    Sha1,
    /// The digests of Drupal 7 to 10.0 (`$S$`: SHA-512 in many rounds) and of phpass (`$H$` and
    /// `$P$`: MD5 in many rounds).
    Phpass,
}

impl DigestFormat {
    /// Detects the format of a digest by its prefix. `None` means that the format is not supported.
    pub fn detect(digest: &str) -> Option<Self> {
        const PREFIXES: [(&str, DigestFormat); 9] = [
            ("$argon2id$", DigestFormat::Argon2),
            ("$argon2i$", DigestFormat::Argon2),
            ("$argon2d$", DigestFormat::Argon2),
            ("$2a$", DigestFormat::Bcrypt),
            ("$2b$", DigestFormat::Bcrypt),
            ("$2y$", DigestFormat::Bcrypt),
            ("$5$", DigestFormat::ShaCrypt),
            ("$6$", DigestFormat::ShaCrypt),
            ("$apr1$", DigestFormat::Apr1),
        ];
        if digest.starts_with("{SHA}") {
            return Some(Self::Sha1);
        }
        if phpass::is_likely(digest) {
            return Some(Self::Phpass);
        }
        let found = PREFIXES.into_iter().find(|(prefix, _)| digest.starts_with(prefix));
        found.map(|(_, format)| format)
    }

    /// Parses a digest of this format. Rejects a malformed digest, and a digest whose check would
    /// cost too much.
    ///
    /// # Errors
    /// A message that does not contain any part of the digest.
    pub fn parse(self, digest: &str) -> Result<PasswordDigest, &'static str> {
        if digest.len() > MAX_DIGEST_LENGTH || Self::detect(digest) != Some(self) {
            return Err("This is not a digest in the chosen format.");
        }
        match self {
            Self::Argon2 => validate_argon2(digest),
            Self::Bcrypt => validate_bcrypt(digest),
            Self::ShaCrypt => validate_sha_crypt(digest),
            Self::Apr1 => parse_apr1(digest).map(|_| ()).ok_or(MALFORMED),
            Self::Sha1 => parse_sha1(digest).map(|_| ()).ok_or(MALFORMED),
            Self::Phpass => phpass::validate(digest),
        }?;
        Ok(PasswordDigest::new(digest))
    }

    /// Whether the digest was made of this text.
    pub(in crate::accounts) fn matches(self, digest: &str, text: &[u8]) -> bool {
        if self != Self::Argon2 && text.len() > MAX_TEXT_LENGTH {
            return false;
        }
        match self {
            Self::Argon2 => PasswordHash::new(digest)
                .is_ok_and(|hash| Argon2::default().verify_password(text, &hash).is_ok()),
            // bcrypt ignores all bytes after the first 72. The other system did the same.
            Self::Bcrypt => bcrypt::verify(text, digest).unwrap_or(false),
            Self::ShaCrypt => sha_crypt::ShaCrypt::default().verify_password(text, digest).is_ok(),
            Self::Apr1 => parse_apr1(digest).is_some_and(|(salt, expected)| {
                let computed = apr1(text, salt.as_bytes());
                constant_time_eq::constant_time_eq(computed.as_bytes(), expected)
            }),
            Self::Sha1 => parse_sha1(digest).is_some_and(|expected| {
                constant_time_eq::constant_time_eq(&Sha1::digest(text), &expected)
            }),
            Self::Phpass => phpass::matches(digest, text),
        }
    }
}

/// Whether a digest depends on every byte of `text`. The caller has already checked that the digest
/// matches `text`. A bcrypt digest depends only on the first 72 bytes, so it also matches other
/// texts that begin with the same 72 bytes.
pub(in crate::accounts) fn covers_whole_text(digest: &PasswordDigest, text: &str) -> bool {
    DigestFormat::detect(digest.phc()) != Some(DigestFormat::Bcrypt) || text.len() <= 72
}

fn validate_argon2(digest: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(digest).map_err(|_| MALFORMED)?;
    let params = Params::try_from(&hash).map_err(|_| MALFORMED)?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(MALFORMED);
    }
    if params.m_cost() > MAX_KIB || params.t_cost() > MAX_PASSES {
        return Err(TOO_EXPENSIVE);
    }
    Ok(())
}

fn validate_bcrypt(digest: &str) -> Result<(), &'static str> {
    let parts: bcrypt::HashParts = digest.parse().map_err(|_| MALFORMED)?;
    if parts.get_cost() > MAX_COST { Err(TOO_EXPENSIVE) } else { Ok(()) }
}

/// The syntax is `$5$[rounds=N$]salt$digest`. After `$5$` the digest has 43 characters, after `$6$`
/// it has 86.
fn validate_sha_crypt(digest: &str) -> Result<(), &'static str> {
    let mut fields: Vec<&str> = digest.split('$').skip(2).collect();
    if let Some(rounds) = fields.first().and_then(|field| field.strip_prefix("rounds=")) {
        match rounds.parse() {
            Ok(1000..=MAX_ROUNDS) => drop(fields.remove(0)),
            Ok(0..1000) | Err(_) => return Err(MALFORMED),
            Ok(_) => return Err(TOO_EXPENSIVE),
        }
    }
    let length = if digest.starts_with("$5$") { 43 } else { 86 };
    match fields[..] {
        [salt, sum] if is_crypt64(salt, 1..=16) && is_crypt64(sum, length..=length) => Ok(()),
        _ => Err(MALFORMED),
    }
}

fn is_crypt64(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| CRYPT64.contains(&byte))
}

/// The 20 bytes of the digest that follows `{SHA}`.
fn parse_sha1(digest: &str) -> Option<[u8; 20]> {
    STANDARD.decode(digest.strip_prefix("{SHA}")?).ok()?.try_into().ok()
}

/// Splits `$apr1$salt$digest` into the salt and the digest.
fn parse_apr1(digest: &str) -> Option<(&str, &[u8])> {
    let (salt, sum) = digest.strip_prefix("$apr1$")?.split_once('$')?;
    let is_complete = is_crypt64(salt, 1..=8) && is_crypt64(sum, 22..=22);
    is_complete.then_some((salt, sum.as_bytes()))
}

/// P.-H. Kamp's MD5-crypt with Apache's magic word, like `apr_md5_encode` of APR-util. No
/// maintained crate implements this algorithm.
fn apr1(text: &[u8], salt: &[u8]) -> String {
    let alternate = Md5::new().chain_update(text).chain_update(salt).chain_update(text).finalize();
    let mut first = Md5::new().chain_update(text).chain_update(b"$apr1$").chain_update(salt);
    for start in (0..text.len()).step_by(16) {
        first.update(&alternate[..(text.len() - start).min(16)]);
    }
    let mut length = text.len();
    while length > 0 {
        first.update(if length & 1 == 1 { &[0][..] } else { &text[..1] });
        length >>= 1;
    }
    let mut sum = first.finalize();
    for round in 0..1000 {
        let (before, after) = if round % 2 == 1 { (text, &sum[..]) } else { (&sum[..], text) };
        let mut next = Md5::new().chain_update(before);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(text);
        }
        sum = next.chain_update(after).finalize();
    }
    let mut written = String::with_capacity(22);
    let mut write = |high: u8, middle: u8, low: u8, digits: usize| {
        let mut value = u32::from(high) << 16 | u32::from(middle) << 8 | u32::from(low);
        for _ in 0..digits {
            written.push(char::from(CRYPT64[(value & 63) as usize]));
            value >>= 6;
        }
    };
    for index in 0..5 {
        let last = if index == 4 { 5 } else { index + 12 };
        write(sum[index], sum[index + 6], sum[last], 4);
    }
    write(0, 0, sum[11], 2);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sample is a text, a format, and the digest of the text in that format. The digests come
    /// from Apache's `htpasswd` 2.4 (options -nbm, -nbs, -nbB, -nb2, -nb5) and from
    /// `openssl passwd -apr1`.
    const SAMPLES: &[(&str, DigestFormat, &str)] = &[
        ("correct horse battery", DigestFormat::Apr1, "$apr1$0JAqnOUy$K8lA2YVi2uXHU.7iIBgF6/"),
        ("correct horse battery", DigestFormat::Sha1, "{SHA}mN7MYuzjmaIu0w1JDvMzvn/ec4U="),
        (
            "correct horse battery",
            DigestFormat::ShaCrypt,
            "$6$eGDhJKXCRwuOyO6t$2dwUocMWGcQ8QZABwt5MJbS5LIUGXFVwqHbD.UYcYQj8DLTL8ZfmCkRiI/rpGrq3mj/hBqJFSjKj0QhptqveK1",
        ),
        ("p", DigestFormat::Apr1, "$apr1$fuqGzRNW$4od7Q4sAnIMUKRBed9UJk/"),
        ("p", DigestFormat::Sha1, "{SHA}UWuXg/ylF+7L0dBk2i0WUxCxl1k="),
        (
            "p",
            DigestFormat::ShaCrypt,
            "$6$lxXMNDGq884nj.Pr$0fkeUT5uRx.Zt61Tyeikn5HNKDWJm2q6efwjvsifr19Pt4dFOqy4H6gV1hKcNPeADlo8NHPK.62OyJUqnq1G50",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            DigestFormat::Apr1,
            "$apr1$4fpxQJkO$w9ITqso3nyMTvuIP4SfVd/",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            DigestFormat::Sha1,
            "{SHA}lnlEW0QUq/M7pbZv3P5EdJCHf3g=",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            DigestFormat::ShaCrypt,
            "$6$cRf7qet5oIg1EKx3$hCMRte7ERRv9IH2QCCXI3xPIBC2X5IAvOkUJ5MUPEKdXTK9LIGgmstyKTehfDpQfRQFrqoMTHLKFSS9gMG69e0",
        ),
        ("pässwörd", DigestFormat::Apr1, "$apr1$a0Vd1.RL$VjCzbO8DMxfCEIfcwkyp./"),
        ("pässwörd", DigestFormat::Sha1, "{SHA}9Rfd8dMqES/xrVXGbRsSyzjn6Pc="),
        (
            "pässwörd",
            DigestFormat::ShaCrypt,
            "$6$zli3xr1pY88KbTZW$wZojhakueyXCnSd4J0n4CIgij33CgshIMf9lVtfBtj7VYo7zvi2UoaWwU3kfmWtuDdLsJfSy5AD39KfkiZoTS0",
        ),
        (
            "correct horse battery",
            DigestFormat::ShaCrypt,
            "$5$jm5ASZIaZBDCkZWQ$V5N1lZiUPNGaS6paccwPEFNbTA4pfcyb7Fyd21ZFvQ.",
        ),
        (
            "correct horse battery",
            DigestFormat::ShaCrypt,
            "$5$rounds=7000$ANWn5JQGKaozQ1jL$ub2Ax.8xdvDbzxq2pmaAOfRDSXmxW1J12cWSVc/cUoC",
        ),
        (
            "correct horse battery",
            DigestFormat::Bcrypt,
            "$2y$05$dJ85Pz.3ei.jVyvuZxjzNeXjlO1L2PIjp9clh2.NGkwJ4r6xnujUy",
        ),
        (
            "pässwörd",
            DigestFormat::Bcrypt,
            "$2y$05$TKjZcRO1iuw/uTRnxTY/KOOmyQ.Bt5eT19foRwjdTmLf/ih/Jsu1q",
        ),
        ("correct horse battery", DigestFormat::Apr1, "$apr1$ab$oxgQF74Ii96vKJ6O26uvN/"),
    ];

    #[test]
    fn digest_matches_only_the_text_that_it_was_made_from() {
        for (text, format, digest) in SAMPLES {
            assert_eq!(DigestFormat::detect(digest), Some(*format), "{digest}");
            assert_eq!(format.parse(digest).unwrap().phc(), *digest);
            assert!(format.matches(digest, text.as_bytes()), "{digest}");
            for other in ["", "x", &text[1..], &format!("{text}x")] {
                // bcrypt ignores all bytes after the first 72.
                let is_cut =
                    *format == DigestFormat::Bcrypt && text.len() >= 72 && other.len() > 72;
                assert!(is_cut || !format.matches(digest, other.as_bytes()), "{digest} {other}");
            }
            for cut in 0..digest.len() {
                let part = &digest[..cut];
                assert!(format.parse(part).is_err(), "{part}");
                assert!(!format.matches(part, text.as_bytes()), "{part}");
            }
        }
    }

    #[test]
    fn text_above_the_maximum_length_does_not_match() {
        let long = "x".repeat(MAX_TEXT_LENGTH + 1);
        let sha1 = format!("{{SHA}}{}", STANDARD.encode(Sha1::digest(&long)));
        assert!(!DigestFormat::Sha1.matches(&sha1, long.as_bytes()));
        let sha1 = format!("{{SHA}}{}", STANDARD.encode(Sha1::digest(&long[1..])));
        assert!(DigestFormat::Sha1.matches(&sha1, &long.as_bytes()[1..]));
    }

    #[test]
    fn expensive_or_unknown_digest_is_rejected() {
        let argon2 = |costs: &str| {
            format!(
                "$argon2id$v=19${costs}$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWRWJTmaQFf0e2cZbJ0wlAD0"
            )
        };
        let sample =
            SAMPLES.iter().find(|(_, format, _)| *format == DigestFormat::Bcrypt).unwrap().2;
        let bcrypt = |cost: u32| sample.replacen("$05$", &format!("${cost:02}$"), 1);
        let sha = |rounds: &str| format!("$5${rounds}$salt${}", "a".repeat(43));
        for (digest, expected) in [
            (argon2("m=65536,t=3,p=4"), Ok(())),
            (argon2("m=1048576,t=3,p=4"), Err(TOO_EXPENSIVE)),
            (argon2("m=65536,t=1000,p=4"), Err(TOO_EXPENSIVE)),
            (bcrypt(10), Ok(())),
            (bcrypt(15), Err(TOO_EXPENSIVE)),
            (sha("rounds=5000"), Ok(())),
            (sha("rounds=100001"), Err(TOO_EXPENSIVE)),
            (sha("rounds=10"), Err(MALFORMED)),
        ] {
            let parsed = DigestFormat::detect(&digest).unwrap().parse(&digest).map(|_| ());
            assert_eq!(parsed, expected, "{digest}");
        }
        for unknown in ["", "plain", "$1$salt$abc", "$2x$10$abc", "rqXexS6ZhobKA", "{SSHA}abc"] {
            assert_eq!(DigestFormat::detect(unknown), None, "{unknown}");
        }
        assert!(DigestFormat::Bcrypt.parse(&argon2("m=65536,t=3,p=4")).is_err());
    }
}
