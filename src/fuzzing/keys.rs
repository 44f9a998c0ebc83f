//! Finding, removing and reading keys in any text.

use crate::model::{Entropy, Found, KeyText, Scanner, candidates, redact_keys};

/// Checks a text with a key somewhere in it. The first two bytes choose where, and how the text is
/// split into reads.
///
/// # Panics
/// The key is not found, or the text without keys still has its secret.
pub fn key_text(data: &[u8]) {
    let [place, split, text @ ..] = data else { return };
    let key = KeyText::generate("kw", &Entropy::seeded(u64::from(*split)));
    let at = text.len() * usize::from(*place) / 255;
    let with_key = [&text[..at], key.text.expose().as_bytes(), &text[at..]].concat();
    let whole = scan(&with_key, with_key.len());
    assert_eq!(whole, scan(&with_key, usize::from(*split) + 1), "the result depends on the reads");
    assert!(whole.iter().any(|found| found.id == key.id), "the key is not found");
    let lines = with_key.iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
    assert!(whole.iter().all(|found| (1..=lines).contains(&found.line)), "{whole:?}");
    let Ok(text) = std::str::from_utf8(&with_key) else { return };
    let secret = &key.text.expose()["kw_12345678_".len()..];
    let redacted = redact_keys(text);
    assert!(!redacted.contains(secret), "the secret is still there");
    assert_eq!(redact_keys(&redacted), redacted);
    assert!(candidates(text).len() <= 64);
}

fn scan(text: &[u8], length: usize) -> Vec<Found> {
    let (mut scanner, mut found) = (Scanner::default(), Vec::new());
    for part in text.chunks(length.max(1)) {
        scanner.read(part, &mut found);
    }
    scanner.finish(&mut found);
    found
}
