//! Shows a text as its reader sees it, for the scanner: without the encodings that keep a key from
//! being found by its characters.
//!
//! A view removes the zero bytes of UTF-16 and UTF-32, the escapes of JSON, YAML, URLs, HTML and
//! quoted-printable, and the line ends within folded texts. It may also change characters that only
//! look like an escape. So the text itself has to be searched, too.

use std::borrow::Cow;

/// A changed text, with the index in the original text for each of its bytes.
pub(super) struct View<'a> {
    pub text: Cow<'a, [u8]>,
    /// `None` means that the text is unchanged.
    origin: Option<Vec<u32>>,
}

impl<'a> View<'a> {
    /// The view of a text of at most 4 GiB.
    pub fn new(text: &'a [u8]) -> Self {
        let mut view = Self { text: Cow::Borrowed(text), origin: None };
        if memchr::memchr(0, text).is_some() {
            view.change(|rest| if rest[0] == 0 { Step::Skip(1) } else { Step::Keep });
        }
        view.unfold();
        // Twice, because escaped text is often escaped again, such as `%256b`.
        for _ in 0..2 {
            if view.text.iter().any(|byte| b"\\%&=".contains(byte)) {
                view.change(escape);
            }
        }
        view.unfold();
        view
    }

    /// Whether the view differs from the text.
    pub fn is_changed(&self) -> bool {
        self.origin.is_some()
    }

    /// The index in the original text of a byte of the view.
    pub fn origin(&self, index: usize) -> usize {
        match &self.origin {
            Some(origin) => origin.get(index).map_or(0, |index| *index as usize),
            None => index,
        }
    }

    fn unfold(&mut self) {
        if memchr::memchr2(b'\n', b'\r', &self.text).is_some() {
            self.change(fold);
        }
    }

    /// Applies `step` at each index. The view stays as it is if nothing changes.
    fn change(&mut self, step: impl Fn(&[u8]) -> Step) {
        let (text, mut index) = (&*self.text, 0);
        let mut changed: Option<(Vec<u8>, Vec<u32>)> = None;
        while let Some(byte) = text.get(index) {
            let (kept, taken) = match step(&text[index..]) {
                Step::Keep => (Some(*byte), 1),
                Step::Skip(bytes) => (None, bytes),
                Step::Replace(byte, bytes) => (Some(byte), bytes),
            };
            if changed.is_none() && (taken > 1 || kept.is_none()) {
                let mut origin = Vec::with_capacity(text.len());
                origin.extend((0..index).map(|index| self.origin(index) as u32));
                changed = Some((text[..index].to_vec(), origin));
            }
            if let (Some((bytes, origin)), Some(kept)) = (&mut changed, kept) {
                bytes.push(kept);
                origin.push(self.origin(index) as u32);
            }
            index += taken.max(1);
        }
        if let Some((bytes, origin)) = changed {
            (self.text, self.origin) = (Cow::Owned(bytes), Some(origin));
        }
    }
}

/// The change at the beginning of a text.
enum Step {
    Keep,
    /// Leaves out this number of bytes.
    Skip(usize),
    /// Puts a byte in place of this number of bytes.
    Replace(u8, usize),
}

/// Removes a line end, with a mark that the line is folded before it (quoted-printable, shell, the
/// end of a text that goes on in the next line) and the indentation, quotation marks and comment
/// marks after it.
fn fold(text: &[u8]) -> Step {
    let count = |from: usize, bytes: &[u8], most: usize| {
        let rest = text.get(from..).unwrap_or_default().iter();
        rest.take(most).take_while(|byte| bytes.contains(byte)).count()
    };
    let mark = match text[0] {
        b'=' | b'\\' => 1,
        b' ' | b'\t' => {
            let spaces = count(0, b" \t", 16);
            spaces + count(spaces, b"\\", 1)
        }
        b'"' | b'\'' => {
            let spaces = 1 + count(1, b" \t", 16);
            let operator = spaces + count(spaces, b"\\+.&", 1);
            operator + count(operator, b" \t", 16)
        }
        _ => 0,
    };
    if !matches!(text.get(mark), Some(b'\r' | b'\n')) {
        return Step::Keep;
    }
    let is_between = |byte: &&u8| b"\r\n \t>#*|\"'".contains(byte);
    Step::Skip(mark + text[mark..].iter().take_while(is_between).count())
}

