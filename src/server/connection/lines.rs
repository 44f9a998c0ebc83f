//! The lines of HTTP/1 that decide how long a message is, read strictly: a value that RFC 9112 does
//! not define, or that two programs read differently, is no value.

use std::num::NonZeroU64;

use crate::handlers::is_forbidden_trailer;

/// The size of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChunkSize {
    /// Trailers come next.
    Last,
    /// This number of bytes comes next.
    Bytes(NonZeroU64),
}

/// The value of the header field in a line, without the space around it. `None` means that the line
/// is not a field with this name.
pub(super) fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    let value = value.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name))?;
    Some(trim(value))
}

/// The number of `Content-Length`. `None` means that the value is not a number, or too large.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    // `parse` accepts a sign.
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_number)?.parse().ok()
}

/// The size in the line before a chunk (RFC 9112, section 7.1). The extensions are checked and
/// ignored. `None` means that the line is malformed.
pub(super) fn chunk_size(line: &[u8]) -> Option<ChunkSize> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (digits, extensions) = line.split_at(digits);
    // White space before an extension is allowed, but white space alone is not.
    let is_extension = trim(extensions).starts_with(b";") && extensions.iter().all(is_text);
    if digits.is_empty() || !(extensions.is_empty() || is_extension) {
        return None;
    }
    let size = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some(NonZeroU64::new(size).map_or(ChunkSize::Last, ChunkSize::Bytes))
}

/// Whether a line of a trailer section is a field that is allowed there.
pub(super) fn is_trailer(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let (name, value) = line.split_at(colon);
    let is_name_byte = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is_name = !name.is_empty() && name.iter().all(is_name_byte);
    is_name && !is_forbidden_trailer(name) && value.iter().all(is_text)
}

/// The meaning of `Transfer-Encoding` (RFC 9112, section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferCoding {
    /// The body is chunked, and in no other coding.
    Chunked,
    /// A coding that this server does not know.
    Unknown,
    /// The value is no list of codings, or chunked is not the last of them.
    Malformed,
}

/// Reads the value of `Transfer-Encoding`.
pub(super) fn transfer_coding(value: &[u8]) -> TransferCoding {
    let is_token = |coding: &[u8]| {
        let is_byte = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        !coding.is_empty() && coding.iter().all(is_byte)
    };
    let codings: Vec<&[u8]> = value.split(|b| *b == b',').map(trim).collect();
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.split_last() {
        Some((last, [])) if is_chunked(last) => TransferCoding::Chunked,
        Some((last, before)) => {
            let is_valid = is_token(last) && before.iter().all(|c| is_token(c) && !is_chunked(c));
            if is_valid { TransferCoding::Unknown } else { TransferCoding::Malformed }
        }
        None => TransferCoding::Malformed,
    }
}

/// Whether a byte may be in the value of a field.
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_size_is_hexadecimal_digits_with_printable_extensions() {
        let size = |line: &str| match chunk_size(line.as_bytes()) {
            Some(ChunkSize::Last) => Some(0),
            Some(ChunkSize::Bytes(bytes)) => Some(bytes.get()),
            None => None,
        };
        for (line, expected) in [("0", 0), ("00", 0), ("aF", 175), ("3;x=y", 3), ("3 ; x=\"é\"", 3)]
        {
            assert_eq!(size(line), Some(expected), "{line:?}");
        }
        for bad in [
            "",
            " 3",
            "3 ",
            "3\t",
            "+3",
            "-3",
            "0x3",
            "3_0",
            "3,",
            "3 3",
            "3;x\0",
            "3;\rx",
            "3;\x7f",
            "g",
            "10000000000000000",
        ] {
            assert_eq!(size(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn trailer_is_a_field_that_decides_nothing_about_the_request() {
        for good in ["X: y", "x-checksum:", "X:\ty é"] {
            assert!(is_trailer(good.as_bytes()), "{good:?}");
        }
        for bad in [
            "X",
            ": y",
            " X: y",
            "X : y",
            "X: y\rZ: a",
            "X: \0",
            "Content-Length: 3",
            "HOST: a",
            "transfer-encoding: chunked",
            "Authorization: x",
            "Proxy-Connection: x",
            "keep-alive: x",
            "Range: bytes=0-",
            "If-Match: x",
        ] {
            assert!(!is_trailer(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn transfer_codings_other_than_chunked_are_unknown_or_malformed() {
        for value in ["gzip, chunked", "gzip,deflate , CHUNKED", "identity", "xchunked"] {
            assert_eq!(transfer_coding(value.as_bytes()), TransferCoding::Unknown, "{value:?}");
        }
        for value in [
            "",
            "chunked, chunked",
            "chunked, gzip",
            "chunked;q=1",
            "gzip;x, chunked",
            "\x0bchunked",
        ] {
            assert_eq!(transfer_coding(value.as_bytes()), TransferCoding::Malformed, "{value:?}");
        }
        assert_eq!(transfer_coding(b"Chunked"), TransferCoding::Chunked);
    }

    #[test]
    fn length_is_decimal_digits_only() {
        assert_eq!(number(b"007"), Some(7));
        for bad in ["", "+5", "-5", "5, 5", "0x5", "5 5", "5.0", "99999999999999999999"] {
            assert_eq!(number(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
