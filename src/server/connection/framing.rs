//! A look at a request's head before it is parsed. The parser settles some things quietly that somebody before us may settle in another
//! way: lines that end without a carriage return, and a body with two lengths, or with both a length and a coding (RFC 9112, sections 2.2 and 6.3). A request
//! that two programs read in two ways is two requests; here it is refused.

/// What was seen of a connection so far: where its requests' heads are, and what stands in the one that is arriving.
#[derive(Debug, Default)]
pub(in crate::server) struct Head {
    place: Place,
    length: Option<u64>,
    has_coding: bool,
    has_upgrade: bool,
    /// The beginning of a line whose end has not come yet.
    kept: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The request line is next; empty lines may stand before it.
    #[default]
    Start,
    Fields,
    /// So many bytes of a body.
    Body(u64),
    /// The line that says how long the next chunk is.
    Chunk,
    /// So many bytes of a chunk, with the line end behind it.
    Data(u64),
    Trailers,
    /// What comes is none of ours to read: another protocol's, or nothing that hyper would take. Until the next request.
    Over,
}

/// The longest line that is kept. hyper takes none that is as long, wherever it stands.
const LONGEST: usize = 1 << 20;

impl Head {
    /// Whether what comes is not looked at.
    pub fn is_over(&self) -> bool {
        self.place == Place::Over
    }

    /// Looks at what came. Some: the byte at this place makes the request ambiguous.
    pub fn look(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.place == Place::Start && self.kept.is_empty() && is_plain(bytes) {
            return None;
        }
        let mut from = 0;
        while from < bytes.len() && self.place != Place::Over {
            let rest = &bytes[from..];
            if let Place::Body(left) | Place::Data(left) = self.place {
                let here = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                self.pass(here as u64);
                from += here;
                continue;
            }
            let Some(length) = memchr::memchr(b'\n', rest) else {
                self.keep(rest);
                break;
            };
            if self.whole_line(&rest[..length]) {
                self.place = Place::Over;
                return Some(from + length);
            }
            from += length + 1;
        }
        None
    }

    /// Passes over bytes of a body.
    fn pass(&mut self, bytes: u64) {
        self.place = match self.place {
            Place::Body(left) if left > bytes => Place::Body(left - bytes),
            Place::Data(left) if left > bytes => Place::Data(left - bytes),
            Place::Data(_) => Place::Chunk,
            _ => Place::Start,
        };
    }

    fn keep(&mut self, part: &[u8]) {
        self.kept.extend_from_slice(part);
        if self.kept.len() > LONGEST {
            (self.place, self.kept) = (Place::Over, Vec::new());
        }
    }

    fn whole_line(&mut self, end: &[u8]) -> bool {
        if self.kept.is_empty() {
            return self.line(end);
        }
        let mut line = std::mem::take(&mut self.kept);
        line.extend_from_slice(end);
        self.line(&line)
    }

    /// Takes in a line without its line feed. Returns whether it makes the request ambiguous.
    fn line(&mut self, line: &[u8]) -> bool {
        let (text, is_whole) = match line.strip_suffix(b"\r") {
            Some(text) => (text, true),
            None => (line, false),
        };
        match self.place {
            // The parser passes over these.
            Place::Start if text.is_empty() => !is_whole,
            Place::Start => {
                let is_request = text.ends_with(b" HTTP/1.1") || text.ends_with(b" HTTP/1.0");
                let place = if is_request { Place::Fields } else { Place::Over };
                *self = Self { place, ..Self::default() };
                is_request && !is_whole
            }
            Place::Fields if text.is_empty() && is_whole => {
                self.place = self.after_fields();
                false
            }
            Place::Fields => self.field(text) || !is_whole,
            Place::Chunk => {
                self.place = chunk(text);
                false
            }
            Place::Trailers => {
                self.place = if text.is_empty() { Place::Start } else { Place::Trailers };
                false
            }
            Place::Body(_) | Place::Data(_) | Place::Over => false,
        }
    }

    /// Takes in a field. Returns whether it makes the request ambiguous.
    fn field(&mut self, line: &[u8]) -> bool {
        if let Some(value) = value_of(line, b"content-length") {
            let is_doubled = self.length.is_some();
            // One that is no number is refused by the parser.
            let number = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            self.length = Some(number.unwrap_or(u64::MAX));
            return is_doubled || self.has_coding;
        }
        self.has_upgrade |= value_of(line, b"upgrade").is_some();
        self.has_coding |= value_of(line, b"transfer-encoding").is_some();
        self.has_coding && self.length.is_some()
    }

