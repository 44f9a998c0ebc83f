//! Inspects HTTP/1 requests before hyper parses them, and finds the requests whose parts or whose
//! length two programs could read differently.
//!
//! hyper silently accepts lines that end without a carriage return, bodies with two lengths or with
//! both a length and a transfer coding, unknown transfer codings, and fragments in targets (RFC
//! 9112, sections 2.2, 3.2, 6 and 7). A proxy in front may compute a different length for such a
//! request than hyper. A client can then smuggle a second request inside the first. This server
//! therefore rejects such requests.

use super::lines::{
    ChunkSize, TransferCoding, chunk_size, is_trailer, number, transfer_coding, value_of,
};

/// The state of the inspection of one connection.
#[derive(Debug, Default)]
pub(in crate::server) struct FramingGuard {
    state: FramingState,
    is_http10: bool,
    content_length: Option<u64>,
    has_transfer_coding: bool,
    has_unknown_coding: bool,
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
    /// A chunk, with the number of bytes that the guard has not seen yet.
    ChunkData(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailers,
    /// A request was malformed. The connection gets no more requests.
    Malformed,
}

/// The result of an inspection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Inspection {
    /// hyper may see all bytes.
    Passed,
    /// A request must not be served. hyper must see no byte from this index.
    Malformed(usize),
    /// A request asks for another protocol. The bytes from this index are not inspected, because
    /// the response decides whether they belong to the other protocol.
    Undecided(usize),
}

/// The maximum number of bytes of a line that are buffered. hyper rejects shorter lines.
const MAX_LINE: usize = 2 << 20;

impl FramingGuard {
    /// Whether all bytes so far belong to complete requests.
    pub fn is_between_requests(&self) -> bool {
        self.state == FramingState::RequestLine && self.partial_line.is_empty()
    }

    /// Whether a request was malformed.
    pub fn is_malformed(&self) -> bool {
        self.state == FramingState::Malformed
    }

    /// Whether the malformed request is malformed only because its body has a transfer coding that
    /// this server does not know.
    pub fn has_unknown_coding(&self) -> bool {
        self.is_malformed() && self.has_unknown_coding
    }

    /// Inspects received bytes.
    pub fn inspect(&mut self, bytes: &[u8]) -> Inspection {
        let is_between_requests = self.is_between_requests();
        if is_between_requests && is_plain(bytes) {
            return Inspection::Passed;
        }
        // While the head is not complete, hyper has begun no request. If the rest of a malformed
        // request came with these bytes, hyper sees none of them. Then the client gets a rejection,
        // even if the handler would not have read the body.
        let is_in_head = matches!(self.state, FramingState::RequestLine | FramingState::Fields);
        let mut head_start = is_in_head.then_some(0);
        let mut start = 0;
        while start < bytes.len() {
            let rest = &bytes[start..];
            if let FramingState::Body(left) | FramingState::ChunkData(left) = self.state {
                let skipped = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.skip_body(skipped as u64);
                start += skipped;
            } else {
                let end = memchr::memchr(b'\n', rest);
                let is_valid = match end {
                    Some(length) => self.complete_line(&rest[..length]),
                    None => self.buffer(rest),
                };
                if !is_valid {
                    self.state = FramingState::Malformed;
                    let line_end = start + end.unwrap_or(rest.len());
                    return Inspection::Malformed(head_start.unwrap_or(line_end));
                }
                start += end.map_or(rest.len(), |length| length + 1);
            }
            if self.is_between_requests() {
                head_start = Some(start);
                if std::mem::take(&mut self.has_upgrade) {
                    return Inspection::Undecided(start);
                }
            }
        }
        Inspection::Passed
    }

    /// Skips bytes of a body.
    fn skip_body(&mut self, bytes: u64) {
        self.state = match self.state {
            FramingState::Body(left) if left > bytes => FramingState::Body(left - bytes),
            FramingState::ChunkData(left) if left > bytes => FramingState::ChunkData(left - bytes),
            FramingState::ChunkData(_) => FramingState::ChunkEnd,
            _ => FramingState::RequestLine,
        };
    }

    /// Buffers the beginning of a line. Returns whether the line may still be valid.
    fn buffer(&mut self, part: &[u8]) -> bool {
        self.partial_line.extend_from_slice(part);
        self.partial_line.len() <= MAX_LINE
    }

