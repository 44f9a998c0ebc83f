//! Finds leaked keys in text, by their format and checksum, with any prefix.
//!
//! A key is found in clear text and inside Base64 credentials (RFC 4648), as `API-KEY` and `Basic`
//! carry them.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use super::text::{CHECK, ID, MAX_PREFIX, SECRET};
use crate::model::{KeyId, KeyShape, KeyText};

/// The length of a key after its prefix: `_`, the id, `_`, the secret and the checksum.
const TAIL: usize = 1 + ID + 1 + SECRET + CHECK;
/// The length of the shortest run (a sequence of Base64 characters) that can contain a user's name
/// and a key with a prefix of one letter.
const SHORTEST_RUN: usize = (TAIL + 1) * 4 / 3;
/// The length of the longest run that is decoded. A longer run is binary data, because no
/// credential is that long.
const LONGEST_RUN: usize = 1024;
/// Ignores the trailing bits of a run, because the run may be truncated.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A key that was found, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The line, counted from 1.
    pub line: u64,
    /// The column of the key's first byte, counted in bytes from 1.
    pub column: u64,
    /// The key's id.
    pub id: KeyId,
    /// The prefix of the key's text.
    pub prefix: String,
    /// The last four characters of the key's text.
    pub last_four: String,
    /// The encoding of the key at this place.
    pub form: Form,
}

/// The encoding of a key in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Clear text.
    Plain,
    /// Inside a Base64 credential.
    Encoded,
}

/// Finds keys in a text that arrives in parts.
#[derive(Debug)]
pub struct Scanner {
    /// The last bytes that were read, which may contain the beginning of a key.
    buffer: Vec<u8>,
    /// The position of the first byte in the buffer.
    line: u64,
    column: u64,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { buffer: Vec::new(), line: 1, column: 1 }
    }
}

impl Scanner {
    /// Scans the next part of the text. A key that continues in a later part is found after
    /// that part was read.
    pub fn read(&mut self, part: &[u8], found: &mut Vec<Found>) {
        self.buffer.extend_from_slice(part);
        let latest_end = self.buffer.len().saturating_sub(LONGEST_RUN);
        // A run may continue in the next part, so the whole run is kept.
        let end = self.buffer[..latest_end].iter().rposition(|b| !is_run(*b)).map_or_else(
            // The run is longer than any credential, so its beginning is not kept.
            || if self.buffer.len() > 4 * LONGEST_RUN { latest_end } else { 0 },
            |index| index + 1,
        );
        self.report_before(end, found);
    }

    /// Scans the rest at the end of the text.
    pub fn finish(mut self, found: &mut Vec<Found>) {
        self.report_before(self.buffer.len(), found);
    }

    /// Reports the keys that begin before `end`, and discards the text before `end`.
    fn report_before(&mut self, end: usize, found: &mut Vec<Found>) {
        let mut hits: Vec<(usize, Hit)> =
            plain_keys(&self.buffer).into_iter().filter(|(begin, _)| *begin < end).collect();
        for (begin, run) in runs(&self.buffer).into_iter().filter(|(begin, _)| *begin < end) {
            hits.extend(encoded_keys(run).into_iter().map(|hit| (begin, hit)));
        }
        hits.sort_by_key(|(begin, _)| *begin);
        let mut from = 0;
        for (begin, hit) in hits {
            self.advance(from, begin);
            from = begin;
            let Hit { id, prefix, last_four, form } = hit;
            let (line, column) = (self.line, self.column);
            found.push(Found { line, column, id, prefix, last_four, form });
        }
        self.advance(from, end);
        self.buffer.drain(..end);
    }

