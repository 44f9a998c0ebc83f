//! Slow digests as other systems write them: how each is told by its beginning, checked for form and cost, and compared with a text.
//!
//! Sources: argon2's PHC strings; bcrypt's `$2y$`; `$5$` and `$6$` of U. Drepper's SHA-crypt; Apache's `$apr1$` and `{SHA}`, which are in
//! `htpasswd` files.

use argon2::{
    Argon2, Params,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};
use sha1::Sha1;

use crate::model::PasswordDigest;

/// The most memory that one check may take, in KiB.
const MOST_KIB: u32 = 128 * 1024;
/// The most passes of Argon2.
const MOST_PASSES: u32 = 16;
/// The largest cost of bcrypt: each more takes twice as long.
const MOST_COST: u32 = 14;
/// The most rounds of SHA-crypt, twenty times the usual.
const MOST_ROUNDS: u32 = 100_000;
/// The longest text that is compared with another system's digest: some of them take longer for a longer one.
const LONGEST_TEXT: usize = 256;
/// The longest digest.
const LONGEST: usize = 512;

/// What a slow digest was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Argon2i, Argon2d or Argon2id (RFC 9106).
    Argon2,
    /// bcrypt, but not the `$2x$` of a PHP that had a fault.
    Bcrypt,
    /// SHA-256 or SHA-512, many times.
    ShaCrypt,
    /// MD5, a thousand times.
    Apr1,
    /// SHA-1, once and without salt.
    Sha1,
}

impl Format {
    /// The format of a digest, by its beginning.
    pub fn of(digest: &str) -> Option<Self> {
        const BEGINNINGS: [(&str, Format); 9] = [
            ("$argon2id$", Format::Argon2),
            ("$argon2i$", Format::Argon2),
            ("$argon2d$", Format::Argon2),
            ("$2a$", Format::Bcrypt),
            ("$2b$", Format::Bcrypt),
            ("$2y$", Format::Bcrypt),
            ("$5$", Format::ShaCrypt),
            ("$6$", Format::ShaCrypt),
            ("$apr1$", Format::Apr1),
        ];
        if digest.starts_with("{SHA}") {
            return Some(Self::Sha1);
        }
        BEGINNINGS.into_iter().find(|(start, _)| digest.starts_with(start)).map(|(_, one)| one)
    }

    /// Takes a digest in, if it is whole and a check of it costs what one may cost.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub fn take(self, digest: &str) -> Result<PasswordDigest, &'static str> {
        if digest.len() > LONGEST || Self::of(digest) != Some(self) {
            return Err("This is not a digest of this kind.");
        }
        match self {
            Self::Argon2 => fit_argon2(digest),
            Self::Bcrypt => fit_bcrypt(digest),
            Self::ShaCrypt => fit_sha_crypt(digest),
            Self::Apr1 => apr1_parts(digest).map(|_| ()).ok_or(NOT_WHOLE),
            Self::Sha1 => sha1_of(digest).map(|_| ()).ok_or(NOT_WHOLE),
        }?;
        Ok(PasswordDigest::new(digest))
    }

    /// Whether this text was made into this digest.
    pub(in crate::accounts) fn matches(self, digest: &str, text: &[u8]) -> bool {
        if self != Self::Argon2 && text.len() > LONGEST_TEXT {
            return false;
        }
        match self {
            Self::Argon2 => PasswordHash::new(digest)
                .is_ok_and(|hash| Argon2::default().verify_password(text, &hash).is_ok()),
            // What is longer than 72 bytes is cut off there, as the system that made it did.
            Self::Bcrypt => bcrypt::verify(text, digest).unwrap_or(false),
            Self::ShaCrypt => sha_crypt::ShaCrypt::default().verify_password(text, digest).is_ok(),
            Self::Apr1 => apr1_parts(digest).is_some_and(|(salt, kept)| {
                constant_time_eq::constant_time_eq(apr1(text, salt.as_bytes()).as_bytes(), kept)
            }),
            Self::Sha1 => sha1_of(digest)
                .is_some_and(|kept| constant_time_eq::constant_time_eq(&Sha1::digest(text), &kept)),
        }
    }
}

/// Whether a text that a digest matches is the text that it was made of. bcrypt looks at 72 bytes: of a longer one, nobody knows how it goes on.
pub(in crate::accounts) fn is_all_of(digest: &PasswordDigest, text: &str) -> bool {
    Format::of(digest.phc()) != Some(Format::Bcrypt) || text.len() <= 72
}

const NOT_WHOLE: &str = "This digest is not whole.";
const TOO_DEAR: &str = "Checking this digest would cost too much time or memory.";

fn fit_argon2(digest: &str) -> Result<(), &'static str> {
    let hash = PasswordHash::new(digest).map_err(|_| NOT_WHOLE)?;
    let params = Params::try_from(&hash).map_err(|_| NOT_WHOLE)?;
    let has_all = hash.salt.is_some() && hash.hash.is_some();
    match params.m_cost() <= MOST_KIB && params.t_cost() <= MOST_PASSES {
        _ if !has_all => Err(NOT_WHOLE),
        true => Ok(()),
        false => Err(TOO_DEAR),
    }
}

