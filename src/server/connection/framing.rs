//! Inspects HTTP/1 requests before hyper parses them, and finds the requests whose length is
//! ambiguous.
//!
//! hyper silently accepts lines that end without a carriage return, and bodies with two lengths or
//! with both a length and a transfer coding (RFC 9112, sections 2.2 and 6.3). A proxy in front may
//! compute a different length for such a request than hyper. A client can then smuggle a second
//! request inside the first. This server therefore rejects such requests.

/// The state of the inspection of one connection.
#[derive(Debug, Default)]
pub(in crate::server) struct FramingGuard {
    state: FramingState,
    content_length: Option<u64>,
    has_transfer_coding: bool,
    has_upgrade: bool,
    /// The beginning of a line whose end has not come yet.
    partial_line: Vec<u8>,
}

/// The part of a request that the next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum FramingState {
    /// The request line. Empty lines may come before it.
    #[default]
    RequestLine,
    Fields,
    /// A body, with the number of bytes that the guard has not seen yet.
    Body(u64),
    /// The line with the size of the next chunk.
    ChunkSize,
    /// A chunk and its line end, with the number of bytes that the guard has not seen yet.
    ChunkData(u64),
    Trailers,
    /// Bytes of another protocol, or bytes that hyper rejects anyway. The guard ignores all bytes.
    /// For the next request, `MonitoredIo::find_ambiguity` replaces the guard with a new guard.
    Ignored,
}

/// The maximum number of bytes of a line that are buffered. hyper rejects a line of this length.
const MAX_LINE: usize = 1 << 20;

impl FramingGuard {
    /// Whether the guard ignores all bytes. `MonitoredIo::find_ambiguity` replaces such a guard
    /// when the next request begins.
    pub fn is_ignoring(&self) -> bool {
        self.state == FramingState::Ignored
    }

    /// Inspects received bytes. Returns the index of the byte that makes a request ambiguous.
    /// `None` means that no request is ambiguous.
    pub fn inspect(&mut self, bytes: &[u8]) -> Option<usize> {
        let at_start = self.state == FramingState::RequestLine && self.partial_line.is_empty();
        if at_start && is_plain(bytes) {
            return None;
        }
        let mut start = 0;
        while start < bytes.len() && self.state != FramingState::Ignored {
            let rest = &bytes[start..];
            if let FramingState::Body(left) | FramingState::ChunkData(left) = self.state {
                let skipped = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.skip_body(skipped as u64);
                start += skipped;
                continue;
            }
            let Some(length) = memchr::memchr(b'\n', rest) else {
                self.buffer(rest);
                break;
            };
            if self.complete_line(&rest[..length]) {
                self.state = FramingState::Ignored;
                return Some(start + length);
            }
            start += length + 1;
        }
        None
    }

    /// Skips bytes of a body.
    fn skip_body(&mut self, bytes: u64) {
        self.state = match self.state {
            FramingState::Body(left) if left > bytes => FramingState::Body(left - bytes),
            FramingState::ChunkData(left) if left > bytes => FramingState::ChunkData(left - bytes),
            FramingState::ChunkData(_) => FramingState::ChunkSize,
            _ => FramingState::RequestLine,
        };
    }

    fn buffer(&mut self, part: &[u8]) {
        self.partial_line.extend_from_slice(part);
        if self.partial_line.len() > MAX_LINE {
            (self.state, self.partial_line) = (FramingState::Ignored, Vec::new());
        }
    }

    /// Handles the line whose last bytes are `end`. Returns whether the line makes the request
    /// ambiguous.
    fn complete_line(&mut self, end: &[u8]) -> bool {
        if self.partial_line.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.partial_line);
        line.extend_from_slice(end);
        self.line(&line)
    }

    /// Handles a line, given without its line feed. Returns whether the line makes the request
    /// ambiguous.
    fn line(&mut self, line: &[u8]) -> bool {
        let (text, has_return) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (line, false),
        };
        match self.state {
            // hyper skips empty lines before a request line.
            FramingState::RequestLine if text.is_empty() => !has_return,
            FramingState::RequestLine => {
                let is_request = text.ends_with(b" HTTP/1.1") || text.ends_with(b" HTTP/1.0");
                let state = if is_request { FramingState::Fields } else { FramingState::Ignored };
                *self = Self { state, ..Self::default() };
                is_request && !has_return
            }
            FramingState::Fields if text.is_empty() && has_return => {
                self.state = self.after_fields();
                false
            }
            FramingState::Fields => self.field(text) || !has_return,
            FramingState::ChunkSize => {
                self.state = after_chunk_size(text);
                false
            }
            FramingState::Trailers => {
                if text.is_empty() {
                    self.state = FramingState::RequestLine;
                }
                false
            }
            FramingState::Body(_) | FramingState::ChunkData(_) | FramingState::Ignored => false,
        }
    }

    /// Handles a header field. Returns whether the field makes the request ambiguous.
    fn field(&mut self, line: &[u8]) -> bool {
        if let Some(value) = field_value(line, b"content-length") {
            let is_repeated = self.content_length.is_some();
            // hyper rejects a value that is not a number.
            let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            self.content_length = Some(number.unwrap_or(u64::MAX));
            return is_repeated || self.has_transfer_coding;
        }
        self.has_upgrade |= field_value(line, b"upgrade").is_some();
        self.has_transfer_coding |= field_value(line, b"transfer-encoding").is_some();
        self.has_transfer_coding && self.content_length.is_some()
    }

    /// The state after the header fields. After a head with `Upgrade`, the next bytes may belong to
    /// another protocol, so the guard ignores them.
    fn after_fields(&self) -> FramingState {
        match self.content_length {
            _ if self.has_upgrade => FramingState::Ignored,
            _ if self.has_transfer_coding => FramingState::ChunkSize,
            None | Some(0) => FramingState::RequestLine,
            Some(length) => FramingState::Body(length),
        }
    }
}