    /// Handles the line whose last bytes are `end`. Returns whether the line is valid.
    fn complete_line(&mut self, end: &[u8]) -> bool {
        if self.partial_line.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.partial_line);
        line.extend_from_slice(end);
        self.line(&line)
    }

    /// Handles a line, given without its line feed. Returns whether the line is valid.
    fn line(&mut self, line: &[u8]) -> bool {
        // A bare line feed ends no line.
        let Some(text) = line.strip_suffix(b"\r") else { return false };
        match self.state {
            // hyper skips empty lines before a request line.
            FramingState::RequestLine => text.is_empty() || self.request_line(text),
            FramingState::Fields if text.is_empty() => {
                self.state = self.after_fields();
                true
            }
            FramingState::Fields => self.field(text),
            FramingState::ChunkSize => {
                let Some(size) = chunk_size(text) else { return false };
                self.state = match size {
                    ChunkSize::Last => FramingState::Trailers,
                    ChunkSize::Bytes(bytes) => FramingState::ChunkData(bytes.get()),
                };
                true
            }
            FramingState::ChunkEnd => {
                self.state = FramingState::ChunkSize;
                text.is_empty()
            }
            FramingState::Trailers if text.is_empty() => {
                self.state = FramingState::RequestLine;
                true
            }
            FramingState::Trailers => is_trailer(text),
            FramingState::Body(_) | FramingState::ChunkData(_) | FramingState::Malformed => false,
        }
    }

    /// Handles a request line. Returns whether the line is valid. hyper checks the method and the
    /// target further.
    fn request_line(&mut self, line: &[u8]) -> bool {
        let is_http10 = line.ends_with(b" HTTP/1.0");
        // hyper drops a fragment, but a program in front may have routed by it.
        let has_fragment = line.contains(&b'#');
        *self = Self { state: FramingState::Fields, is_http10, ..Self::default() };
        (is_http10 || line.ends_with(b" HTTP/1.1")) && !has_fragment
    }

    /// Handles a header field. Returns whether the field is valid. hyper checks all fields further.
    fn field(&mut self, line: &[u8]) -> bool {
        if let Some(value) = value_of(line, b"content-length") {
            let is_only_length = self.content_length.is_none() && !self.has_transfer_coding;
            self.content_length = number(value);
            return is_only_length && self.content_length.is_some();
        }
        if let Some(value) = value_of(line, b"transfer-encoding") {
            let is_only_length = self.content_length.is_none() && !self.has_transfer_coding;
            self.has_transfer_coding = true;
            let coding = transfer_coding(value);
            let is_allowed = is_only_length && !self.is_http10;
            self.has_unknown_coding = is_allowed && coding == TransferCoding::Unknown;
            return is_allowed && coding == TransferCoding::Chunked;
        }
        self.has_upgrade |= value_of(line, b"upgrade").is_some();
        // A line that begins with a space continues the line before it (RFC 9112, section 5.2).
        !matches!(line[0], b' ' | b'\t')
    }

    fn after_fields(&self) -> FramingState {
        match self.content_length {
            _ if self.has_transfer_coding => FramingState::ChunkSize,
            None | Some(0) => FramingState::RequestLine,
            Some(length) => FramingState::Body(length),
        }
    }
}

