//! Splits the text of an SQL dump into tokens, one at a time, so that a dump of any size needs
//! little memory.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// The maximum length of a text that is kept, in bytes. Longer texts are read but not kept.
pub(super) const MAX_TEXT: usize = 1 << 20;
/// The maximum length of a name or a number, in bytes.
const MAX_WORD: usize = 256;
/// The size of the buffer.
const BUFFER: usize = 64 * 1024;

/// A part of an SQL statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// A keyword, a name without quotes, or a number.
    Word(String),
    /// A name in quotes.
    Name(String),
    /// A text in quotes. `None` means that the text is too long.
    Text(Option<Vec<u8>>),
    Symbol(u8),
}

/// Reads bytes and counts lines.
struct Bytes<R> {
    reader: R,
    buffer: Zeroizing<Vec<u8>>,
    position: usize,
    line: u64,
}

impl<R: Read> Bytes<R> {
    fn peek(&mut self) -> io::Result<Option<u8>> {
        if self.position == self.buffer.len() {
            self.buffer.resize(BUFFER, 0);
            let length = loop {
                match self.reader.read(&mut self.buffer) {
                    Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                    read => break read?,
                }
            };
            self.buffer.truncate(length);
            self.position = 0;
        }
        Ok(self.buffer.get(self.position).copied())
    }

    fn next(&mut self) -> io::Result<Option<u8>> {
        let byte = self.peek()?;
        if let Some(byte) = byte {
            self.position += 1;
            self.line += u64::from(byte == b'\n');
        }
        Ok(byte)
    }
}

/// A reader of the tokens of a dump.
pub(super) struct Lexer<R> {
    bytes: Bytes<R>,
    /// Whether a backslash begins an escape in a text. It does in dumps of MySQL and MariaDB.
    has_escapes: bool,
    /// Whether texts are kept. Texts of other tables are not.
    pub keeps_texts: bool,
}

impl<R: Read> Lexer<R> {
    pub fn new(reader: R) -> Self {
        let bytes = Bytes { reader, buffer: Zeroizing::new(Vec::new()), position: 0, line: 1 };
        Self { bytes, has_escapes: false, keeps_texts: true }
    }

    /// The number of the line that is read next.
    pub fn line(&self) -> u64 {
        self.bytes.line
    }

    /// Reads a token. `None` means the end of the dump.
    pub fn token(&mut self) -> io::Result<Option<Token>> {
        loop {
            let Some(byte) = self.bytes.next()? else { return Ok(None) };
            let next = self.bytes.peek()?;
            let token = match byte {
                b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF | 0xFE | 0xFF => continue,
                b'-' if next == Some(b'-') => {
                    self.skip_line_comment()?;
                    continue;
                }
                b'#' => {
                    self.skip_line_comment()?;
                    continue;
                }
                b'/' if next == Some(b'*') => {
                    self.skip_block_comment()?;
                    continue;
                }
                b'\'' => Token::Text(self.text(self.has_escapes)?),
                b'`' => {
                    self.has_escapes = true;
                    Token::Name(self.name(b'`')?)
                }
                b'"' => Token::Name(self.name(b'"')?),
                _ if is_in_word(byte)
                    || byte == b'-' && next.is_some_and(|n| n.is_ascii_digit()) =>
                {
                    let word = self.word(byte)?;
                    match (word.as_str(), self.bytes.peek()?) {
                        ("E" | "e", Some(b'\'')) => {
                            self.bytes.next()?;
                            Token::Text(self.text(true)?)
                        }
                        ("X" | "x", Some(b'\'')) => {
                            self.bytes.next()?;
                            Token::Text(
                                self.text(false)?.and_then(|digits| hex::decode(digits).ok()),
                            )
                        }
                        // The character set of the text that follows, such as _binary.
                        (set, _) if set.starts_with('_') => continue,
                        _ => Token::Word(word),
                    }
                }
                symbol => Token::Symbol(symbol),
            };
            return Ok(Some(token));
        }
    }

    /// Reads to the end of a statement.
    pub fn skip_statement(&mut self) -> io::Result<()> {
        let kept = std::mem::replace(&mut self.keeps_texts, false);
        let skipped = loop {
            match self.token() {
                Ok(Some(Token::Symbol(b';')) | None) => break Ok(()),
                Ok(Some(_)) => {}
                Err(problem) => break Err(problem),
            }
        };
        self.keeps_texts = kept;
        skipped
    }

    /// Reads a line as bytes. `None` means the end of the dump, `Some(None)` a line that is too
    /// long.
    pub fn raw_line(&mut self) -> io::Result<Option<Option<Vec<u8>>>> {
        let mut line = Some(Vec::new());
        let mut is_end = true;
        while let Some(byte) = self.bytes.next()? {
            is_end = false;
            if byte == b'\n' {
                break;
            }
            match &mut line {
                Some(kept) if kept.len() < 2 * MAX_TEXT => kept.push(byte),
                _ => line = None,
            }
        }
        Ok((!is_end).then_some(line))
    }

