//! Finds the HTTP/2 header blocks whose end has not come yet. Until it comes, the client can send
//! nothing else on the connection, and hyper sees no request (RFC 9113, section 6.10).

/// The number of bytes of the preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// The number of bytes before the payload of a frame (section 4.1).
const FRAME_HEADER: usize = 9;
/// The types of the frames that carry header blocks (sections 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The flag of the last frame of a header block.
const END_HEADERS: u8 = 4;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct HeaderBlocks {
    /// The number of bytes of the preface that are still to come.
    preface: usize,
    frame_header: [u8; FRAME_HEADER],
    /// The number of known bytes of `frame_header`.
    known: usize,
    /// The number of bytes of the payload that are still to come.
    payload: usize,
    /// Whether a header block has begun and not ended.
    is_open: bool,
    /// Whether the current frame ends the header block.
    is_last: bool,
}

impl Default for HeaderBlocks {
    fn default() -> Self {
        Self {
            preface: PREFACE,
            frame_header: [0; FRAME_HEADER],
            known: 0,
            payload: 0,
            is_open: false,
            is_last: false,
        }
    }
}

impl HeaderBlocks {
    /// Skips bytes of the preface that came before the connection was known to be HTTP/2.
    pub fn skip(&mut self, bytes: usize) {
        self.preface = self.preface.saturating_sub(bytes);
    }

    /// Reads received bytes. Returns whether a header block is open after them.
    pub fn read(&mut self, bytes: &[u8]) -> bool {
        let skipped = self.preface.min(bytes.len());
        self.preface -= skipped;
        let mut bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            let taken = if self.known < FRAME_HEADER {
                self.read_frame_header(bytes)
            } else {
                let taken = self.payload.min(bytes.len());
                self.payload -= taken;
                taken
            };
            bytes = &bytes[taken..];
            if self.known == FRAME_HEADER && self.payload == 0 {
                self.is_open &= !self.is_last;
                self.known = 0;
            }
        }
        self.is_open
    }

    /// Reads bytes of the header of a frame, and returns their number.
    fn read_frame_header(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(FRAME_HEADER - self.known);
        self.frame_header[self.known..][..taken].copy_from_slice(&bytes[..taken]);
        self.known += taken;
        if self.known == FRAME_HEADER {
            let [a, b, c, kind, flags, ..] = self.frame_header;
            self.payload = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let is_block = kind == HEADERS || kind == CONTINUATION;
            self.is_open |= is_block;
            self.is_last = is_block && flags & END_HEADERS != 0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u8::try_from(payload).unwrap();
        [&[0, 0, length, kind, flags, 0, 0, 0, 1][..], &vec![7; payload]].concat()
    }

    #[test]
    fn block_is_open_until_the_end_of_its_last_frame_for_every_split() {
        const PING: u8 = 6;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        // A flag of another frame means something else.
        bytes.extend(frame(PING, END_HEADERS, 8));
        let begin = bytes.len() + FRAME_HEADER;
        bytes.extend(frame(HEADERS, 0, 3));
        bytes.extend(frame(CONTINUATION, 0, 0));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 5));
        let end = bytes.len();
        bytes.extend(frame(HEADERS, END_HEADERS | 1, 2));
        bytes.extend(frame(0, 0, 200));
        let one_block = |length: usize| (begin..end).contains(&length);
        let other_block =
            |length: usize| (end + FRAME_HEADER..end + FRAME_HEADER + 2).contains(&length);
        for length in 0..bytes.len() {
            let expected = one_block(length) || other_block(length);
            for cut in 0..=length {
                let mut blocks = HeaderBlocks::default();
                blocks.read(&bytes[..cut]);
                assert_eq!(blocks.read(&bytes[cut..length]), expected, "{cut} {length}");
            }
        }
        let mut blocks = HeaderBlocks::default();
        blocks.skip(20);
        assert!(blocks.read(&bytes[20..begin]));
    }
}
