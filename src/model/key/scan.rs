//! Finds leaked keys in text, by their format and checksum, with any prefix.
//!
//! A key is found in clear text and inside Base64 (RFC 4648), as `API-KEY` and `Basic` carry it,
//! also if the text is UTF-16, escaped or folded (see [`View`]), and in Base64 of such text.

use std::collections::VecDeque;

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use zeroize::Zeroizing;

use super::{
    text::{CHECK, ID, MAX_PREFIX, SECRET},
    views::View,
};
use crate::model::{KeyId, KeyShape, KeyText};

/// The length of a key after its prefix: `_`, the id, `_`, the secret and the checksum.
const TAIL: usize = 1 + ID + 1 + SECRET + CHECK;
/// The length of the shortest run (a sequence of Base64 characters) that can contain a user's name
/// and a key with a prefix of one letter.
const SHORTEST_RUN: usize = (TAIL + 1) * 4 / 3;
/// The length of the longest credential. A key in a longer run is reported at its own place, and
/// not at the beginning of the run.
const LONGEST_CREDENTIAL: usize = 1024;
/// The number of bytes that are searched together.
const WINDOW: usize = 64 * 1024;
/// The number of bytes at the end of a window that are searched again with the next one. A key with
/// all its encodings is not longer.
const OVERLAP: usize = 16 * 1024;
/// The maximum number of encodings in Base64 within each other.
const MAX_DEPTH: usize = 3;
/// The maximum number of reported keys that are remembered, so that none is reported twice.
const MAX_RECENT: usize = 256;
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
    /// Clear text that is escaped, folded or UTF-16.
    Escaped,
    /// Inside Base64.
    Encoded,
}

/// Finds keys in a text that arrives in parts.
#[derive(Debug)]
pub struct Scanner {
    /// The last bytes that were read, which may contain the beginning of a key.
    buffer: Zeroizing<Vec<u8>>,
    /// The position of the first byte in the buffer.
    line: u64,
    column: u64,
    offset: usize,
    /// The ids and offsets of the latest reported keys.
    recent: VecDeque<(KeyId, usize)>,
}

impl Default for Scanner {
    fn default() -> Self {
        let (buffer, recent) = (Zeroizing::default(), VecDeque::new());
        Self { buffer, line: 1, column: 1, offset: 0, recent }
    }
}

impl Scanner {
    /// Scans the next part of the text. A key that continues in a later part is found after
    /// that part was read.
    pub fn read(&mut self, part: &[u8], found: &mut Vec<Found>) {
        let mut rest = part;
        while !rest.is_empty() {
            // A window always has the same size, so the result does not depend on the parts.
            let missing = WINDOW + OVERLAP - self.buffer.len();
            let (taken, later) = rest.split_at(missing.min(rest.len()));
            self.buffer.extend_from_slice(taken);
            rest = later;
            if self.buffer.len() == WINDOW + OVERLAP {
                self.report_before(WINDOW, found);
            }
        }
    }

    /// Scans the rest at the end of the text.
    pub fn finish(mut self, found: &mut Vec<Found>) {
        self.report_before(self.buffer.len(), found);
    }

    /// Reports the keys that begin before `end`, and discards the text before `end`.
    fn report_before(&mut self, end: usize, found: &mut Vec<Found>) {
        let mut hits = keys_in(&self.buffer, MAX_DEPTH);
        let view = View::new(&self.buffer);
        if view.is_changed() {
            let in_view = keys_in(&view.text, MAX_DEPTH).into_iter().map(|(begin, hit)| {
                let is_plain = hit.form == Form::Plain;
                let form = if is_plain { Form::Escaped } else { hit.form };
                (view.origin(begin), Hit { form, ..hit })
            });
            hits.extend(in_view);
        }
        hits.retain(|(begin, _)| *begin < end);
        // Of the ways to find a key, the plainest counts.
        hits.sort_by_key(|(_, hit)| hit.form as u8);
        let mut kept: Vec<(usize, Hit)> = Vec::new();
        for (begin, hit) in hits {
            if !self.is_known(&kept, begin, &hit) {
                kept.push((begin, hit));
            }
        }
        kept.sort_by_key(|(begin, _)| *begin);
        let mut from = 0;
        for (begin, hit) in kept {
            self.advance(from, begin);
            from = begin;
            if self.recent.len() == MAX_RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back((hit.id, self.offset));
            let Hit { id, prefix, last_four, form } = hit;
            let (line, column) = (self.line, self.column);
            found.push(Found { line, column, id, prefix, last_four, form });
        }
        self.advance(from, end);
        self.buffer.drain(..end);
    }