    /// Advances line and column over a part of the buffer.
    fn advance(&mut self, from: usize, to: usize) {
        for byte in &self.buffer[from..to] {
            if *byte == b'\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
    }
}

/// A key in a text, without its position.
struct Hit {
    id: KeyId,
    prefix: String,
    last_four: String,
    form: Form,
}

/// The keys in clear text, with their offsets.
fn plain_keys(text: &[u8]) -> Vec<(usize, Hit)> {
    let mut hits = Vec::new();
    let mut index = 0;
    while let Some(distance) = text[index..].iter().position(|b| *b == b'_') {
        index += distance;
        if let Some((begin, hit)) = key_around(text, index) {
            hits.push((begin, hit));
            index += TAIL;
        } else {
            index += 1;
        }
        if index >= text.len() {
            break;
        }
    }
    hits
}

/// The key whose prefix ends before `prefix_end`, with its offset. Other characters may stand
/// directly before the key, so every possible start of the prefix is tried.
fn key_around(text: &[u8], prefix_end: usize) -> Option<(usize, Hit)> {
    let tail = text.get(prefix_end..prefix_end + TAIL)?;
    let is_tail = tail[1 + ID] == b'_'
        && tail[1..=ID].iter().chain(&tail[ID + 2..]).all(u8::is_ascii_alphanumeric);
    if !is_tail {
        return None;
    }
    for begin in prefix_end.saturating_sub(MAX_PREFIX)..prefix_end {
        let Ok(key) = std::str::from_utf8(&text[begin..prefix_end + TAIL]) else { continue };
        if let KeyShape::Ours(id) = KeyText::shape(key) {
            let prefix = key[..prefix_end - begin].to_owned();
            let last_four = key[key.len() - 4..].to_owned();
            return Some((begin, Hit { id, prefix, last_four, form: Form::Plain }));
        }
    }
    None
}

/// Whether a byte can be in a run. Padding cannot.
pub(super) fn is_run(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte)
}

/// The runs of a text that can be Base64 with a key inside, with their offsets. `=` ends a run,
/// because `=` is padding or stands between a name and its value.
fn runs(text: &[u8]) -> Vec<(usize, &[u8])> {
    let mut runs = Vec::new();
    let mut begin = 0;
    for run in text.split(|b| !is_run(*b)) {
        if (SHORTEST_RUN..=LONGEST_RUN).contains(&run.len()) {
            runs.push((begin, run));
        }
        begin += run.len() + 1;
    }
    runs
}

/// The keys in a run of Base64, without offsets.
fn encoded_keys(run: &[u8]) -> Vec<Hit> {
    let as_encoded = |(_, hit)| Hit { form: Form::Encoded, ..hit };
    let mut hits: Vec<Hit> = Vec::new();
    for text in decoded_runs(run) {
        for hit in plain_keys(&text).into_iter().map(as_encoded) {
            if hits.iter().all(|known| known.id != hit.id) {
                hits.push(hit);
            }
        }
    }
    hits
}