fn fit_bcrypt(digest: &str) -> Result<(), &'static str> {
    let parts: bcrypt::HashParts = digest.parse().map_err(|_| NOT_WHOLE)?;
    if parts.get_cost() > MOST_COST { Err(TOO_DEAR) } else { Ok(()) }
}

/// `$5$[rounds=N$]salt$digest`, with 43 characters of digest, or 86 for `$6$`.
fn fit_sha_crypt(digest: &str) -> Result<(), &'static str> {
    let mut fields: Vec<&str> = digest.split('$').skip(2).collect();
    if let Some(rounds) = fields.first().and_then(|field| field.strip_prefix("rounds=")) {
        match rounds.parse() {
            Ok(1000..=MOST_ROUNDS) => drop(fields.remove(0)),
            Ok(0..1000) | Err(_) => return Err(NOT_WHOLE),
            Ok(_) => return Err(TOO_DEAR),
        }
    }
    let length = if digest.starts_with("$5$") { 43 } else { 86 };
    match fields[..] {
        [salt, kept] if is_crypt64(salt, 1..=16) && is_crypt64(kept, length..=length) => Ok(()),
        _ => Err(NOT_WHOLE),
    }
}

fn is_crypt64(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| CRYPT64.contains(&byte))
}

/// The 20 bytes behind `{SHA}`.
fn sha1_of(digest: &str) -> Option<[u8; 20]> {
    STANDARD.decode(digest.strip_prefix("{SHA}")?).ok()?.try_into().ok()
}

/// The salt and the characters of `$apr1$salt$digest`.
fn apr1_parts(digest: &str) -> Option<(&str, &[u8])> {
    let (salt, kept) = digest.strip_prefix("$apr1$")?.split_once('$')?;
    let is_whole = is_crypt64(salt, 1..=8) && is_crypt64(kept, 22..=22);
    is_whole.then_some((salt, kept.as_bytes()))
}

