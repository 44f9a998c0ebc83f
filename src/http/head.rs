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
    /// The head is over, or this was none from the start: what comes is a body's.
    Over,
}

impl Head {
    /// Looks at what came. Some: the byte at this place makes the request ambiguous.
    pub fn look(&mut self, bytes: &[u8]) -> Option<usize> {
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
                self.place = Place::Over;
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

fn is_field(line: &[u8], name: &[u8]) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name)
}

#[cfg(test)]
mod unit {
    use super::*;

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
        ] {
            assert!(is_ambiguous(bad), "{bad:?}");
        }
        for good in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
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