    /// Whether a hit is a key that is reported already, found in another way. A key in clear text
    /// is only found at its own place.
    fn is_known(&self, kept: &[(usize, Hit)], begin: usize, hit: &Hit) -> bool {
        let offset = self.offset + begin;
        let is_same = |id: KeyId, other: usize| match hit.form {
            Form::Plain => id == hit.id && other == offset,
            _ => id == hit.id && other.abs_diff(offset) < LONGEST_CREDENTIAL,
        };
        kept.iter().any(|(begin, known)| is_same(known.id, self.offset + begin))
            || self.recent.iter().any(|(id, other)| is_same(*id, *other))
    }

    /// Advances line, column and offset over a part of the buffer.
    fn advance(&mut self, from: usize, to: usize) {
        let passed = &self.buffer[from..to];
        self.offset += passed.len();
        match memchr::memrchr(b'\n', passed) {
            Some(last) => {
                self.line += memchr::memchr_iter(b'\n', passed).count() as u64;
                self.column = (passed.len() - last) as u64;
            }
            None => self.column += passed.len() as u64,
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

/// The keys in a text and in Base64 within the text, with their offsets.
fn keys_in(text: &[u8], depth: usize) -> Vec<(usize, Hit)> {
    let mut hits = plain_keys(text);
    if depth == 0 {
        return hits;
    }
    for (begin, run) in runs(text) {
        for (start, decoded) in decodings(run) {
            let mut inner = keys_in(&decoded, depth - 1);
            let view = View::new(&decoded);
            if view.is_changed() {
                let in_view = keys_in(&view.text, depth - 1).into_iter();
                inner.extend(in_view.map(|(begin, hit)| (view.origin(begin), hit)));
            }
            for (inside, hit) in inner {
                let is_credential = run.len() <= LONGEST_CREDENTIAL;
                let place = if is_credential { begin } else { begin + start + inside / 3 * 4 };
                let is_known = |(known, other): &(usize, Hit)| {
                    other.id == hit.id && known.abs_diff(place) < LONGEST_CREDENTIAL
                };
                if !hits.iter().any(is_known) {
                    hits.push((place, Hit { form: Form::Encoded, ..hit }));
                }
            }
        }
    }
    hits
}

/// The keys in clear text, with their offsets.
fn plain_keys(text: &[u8]) -> Vec<(usize, Hit)> {
    let mut hits = Vec::new();
    let mut index = 0;
    while let Some(distance) = memchr::memchr(b'_', &text[index.min(text.len())..]) {
        index += distance;
        if let Some((begin, hit)) = key_around(text, index) {
            hits.push((begin, hit));
            index += TAIL;
        } else {
            index += 1;
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
        if run.len() >= SHORTEST_RUN {
            runs.push((begin, run));
        }
        begin += run.len() + 1;
    }
    runs
}

/// The possible contents of a run of Base64, with the offset at which each one begins.
fn decodings(run: &[u8]) -> impl Iterator<Item = (usize, Zeroizing<Vec<u8>>)> {
    decoded_runs(run).enumerate().map(|(offset, decoded)| (offset, Zeroizing::new(decoded)))
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

    /// A text in lines of this width.
    fn wrapped(text: &str, width: usize, line_end: &str) -> String {
        let lines: Vec<&str> = (0..text.len().div_ceil(width))
            .map(|line| &text[line * width..text.len().min((line + 1) * width)])
            .collect();
        lines.join(line_end)
    }

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn keys_are_found_in_every_encoding() {
        let standard = |text: &[u8]| general_purpose::STANDARD.encode(text);
        let (key, name) =
            (key("kw", 7), "a-name-that-is-long-enough-to-wrap-the-line-once-or-twice");
        let pair = standard(format!("{name}:{key}").as_bytes());
        let escaped = |form: fn(u8) -> String| key.bytes().map(form).collect::<String>();
        let mut texts: Vec<Vec<u8>> = vec![
            utf16(&format!("\u{feff}KEY={key}\r\n"), u16::to_le_bytes),
            utf16(&format!("\u{feff}KEY={key}\r\n"), u16::to_be_bytes),
            utf16(&key, u16::to_le_bytes),
            utf16(&format!("x: {pair}"), u16::to_be_bytes),
            standard(&utf16(&format!("$k = '{key}'"), u16::to_le_bytes)).into(),
            standard(pair.as_bytes()).into(),
            standard(standard(pair.as_bytes()).as_bytes()).into(),
            standard(format!("{{\"auths\":{{\"x\":{{\"auth\":\"{pair}\"}}}}}}").as_bytes()).into(),
            general_purpose::URL_SAFE_NO_PAD.encode(format!("\u{ff}\u{fe}>>?:{key}")).into(),
            escaped(|byte| format!("\\u{byte:04x}")).into(),
            escaped(|byte| format!("\\x{byte:02X}")).into(),
            escaped(|byte| format!("%{byte:02x}")).into(),
            escaped(|byte| format!("&#{byte};")).into(),
            escaped(|byte| format!("&#x{byte:x};")).into(),
            key.replace('_', "=5F").into(),
            key.replace('_', "%255F").into(),
            pair.replace('/', "\\/").into(),
            format!("mail=3D{}", wrapped(&key, 20, "=\r\n")).into(),
        ];
        for width in [64, 76] {
            for line_end in
                ["\n", "\r\n", "\r", "\n    ", "\n\n", "\\n", "=\r\n", "\n> ", "\" \\\n  \""]
            {
                texts.push(
                    format!("data: |\n    {}\nnext: x", wrapped(&pair, width, line_end)).into(),
                );
            }
        }
        for text in texts {
            for part in [1, 100_000] {
                let found = scan(&text, part);
                assert_eq!(found.len(), 1, "{}", text.escape_ascii());
                assert_ne!(found[0].3, Form::Plain, "{}", text.escape_ascii());
            }
        }
    }

    #[test]
    fn keys_are_found_deep_in_long_lines() {
        let key = key("kw", 8);
        let filler = "lorem ipsum dolor sit amet ".repeat(40_000);
        let text = format!("{filler}{key} {filler}");
        let encoded = general_purpose::STANDARD.encode(&text);
        let [(1, column, _, Form::Plain)] = scan(text.as_bytes(), 60_000)[..] else { panic!() };
        assert_eq!(column, filler.len() as u64 + 1);
        // In a long run, the column is that of the encoded key.
        let [(1, column, _, Form::Encoded)] = scan(encoded.as_bytes(), 60_000)[..] else {
            panic!("{:?}", scan(encoded.as_bytes(), 60_000));
        };
        assert!(column.abs_diff(filler.len() as u64 * 4 / 3) < 8, "{column}");
        let lines = wrapped(&encoded, 76, "\r\n");
        let [(line, _, _, Form::Encoded)] = scan(lines.as_bytes(), 60_000)[..] else { panic!() };
        assert!(line.abs_diff(filler.len() as u64 * 4 / 3 / 76) < 3, "{line}");
    }

    #[test]
    fn endless_text_takes_bounded_memory() {
        let mut scanner = Scanner::default();
        for _ in 0..1000 {
            scanner.read(&[b'A'; 1000], &mut Vec::new());
            assert!(scanner.buffer.capacity() <= 2 * (WINDOW + OVERLAP));
        }
    }
}