/// The digits of crypt(3), least significant first.
const CRYPT64: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// P.-H. Kamp's MD5-crypt with Apache's own magic word, as `apr_md5_encode` of APR-util does it. No library that is kept has it.
fn apr1(text: &[u8], salt: &[u8]) -> String {
    let between = Md5::new().chain_update(text).chain_update(salt).chain_update(text).finalize();
    let mut first = Md5::new().chain_update(text).chain_update(b"$apr1$").chain_update(salt);
    for at in (0..text.len()).step_by(16) {
        first.update(&between[..(text.len() - at).min(16)]);
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
    for at in 0..5 {
        write(sum[at], sum[at + 6], sum[if at == 4 { 5 } else { at + 12 }], 4);
    }
    write(0, 0, sum[11], 2);
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Apache's `htpasswd` 2.4 (-nbm, -nbs, -nbB, -nb2, -nb5) and by `openssl passwd -apr1`, of the text in front.
    const MADE: &[(&str, Format, &str)] = &[
        ("correct horse battery", Format::Apr1, "$apr1$0JAqnOUy$K8lA2YVi2uXHU.7iIBgF6/"),
        ("correct horse battery", Format::Sha1, "{SHA}mN7MYuzjmaIu0w1JDvMzvn/ec4U="),
        (
            "correct horse battery",
            Format::ShaCrypt,
            "$6$eGDhJKXCRwuOyO6t$2dwUocMWGcQ8QZABwt5MJbS5LIUGXFVwqHbD.UYcYQj8DLTL8ZfmCkRiI/rpGrq3mj/hBqJFSjKj0QhptqveK1",
        ),
        ("p", Format::Apr1, "$apr1$fuqGzRNW$4od7Q4sAnIMUKRBed9UJk/"),
        ("p", Format::Sha1, "{SHA}UWuXg/ylF+7L0dBk2i0WUxCxl1k="),
        (
            "p",
            Format::ShaCrypt,
            "$6$lxXMNDGq884nj.Pr$0fkeUT5uRx.Zt61Tyeikn5HNKDWJm2q6efwjvsifr19Pt4dFOqy4H6gV1hKcNPeADlo8NHPK.62OyJUqnq1G50",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            Format::Apr1,
            "$apr1$4fpxQJkO$w9ITqso3nyMTvuIP4SfVd/",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            Format::Sha1,
            "{SHA}lnlEW0QUq/M7pbZv3P5EdJCHf3g=",
        ),
        (
            "a longer text that has more than sixteen bytes, and more than seventy-two of them",
            Format::ShaCrypt,
            "$6$cRf7qet5oIg1EKx3$hCMRte7ERRv9IH2QCCXI3xPIBC2X5IAvOkUJ5MUPEKdXTK9LIGgmstyKTehfDpQfRQFrqoMTHLKFSS9gMG69e0",
        ),
        ("pässwörd", Format::Apr1, "$apr1$a0Vd1.RL$VjCzbO8DMxfCEIfcwkyp./"),
        ("pässwörd", Format::Sha1, "{SHA}9Rfd8dMqES/xrVXGbRsSyzjn6Pc="),
        (
            "pässwörd",
            Format::ShaCrypt,
            "$6$zli3xr1pY88KbTZW$wZojhakueyXCnSd4J0n4CIgij33CgshIMf9lVtfBtj7VYo7zvi2UoaWwU3kfmWtuDdLsJfSy5AD39KfkiZoTS0",
        ),
        (
            "correct horse battery",
            Format::ShaCrypt,
            "$5$jm5ASZIaZBDCkZWQ$V5N1lZiUPNGaS6paccwPEFNbTA4pfcyb7Fyd21ZFvQ.",
        ),
        (
            "correct horse battery",
            Format::ShaCrypt,
            "$5$rounds=7000$ANWn5JQGKaozQ1jL$ub2Ax.8xdvDbzxq2pmaAOfRDSXmxW1J12cWSVc/cUoC",
        ),
        (
            "correct horse battery",
            Format::Bcrypt,
            "$2y$05$dJ85Pz.3ei.jVyvuZxjzNeXjlO1L2PIjp9clh2.NGkwJ4r6xnujUy",
        ),
        (
            "pässwörd",
            Format::Bcrypt,
            "$2y$05$TKjZcRO1iuw/uTRnxTY/KOOmyQ.Bt5eT19foRwjdTmLf/ih/Jsu1q",
        ),
        ("correct horse battery", Format::Apr1, "$apr1$ab$oxgQF74Ii96vKJ6O26uvN/"),
    ];

    #[test]
    fn what_others_made_matches_its_text_and_no_other() {
        for (text, format, digest) in MADE {
            assert_eq!(Format::of(digest), Some(*format), "{digest}");
            assert_eq!(format.take(digest).unwrap().phc(), *digest);
            assert!(format.matches(digest, text.as_bytes()), "{digest}");
            for other in ["", "x", &text[1..], &format!("{text}x")] {
                // bcrypt looks at 72 bytes.
                let is_cut = *format == Format::Bcrypt && text.len() >= 72 && other.len() > 72;
                assert!(is_cut || !format.matches(digest, other.as_bytes()), "{digest} {other}");
            }
            for cut in 0..digest.len() {
                let part = &digest[..cut];
                assert!(format.take(part).is_err(), "{part}");
                assert!(!format.matches(part, text.as_bytes()), "{part}");
            }
        }
    }

    #[test]
    fn a_text_that_would_take_long_is_not_compared() {
        let long = "x".repeat(LONGEST_TEXT + 1);
        let sha1 = format!("{{SHA}}{}", STANDARD.encode(Sha1::digest(&long)));
        assert!(!Format::Sha1.matches(&sha1, long.as_bytes()));
        let sha1 = format!("{{SHA}}{}", STANDARD.encode(Sha1::digest(&long[1..])));
        assert!(Format::Sha1.matches(&sha1, &long.as_bytes()[1..]));
    }

    #[test]
    fn what_costs_too_much_or_is_something_else_is_not_taken() {
        let argon2 = |costs: &str| {
            format!(
                "$argon2id$v=19${costs}$c29tZXNhbHQ$RdescudvJCsgt3ub+b/dWRWJTmaQFf0e2cZbJ0wlAD0"
            )
        };
        let made = MADE.iter().find(|(_, format, _)| *format == Format::Bcrypt).unwrap().2;
        let bcrypt = |cost: u32| made.replacen("$05$", &format!("${cost:02}$"), 1);
        let sha = |rounds: &str| format!("$5${rounds}$salt${}", "a".repeat(43));
        for (digest, expected) in [
            (argon2("m=65536,t=3,p=4"), Ok(())),
            (argon2("m=1048576,t=3,p=4"), Err(TOO_DEAR)),
            (argon2("m=65536,t=1000,p=4"), Err(TOO_DEAR)),
            (bcrypt(10), Ok(())),
            (bcrypt(15), Err(TOO_DEAR)),
            (sha("rounds=5000"), Ok(())),
            (sha("rounds=100001"), Err(TOO_DEAR)),
            (sha("rounds=10"), Err(NOT_WHOLE)),
        ] {
            let taken = Format::of(&digest).unwrap().take(&digest).map(|_| ());
            assert_eq!(taken, expected, "{digest}");
        }
        for unknown in ["", "plain", "$1$salt$abc", "$2x$10$abc", "rqXexS6ZhobKA", "{SSHA}abc"] {
            assert_eq!(Format::of(unknown), None, "{unknown}");
        }
        assert!(Format::Bcrypt.take(&argon2("m=65536,t=3,p=4")).is_err());
    }
}