/// Replaces an escape by its character.
fn escape(text: &[u8]) -> Step {
    let replaced = match text {
        [b'\\', rest @ ..] => backslash(rest),
        [b'%', rest @ ..] => hex(rest, 2),
        [b'&', rest @ ..] => entity(rest),
        // In other places, hexadecimal digits after `=` are a value.
        [b'=', b'2' | b'3' | b'5' | b'0', b'A'..=b'F', ..] => hex(&text[1..], 2),
        _ => None,
    };
    match replaced {
        Some((byte, length)) => Step::Replace(byte, 1 + length),
        None => Step::Keep,
    }
}

/// The character of an escape with a backslash: JSON, YAML, and most programming languages.
fn backslash(rest: &[u8]) -> Option<(u8, usize)> {
    let (byte, length) = match rest {
        [b'u', b'{', digits @ ..] => {
            let length = digits.iter().take(8).position(|byte| *byte == b'}')?;
            let (byte, _) = hex(&digits[..length], length)?;
            (byte, length + 2)
        }
        [b'u', digits @ ..] => hex(digits, 4)?,
        [b'U', digits @ ..] => hex(digits, 8)?,
        [b'x', digits @ ..] => hex(digits, 2)?,
        [b'n', ..] => (b'\n', 0),
        [b'r', ..] => (b'\r', 0),
        [b't', ..] => (b'\t', 0),
        [byte @ (b'/' | b'\\' | b'"' | b'\'' | b'_' | b'+' | b'-' | b'='), ..] => (*byte, 0),
        [a @ b'0'..=b'1', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), 2)
        }
        _ => return None,
    };
    Some((byte, length + 1))
}

/// An ASCII character as `length` hexadecimal digits.
fn hex(digits: &[u8], length: usize) -> Option<(u8, usize)> {
    let digits = std::str::from_utf8(digits.get(..length)?).ok()?;
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
    u8::try_from(number).ok().filter(u8::is_ascii).map(|byte| (byte, length))
}

/// The character of an entity of HTML or XML.
fn entity(rest: &[u8]) -> Option<(u8, usize)> {
    const NAMED: [(&[u8], u8); 8] = [
        (b"lowbar", b'_'),
        (b"UnderBar", b'_'),
        (b"plus", b'+'),
        (b"sol", b'/'),
        (b"equals", b'='),
        (b"colon", b':'),
        (b"amp", b'&'),
        (b"NewLine", b'\n'),
    ];
    let length = rest.iter().take(12).position(|byte| *byte == b';')?;
    let byte = match &rest[..length] {
        [b'#', b'x' | b'X', digits @ ..] => hex(digits, digits.len())?.0,
        [b'#', digits @ ..] => {
            let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(digits).ok().filter(|_| is_number)?;
            number.parse().ok().filter(u8::is_ascii)?
        }
        name => NAMED.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((byte, length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(text: &[u8]) -> String {
        String::from_utf8(View::new(text).text.into_owned()).unwrap()
    }

    #[test]
    fn escapes_and_folds_are_removed() {
        for text in [
            &b"kw_1:/+"[..],
            b"\\u006bw_1:\\/+",
            b"\\U0000006bw_1:/+",
            b"\\u{6b}w_1:/+",
            b"\\x6bw\\x5F1:/+",
            b"\\153w\\1371:/+",
            b"%6bw_1%3A%2f%2B",
            b"%256bw%255F1:/+",
            b"&#107;w&lowbar;1&colon;&sol;&plus;",
            b"&#x6B;w&#x5f;1:/+",
            b"&amp;#107;w_1:/+",
            b"kw=5F1=3A=2F=2B",
            b"kw=\r\n_1:/+",
            b"kw_\n    1:/+",
            b"kw_\\n1:/+",
            b"kw_\\\n  1:/+",
            b"kw_ \\\n  1:/+",
            b"kw_\" +\n  \"1:/+",
            b"kw_'\n  '1:/+",
            b"# kw_\n# 1:/+",
            b"k\0w\0_\x001\0:\0/\0+\0",
            b"\0k\0w\0_\x001\0:\0/\0+",
        ] {
            let shown = view(text);
            assert_eq!(shown.trim_start_matches("# "), "kw_1:/+", "{}", text.escape_ascii());
        }
        for text in ["a=ab", "100%", "\\", "&", "&;", "&#;", "\\u00", "%zz", "%+1", "=", "é%e9"] {
            assert_eq!(view(text.as_bytes()), text);
        }
    }

    #[test]
    fn each_byte_of_a_view_has_its_place_in_the_text() {
        let text = b"ab%41\n  %2541c";
        let view = View::new(text);
        assert_eq!(&*view.text, b"abAAc");
        let places: Vec<usize> = (0..5).map(|index| view.origin(index)).collect();
        assert_eq!(places, [0, 1, 2, 8, 13]);
        assert!(view.is_changed() && !View::new(b"plain").is_changed());
    }
}
