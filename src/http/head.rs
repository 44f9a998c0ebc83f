//! A look at a request's head before it is parsed. The parser settles some things quietly that somebody before us may settle in another
//! way: lines that end without a carriage return, and a body with two lengths, or with both a length and a coding (RFC 9112, sections 2.2 and 6.3). A request
//! that two programs read in two ways is two requests; here it is refused.

/// What was seen of a head so far.
#[derive(Debug, Default)]
pub(super) struct Head {
    place: Place,
    has_length: bool,
    has_coding: bool,
    /// The beginning of a line whose end has not come yet.
    kept: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request line is next; empty lines may stand before it.
    #[default]
    Start,
    Fields,
    /// The head is over, and what comes is a body's; or this was none from the start.
    Over,
}

impl Head {
    /// Whether what comes is not looked at, up to the next request. Without a body the next request follows at once, and may have come already.
    pub fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Looks at what came. Some: the byte at this place makes the request ambiguous.
    pub fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.place == Place::Start && self.kept.is_empty() && is_plain(bytes) {
            return None;
        }
        let mut from = 0;
        while self.place != Place::Over
            && let Some(length) = memchr::memchr(b'\n', &bytes[from..])
        {
            let end = from + length;
            let is_ambiguous = if self.kept.is_empty() {
                self.line(&bytes[from..end])
            } else {
                let mut line = std::mem::take(&mut self.kept);
                line.extend_from_slice(&bytes[from..end]);
                self.line(&line)
            };
            if is_ambiguous {
                self.place = Place::Over;
                return Some(end);
            }
            from = end + 1;
        }
        if self.place != Place::Over {
            self.kept.extend_from_slice(&bytes[from..]);
        }
        None
    }

    /// Takes in a line without its line feed. Returns whether it makes the request ambiguous.
    fn line(&mut self, line: &[u8]) -> bool {
        let (text, is_whole) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (line, false),
        };
        let is_empty = text.is_empty() && is_whole;
        match self.place {
            Place::Start if is_empty => false,
            Place::Start => {
                let is_request = text.ends_with(b" HTTP/1.1") || text.ends_with(b" HTTP/1.0");
                self.place = if is_request { Place::Fields } else { Place::Over };
                is_request && !is_whole
            }
            Place::Fields if is_empty => {
                self.place = match self.has_length || self.has_coding {
                    true => Place::Over,
                    false => Place::Start,
                };
                false
            }
            Place::Fields => {
                let is_length = is_field(text, b"content-length");
                let is_doubled = is_length && self.has_length;
                self.has_length |= is_length;
                self.has_coding |= is_field(text, b"transfer-encoding");
                !is_whole || is_doubled || (self.has_length && self.has_coding)
            }
            Place::Over => false,
        }
    }
}

/// Whether these bytes are a whole request without a body in which nothing can be ambiguous, as almost all are: it ends where its head ends, each line
/// feed follows a carriage return, and no line begins as `Content-Length` or `Transfer-Encoding` do. Many bytes are looked at in one step.
fn is_plain(bytes: &[u8]) -> bool {
    /// From the beginning of `\r\nContent-L`, or `\r\nTransfer-`, to its last letter.
    const SPAN: usize = 10;
    let Some(body) = bytes.len().checked_sub(SPAN) else { return false };
    if !bytes.ends_with(b"\r\n\r\n") {
        return false;
    }
    let (line_ends, first, last) = (&bytes[..body], &bytes[2..][..body], &bytes[SPAN..][..body]);
    let feeds = &bytes[1..][..body];
    let mut is_odd = false;
    for at in 0..body {
        let is_feed = feeds[at] == b'\n';
        let is_bare = is_feed & (line_ends[at] != b'\r');
        let (first, last) = (first[at] | 0x20, last[at] | 0x20);
        let is_length = (first == b'c') & (last == b'l');
        let is_coding = (first == b't') & (last == b'-');
        is_odd |= is_bare | (is_feed & (is_length | is_coding));
    }
    // What is too near to the end to be such a field.
    let rest = &bytes[body..];
    let is_bare = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    !is_odd && bytes[0] != b'\n' && !rest.windows(2).any(is_bare)
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Cut anywhere but before its first byte, a head is looked at line by line.
        #[test]
        fn the_quick_look_sees_what_the_slow_one_sees(
            lines in proptest::collection::vec("(GET / HTTP/1.1|[Cc]ontent-[Ll]ength: 1|[Tt]ransfer-Encoding: x|Ca: b|[CT]\r?|)\r?\n", 0..6),
        ) {
            is_ambiguous(&lines.concat());
            is_ambiguous(&format!("GET / HTTP/1.1\r\n{}\r\n", lines.concat()));
        }
    }

    /// Whether a head is ambiguous, however it is cut into two pieces.
    fn is_ambiguous(text: &str) -> bool {
        let whole = Head::default().look(text.as_bytes()).is_some();
        for cut in 0..text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            let mut head = Head::default();
            let found = head.look(one).is_some() || head.look(two).is_some();
            assert_eq!(found, whole, "{one:?} {two:?}");
        }
        whole
    }

    #[test]
    fn what_has_two_readings_is_found_wherever_it_is_cut() {
        for bad in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\r\nGET / HTTP/1.0\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:x\r\nA: b\r\ncontent-length:1\r\n\r\n",
            // The one behind a request without a body.
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        ] {
            assert!(is_ambiguous(bad), "{bad:?}");
        }
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nCookie: a\r\nTE: b\r\n\r\n",
            "\r\nPOST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\nContent-Length: 1\n",
            // The rest of a head whose beginning was not seen, and a body.
            "-Length: 3\r\n\r\na\nb",
            "\r\na\nb\n",
        ] {
            assert!(!is_ambiguous(good), "{good:?}");
        }
    }
}