/// The state after the line with a chunk's size (RFC 9112, section 7.1).
fn after_chunk_size(line: &[u8]) -> FramingState {
    let digits = line.split(|b| matches!(b, b';' | b' ' | b'\t')).next().unwrap_or_default();
    let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    match size {
        Some(0) => FramingState::Trailers,
        // The two additional bytes are the line end after the chunk.
        Some(size) => FramingState::ChunkData(size.saturating_add(2)),
        None => FramingState::Ignored,
    }
}

/// A quick check. `true` means that the bytes are complete requests, that these requests have no
/// bodies, and that none of them is ambiguous. `false` means that the slow path must inspect the
/// bytes. The result is `true` for almost all reads.
///
/// The bytes must end with an empty line. Each line feed must follow a carriage return. No line may
/// resemble `Content-Length`, `Transfer-Encoding` or `Upgrade` in the two bytes that the check
/// compares. The loop compiles to vector instructions.
fn is_plain(bytes: &[u8]) -> bool {
    /// The distance from the first to the last byte of `\r\nContent-L`, and of `\r\nTransfer-`.
    const DISTANCE: usize = 10;
    let Some(count) = bytes.len().checked_sub(DISTANCE) else { return false };
    if !bytes.ends_with(b"\r\n\r\n") {
        return false;
    }
    // The bytes at `index`, `index + 1` and so on. If a line end is at `index`, the line after it
    // begins at `index + 2`.
    let (returns, feeds) = (&bytes[..count], &bytes[1..][..count]);
    let (at_2, at_9) = (&bytes[2..][..count], &bytes[9..][..count]);
    let at_10 = &bytes[DISTANCE..][..count];
    let mut is_suspicious = false;
    for index in 0..count {
        let is_feed = feeds[index] == b'\n';
        let is_bare = is_feed & (returns[index] != b'\r');
        let (letter_1, letter_9) = (at_2[index] | 0x20, at_10[index] | 0x20);
        let is_length = (letter_1 == b'c') & (letter_9 == b'l');
        let is_coding = (letter_1 == b't') & (letter_9 == b'-');
        let is_upgrade = (letter_1 == b'u') & (at_9[index] == b':');
        is_suspicious |= is_bare | (is_feed & (is_length | is_coding | is_upgrade));
    }
    // The last bytes are too few for one of these fields, but may contain a bare line feed.
    let rest = &bytes[count..];
    let is_bare = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    !is_suspicious && bytes[0] != b'\n' && !rest.windows(2).any(is_bare)
}

/// The value of the header field in a line. `None` means that the line is not a
/// field with this name.
fn field_value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    value.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// `is_ambiguous` compares an unsplit text with split texts. The unsplit text can take the
        /// fast path. The texts that are split inside a request take the slow path.
        #[test]
        fn fast_path_and_slow_path_find_the_same(
            heads in proptest::collection::vec(
                proptest::collection::vec("([Cc]ontent-[Ll]ength: 1|Upgrade: x|Upgrade-Insecure-Requests: 1|User-Agent: x|[Tt]ransfer-Encoding: x|Ca: b|[CT])\r?\n", 0..4),
                1..4,
            ),
        ) {
            let head = |fields: &Vec<String>| format!("GET / HTTP/1.1\r\n{}\r\n", fields.concat());
            is_ambiguous(&heads.iter().map(head).collect::<String>());
        }
    }

    /// Whether a text is ambiguous. Asserts that every split of the text into two reads has the
    /// result of the unsplit text.
    fn is_ambiguous(text: &str) -> bool {
        let mut guard = FramingGuard::default();
        let unsplit = (guard.inspect(text.as_bytes()).is_some(), guard);
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut guard = FramingGuard::default();
            let found = guard.inspect(first).is_some() || guard.inspect(second).is_some();
            assert_eq!(found, unsplit.0, "{first:?} {second:?}");
            // After a line that is not a request line, the states may differ. The difference is
            // harmless, because hyper rejects this line and reads no further.
            if text.starts_with("GET / HTTP/1.1\r\n") {
                let split = (guard.state, &guard.partial_line);
                let unsplit = (unsplit.1.state, &unsplit.1.partial_line);
                assert_eq!(split, unsplit, "{first:?} {second:?}");
            }
        }
        unsplit.0
    }

    #[test]
    fn ambiguous_requests_are_found_for_every_split() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\r\nGET / HTTP/1.0\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:x\r\nA: b\r\ncontent-length:1\r\n\r\n",
            "\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\nGET / HTTP/1.1\nHost: a\n\n",
            // The second request is ambiguous.
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\na\nb\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\n\r\n",
        ] {
            assert!(is_ambiguous(bad), "{bad:?}");
        }
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a\r\nTE: b\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\nContent-Length: 1\n",
            // Bodies that look like heads.
            "POST / HTTP/1.1\r\nContent-Length: 17\r\n\r\nGET / HTTP/1.1\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11\r\nGET / HTTP/1.1\n\r\n\r\n0\r\n\r\n",
            // The bytes after the head belong to another protocol.
            "GET / HTTP/1.1\r\nUpgrade:x\r\nConnection: upgrade\r\n\r\nGET / HTTP/1.1\n\r\n",
            // The end of a head whose beginning was not inspected, and a body.
            "-Length: 3\r\n\r\na\nb",
            "\r\na\nb\n",
        ] {
            assert!(!is_ambiguous(good), "{good:?}");
        }
    }
}