/// A quick check. `true` means that the bytes are complete requests, that these requests have no
/// bodies, and that none of them is malformed in a way that hyper accepts. `false` means that the
/// slow path must inspect the bytes. The result is `true` for almost all reads.
///
/// The bytes must end with an empty line. Each line feed must follow a carriage return. There must
/// be no number sign. No line may resemble `Content-Length`, `Transfer-Encoding` or `Upgrade` in
/// the two bytes that the check compares. The loop compiles to vector instructions.
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
        let is_sign = returns[index] == b'#';
        let (letter_1, letter_9) = (at_2[index] | 0x20, at_10[index] | 0x20);
        let is_length = (letter_1 == b'c') & (letter_9 == b'l');
        let is_coding = (letter_1 == b't') & (letter_9 == b'-');
        let is_upgrade = (letter_1 == b'u') & (at_9[index] == b':');
        is_suspicious |= is_bare | is_sign | (is_feed & (is_length | is_coding | is_upgrade));
    }
    // The last bytes are too few for one of these fields, but may contain a bare line feed.
    let rest = &bytes[count..];
    let is_bare = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    let has_sign = rest.contains(&b'#');
    !is_suspicious && !has_sign && bytes[0] != b'\n' && !rest.windows(2).any(is_bare)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// `is_malformed` compares an unsplit text with split texts. The unsplit text can take the
        /// fast path. The texts that are split inside a request take the slow path.
        #[test]
        fn fast_path_and_slow_path_find_the_same(
            heads in proptest::collection::vec(
                proptest::collection::vec("([Cc]ontent-[Ll]ength: 1|Upgrade: x|X: #|User-Agent: x|[Tt]ransfer-Encoding: (x|chunked)|Ca: b|[CT]: x)\r?\n", 0..4),
                1..4,
            ),
            target in "/|/#|/a#b",
        ) {
            let head = |fields: &Vec<String>| format!("GET {target} HTTP/1.1\r\n{}\r\n", fields.concat());
            is_malformed(&heads.iter().map(head).collect::<String>());
        }
    }

    /// Whether a text is malformed. Asserts that every split of the text into two reads has the
    /// result of the unsplit text.
    fn is_malformed(text: &str) -> bool {
        let mut guard = FramingGuard::default();
        let unsplit = (inspect_all(&mut guard, text.as_bytes()), guard);
        for cut in 0..text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            let mut guard = FramingGuard::default();
            let found = inspect_all(&mut guard, first) || inspect_all(&mut guard, second);
            assert_eq!(found, unsplit.0, "{first:?} {second:?}");
            if !found {
                let split = (guard.state, &guard.partial_line);
                let unsplit = (unsplit.1.state, &unsplit.1.partial_line);
                assert_eq!(split, unsplit, "{first:?} {second:?}");
            }
        }
        unsplit.0
    }

    /// Inspects bytes as if the server switched to no other protocol. Returns whether a request is
    /// malformed.
    fn inspect_all(guard: &mut FramingGuard, bytes: &[u8]) -> bool {
        match guard.inspect(bytes) {
            Inspection::Passed => false,
            Inspection::Malformed(_) => true,
            Inspection::Undecided(start) => inspect_all(guard, &bytes[start..]),
        }
    }

    const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn malformed_requests_are_found_for_every_split() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\r\nGET / HTTP/1.0\nHost: a\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://a/# HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na",
            "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\nA: b\r\ncontent-length:1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nConnection: close\r\n folded\r\nContent-Length: 0\r\n\r\n",
            "\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\nGET / HTTP/1.1\nHost: a\n\n",
            // The second request is malformed.
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nbGET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade:x\r\nConnection: upgrade\r\n\r\nGET / HTTP/1.1\n\r\n",
        ] {
            assert!(is_malformed(bad), "{bad:?}");
        }
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a\r\nTE: b\r\nReferer: http://a/#b\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nContent-Length:\t 3 \r\n\r\na\nb",
            // A body that looks like a head.
            "POST / HTTP/1.1\r\nContent-Length: 17\r\n\r\nGET / HTTP/1.1\n\r\n",
        ] {
            assert!(!is_malformed(good), "{good:?}");
        }
    }

    #[test]
    fn malformed_chunks_and_trailers_are_found_for_every_split() {
        for bad in [
            "3;x=y\r\na\nb\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\n\r\n",
            "3\r\nabcd\r\n0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\nabc\r\n0\r\n\r\n",
            "3 \r\nabc\r\n0\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: y\r\n\n",
            "0\n\n",
        ] {
            assert!(is_malformed(&format!("{CHUNKED}{bad}")), "{bad:?}");
        }
        for good in [
            "3\r\na\nb\r\n0\r\n\r\n",
            "3;x=y\r\nabc\r\n000\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            // A chunk that looks like a head.
            "11\r\nGET / HTTP/1.1\n\r\n\r\n0\r\n\r\n",
        ] {
            assert!(!is_malformed(&format!("{CHUNKED}{good}")), "{good:?}");
        }
    }

    #[test]
    fn hyper_sees_no_complete_head_of_a_malformed_request_that_came_in_one_piece() {
        let first = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = format!("{CHUNKED}0\r\nX: y\n\r\n");
        let cut_of = |parts: [&str; 2]| {
            let mut guard = FramingGuard::default();
            let found = parts.map(|part| guard.inspect(part.as_bytes()));
            found.into_iter().find(|found| *found != Inspection::Passed).unwrap()
        };
        assert_eq!(cut_of([&format!("{first}{bad}"), ""]), Inspection::Malformed(first.len()));
        assert_eq!(cut_of([&bad[..20], &bad[20..]]), Inspection::Malformed(0));
        // The head was inspected before the trailers.
        let cut = cut_of([CHUNKED, "0\r\nX: y\n\r\n"]);
        assert_eq!(cut, Inspection::Malformed("0\r\nX: y".len()));
    }

    #[test]
    fn bytes_after_a_request_for_another_protocol_are_not_inspected_at_once() {
        let head = "GET / HTTP/1.1\r\nUPGRADE: x\r\n\r\n";
        let mut guard = FramingGuard::default();
        let found = guard.inspect(format!("{head}\n\0").as_bytes());
        assert_eq!(found, Inspection::Undecided(head.len()));
        assert!(matches!(guard.inspect(b"\n"), Inspection::Malformed(_)));
    }
}