/// The possible contents of a run of Base64 in both alphabets. The Base64 text can begin within
/// the run, after a part of a path or a name, so all four positions of its first byte are tried.
/// The text around it can have characters of the other alphabet, and any length.
pub(super) fn decoded_runs(run: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    let run: Vec<u8> = run.iter().map(standard).collect();
    let engine = GeneralPurpose::new(&STANDARD, LENIENT);
    (0..4).filter_map(move |offset| {
        let text = run.get(offset..)?;
        // A single character at the end is no byte.
        let length = text.len() - usize::from(text.len() % 4 == 1);
        engine.decode(&text[..length]).ok()
    })
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose;

    use super::*;
    use crate::model::Entropy;

    fn key(prefix: &str, seed: u64) -> String {
        KeyText::generate(prefix, &Entropy::seeded(seed)).text.expose().to_owned()
    }

    fn scan(text: &[u8], part: usize) -> Vec<(u64, u64, String, Form)> {
        let mut scanner = Scanner::default();
        let mut found = Vec::new();
        for part in text.chunks(part) {
            scanner.read(part, &mut found);
        }
        scanner.finish(&mut found);
        found.into_iter().map(|one| (one.line, one.column, one.prefix, one.form)).collect()
    }

    #[test]
    fn encoded_key_is_found_whatever_characters_of_base64_are_beside_it() {
        // The names need the characters in which the two alphabets differ.
        for name in ["admin", "~~~?>", "\u{ff}\u{fe}"] {
            let credential = format!("{name}:{}", key("kw", 1));
            let (standard, url_safe) = (
                general_purpose::STANDARD_NO_PAD.encode(&credential),
                general_purpose::URL_SAFE_NO_PAD.encode(&credential),
            );
            for encoded in [standard, url_safe] {
                for before in ["", "/", "/a/", "/my-api/", "/a_b/c+d/"] {
                    for after in ["", "/", "/x", "/xy", "/x-y", "/a_b+c"] {
                        let text = format!("GET {before}{encoded}{after}");
                        let [(_, _, _, Form::Encoded)] = scan(text.as_bytes(), 1000)[..] else {
                            panic!("no key was found in {text}");
                        };
                        let redacted = crate::model::redact_keys(&text);
                        assert!(!redacted.contains(&encoded[20..60]), "{redacted}");
                    }
                }
            }
        }
    }

    #[test]
    fn keys_are_found_at_every_place_and_part_boundary() {
        let (one, two, three) = (key("kw", 1), key("p2", 2), key("kw", 3));
        let credential = general_purpose::STANDARD.encode(format!("admin:{three}"));
        let noise = "x_y_".repeat(3000);
        let text = format!(
            "KEY={one}\n\n  \"{two}\" {two}{one}\n{noise}\nAPI-KEY: {credential}\n\u{fffd}é {one}"
        );
        let plain = |line, column, prefix: &str| (line, column, prefix.to_owned(), Form::Plain);
        let expected = [
            plain(1, 5, "kw"),
            plain(3, 4, "p2"),
            plain(3, 54, "p2"),
            plain(3, 102, "kw"),
            (5, 10, "kw".to_owned(), Form::Encoded),
            plain(6, 7, "kw"),
        ];
        for part in [1, 7, 50, 1000, 100_000] {
            assert_eq!(scan(text.as_bytes(), part), expected, "in parts of {part}");
        }
    }

    #[test]
    fn adjacent_characters_do_not_hide_a_key() {
        let one = key("kw", 1);
        let long = key("abcdefghijklmnop", 5);
        let found = scan(format!("x{long}").as_bytes(), 9);
        assert_eq!(found, [(1, 2, "abcdefghijklmnop".to_owned(), Form::Plain)]);
        for (text, column) in [
            (format!("abc{one}"), 4),
            (format!("abc_{one}"), 5),
            (format!("{one}XYZ"), 1),
            (format!("key_12345678_{one}"), 14),
        ] {
            assert_eq!(
                scan(text.as_bytes(), 9),
                [(1, column, "kw".to_owned(), Form::Plain)],
                "{text}"
            );
        }
        for url_safe in [general_purpose::URL_SAFE, general_purpose::URL_SAFE_NO_PAD] {
            let text = format!("{}\n", url_safe.encode(format!("ÿÿÿ>?>:{one}")));
            assert_eq!(scan(text.as_bytes(), 9), [(1, 1, "kw".to_owned(), Form::Encoded)]);
        }
        // A Base64 credential in a path or after a name.
        for prefix in ["/", "a/", "ab/c", "id-x/", "x+"] {
            for engine in [general_purpose::STANDARD_NO_PAD, general_purpose::URL_SAFE_NO_PAD] {
                let text = format!("{prefix}{}\n", engine.encode(format!("admin:{one}")));
                assert_eq!(scan(text.as_bytes(), 9).len(), 1, "{text}");
            }
        }
    }

    #[test]
    fn text_with_a_wrong_checksum_is_not_found() {
        let mut damaged = key("kw", 1).into_bytes();
        damaged[20] = if damaged[20] == b'a' { b'b' } else { b'a' };
        let cut = &key("kw", 1)[..47];
        for text in [&damaged[..], cut.as_bytes(), b"", b"_", b"kw_", &[b'_'; 5000], &[b'A'; 9000]]
        {
            assert!(scan(text, 64).is_empty(), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn endless_text_takes_bounded_memory() {
        let mut scanner = Scanner::default();
        for _ in 0..100 {
            scanner.read(&[b'A'; 1000], &mut Vec::new());
            assert!(scanner.buffer.len() < 8 * LONGEST_RUN);
        }
    }
}