    /// What comes behind the fields. A body without a length of its own, or of another protocol, is not followed.
    fn after_fields(&self) -> Place {
        match self.length {
            _ if self.has_upgrade => Place::Over,
            _ if self.has_coding => Place::Chunk,
            None | Some(0) => Place::Start,
            Some(length) => Place::Body(length),
        }
    }
}

/// What follows the line that says how long a chunk is (RFC 9112, section 7.1).
fn chunk(line: &[u8]) -> Place {
    let digits = line.split(|b| matches!(b, b';' | b' ' | b'\t')).next().unwrap_or_default();
    let size = std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok());
    match size {
        Some(0) => Place::Trailers,
        // With the line end behind it.
        Some(size) => Place::Data(size.saturating_add(2)),
        None => Place::Over,
    }
}

/// Whether these bytes end where a head without a body ends, and nothing in them can be ambiguous, as in almost all that come: each line feed follows a
/// carriage return, and no line begins as `Content-Length`, `Transfer-Encoding` or `Upgrade` do. Many bytes are looked at in one step.
fn is_plain(bytes: &[u8]) -> bool {
    /// From the beginning of `\r\nContent-L`, or `\r\nTransfer-`, to its last letter.
    const SPAN: usize = 10;
    let Some(body) = bytes.len().checked_sub(SPAN) else { return false };
    if !bytes.ends_with(b"\r\n\r\n") {
        return false;
    }
    let (line_ends, first, last) = (&bytes[..body], &bytes[2..][..body], &bytes[SPAN..][..body]);
    let (feeds, eighth) = (&bytes[1..][..body], &bytes[9..][..body]);
    let mut is_odd = false;
    for at in 0..body {
        let is_feed = feeds[at] == b'\n';
        let is_bare = is_feed & (line_ends[at] != b'\r');
        let (first, last) = (first[at] | 0x20, last[at] | 0x20);
        let is_length = (first == b'c') & (last == b'l');
        let is_coding = (first == b't') & (last == b'-');
        let is_upgrade = (first == b'u') & (eighth[at] == b':');
        is_odd |= is_bare | (is_feed & (is_length | is_coding | is_upgrade));
    }
    // What is too near to the end to be such a field.
    let rest = &bytes[body..];
    let is_bare = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
    !is_odd && bytes[0] != b'\n' && !rest.windows(2).any(is_bare)
}

/// What a field's line says, if it is the field of this name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = line.split_at_checked(name.len())?;
    value.strip_prefix(b":").filter(|_| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Cut anywhere but between two of them, requests are looked at line by line.
        #[test]
        fn the_quick_look_sees_what_the_slow_one_sees(
            heads in proptest::collection::vec(
                proptest::collection::vec("([Cc]ontent-[Ll]ength: 1|Upgrade: x|Upgrade-Insecure-Requests: 1|User-Agent: x|[Tt]ransfer-Encoding: x|Ca: b|[CT])\r?\n", 0..4),
                1..4,
            ),
        ) {
            let head = |fields: &Vec<String>| format!("GET / HTTP/1.1\r\n{}\r\n", fields.concat());
            is_ambiguous(&heads.iter().map(head).collect::<String>());
        }
    }

    /// Whether a head is ambiguous, however it is cut into two pieces.
    fn is_ambiguous(text: &str) -> bool {
        let mut head = Head::default();
        let whole = (head.look(text.as_bytes()).is_some(), head);
        for cut in 0..text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            let mut head = Head::default();
            let found = head.look(one).is_some() || head.look(two).is_some();
            assert_eq!(found, whole.0, "{one:?} {two:?}");
            // What is no request is followed by none: hyper goes no further.
            if text.starts_with("GET / HTTP/1.1\r\n") {
                let seen = (head.place, &head.kept);
                assert_eq!(seen, (whole.1.place, &whole.1.kept), "{one:?} {two:?}");
            }
        }
        whole.0
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
            "\nPOST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
            "\nGET / HTTP/1.1\nHost: a\n\n",
            // The one behind another.
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
            // Another protocol.
            "GET / HTTP/1.1\r\nUpgrade:x\r\nConnection: upgrade\r\n\r\nGET / HTTP/1.1\n\r\n",
            // The rest of a head whose beginning was not seen, and a body.
            "-Length: 3\r\n\r\na\nb",
            "\r\na\nb\n",
        ] {
            assert!(!is_ambiguous(good), "{good:?}");
        }
    }
}