    fn skip_line_comment(&mut self) -> io::Result<()> {
        let mut start = Vec::new();
        while let Some(byte) = self.bytes.next()? {
            if byte == b'\n' {
                break;
            }
            if start.len() < 80 {
                start.push(byte);
            }
        }
        // The first line names the program that has written the dump.
        let start = String::from_utf8_lossy(&start);
        if start.contains("MySQL dump") || start.contains("MariaDB dump") {
            self.has_escapes = true;
        }
        Ok(())
    }

    fn skip_block_comment(&mut self) -> io::Result<()> {
        let mut before = 0;
        self.bytes.next()?;
        while let Some(byte) = self.bytes.next()? {
            if (before, byte) == (b'*', b'/') {
                break;
            }
            before = byte;
        }
        Ok(())
    }

    fn word(&mut self, first: u8) -> io::Result<String> {
        let mut word = vec![first];
        while let Some(byte) = self.bytes.peek()?.filter(|byte| is_in_word(*byte)) {
            self.bytes.next()?;
            if word.len() < MAX_WORD {
                word.push(byte);
            }
        }
        Ok(String::from_utf8_lossy(&word).into_owned())
    }

    fn name(&mut self, quote: u8) -> io::Result<String> {
        let mut name = Vec::new();
        while let Some(byte) = self.bytes.next()? {
            if byte == quote {
                if self.bytes.peek()? != Some(quote) {
                    break;
                }
                self.bytes.next()?;
            }
            if name.len() < MAX_WORD {
                name.push(byte);
            }
        }
        Ok(String::from_utf8_lossy(&name).into_owned())
    }

    fn text(&mut self, has_escapes: bool) -> io::Result<Option<Vec<u8>>> {
        let mut text = self.keeps_texts.then(Vec::new);
        while let Some(byte) = self.bytes.next()? {
            let byte = match byte {
                b'\'' if self.bytes.peek()? == Some(b'\'') => {
                    self.bytes.next()?;
                    b'\''
                }
                b'\'' => return Ok(text),
                b'\\' if has_escapes => match self.bytes.next()? {
                    Some(escaped) => unescape(escaped),
                    None => break,
                },
                byte => byte,
            };
            match &mut text {
                Some(kept) if kept.len() < MAX_TEXT => kept.push(byte),
                _ => text = None,
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends within a text"))
    }
}

/// The byte that is written after a backslash as this one.
pub(super) fn unescape(byte: u8) -> u8 {
    match byte {
        b'0' => 0,
        b'b' => 8,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'Z' => 0x1A,
        other => other,
    }
}

fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"_$.+".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(sql: &str) -> Vec<Token> {
        let mut lexer = Lexer::new(sql.as_bytes());
        std::iter::from_fn(|| lexer.token().unwrap()).collect()
    }

    fn text(text: &str) -> Token {
        Token::Text(Some(text.as_bytes().to_vec()))
    }

    #[test]
    fn texts_of_every_dialect_are_read() {
        assert_eq!(tokens("'it''s' 'a\\b'"), [text("it's"), text("a\\b")]);
        assert_eq!(tokens("-- MySQL dump 10\n'it\\'s\\n' 'a''b'"), [text("it's\n"), text("a'b")]);
        let name = Token::Name("t".into());
        assert_eq!(tokens("`t` 'a\\'b'"), [name, text("a'b")]);
        assert_eq!(tokens("E'a\\tb' X'6162' _binary 'c'"), [text("a\tb"), text("ab"), text("c")]);
    }

    #[test]
    fn comments_and_line_numbers_are_counted() {
        let mut lexer = Lexer::new(&b"/*!40101 SET x='a;b' */;\n# x\n-- y\nSELECT -12;\n"[..]);
        assert_eq!(lexer.token().unwrap(), Some(Token::Symbol(b';')));
        assert_eq!(lexer.token().unwrap(), Some(Token::Word("SELECT".into())));
        assert_eq!(lexer.line(), 4);
        assert_eq!(lexer.token().unwrap(), Some(Token::Word("-12".into())));
        lexer.skip_statement().unwrap();
        assert_eq!(lexer.token().unwrap(), None);
    }

    #[test]
    fn long_texts_are_not_kept_and_a_cut_text_is_an_error() {
        let long = format!("'{}' 'b'", "a".repeat(MAX_TEXT + 1));
        assert_eq!(tokens(&long), [Token::Text(None), text("b")]);
        assert_eq!(tokens(&"x".repeat(100_000)), [Token::Word("x".repeat(MAX_WORD))]);
        assert!(Lexer::new(&b"'abc"[..]).token().is_err());
    }
}
