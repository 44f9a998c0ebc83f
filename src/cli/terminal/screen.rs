//! Writes the output of commands to standard output, and notes about the output to standard error.

use std::{
    cell::RefCell,
    io::{self, Write},
};

/// The streams that a command writes to: those of the process, or those of a test.
pub struct Screen {
    output: RefCell<Box<dyn Write>>,
    notes: RefCell<Box<dyn Write>>,
}

impl Screen {
    /// Returns standard output and standard error.
    pub fn process() -> Self {
        Self::new(io::stdout(), io::stderr())
    }

    /// Creates a screen from any two streams.
    pub fn new(output: impl Write + 'static, notes: impl Write + 'static) -> Self {
        Self { output: RefCell::new(Box::new(output)), notes: RefCell::new(Box::new(notes)) }
    }

    /// Writes output and flushes it.
    ///
    /// # Errors
    /// The reader closed the pipe, or the disk is full. `println!` would panic in these cases.
    pub fn print(&self, text: &str) -> io::Result<()> {
        let mut output = self.output.borrow_mut();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// Writes a note about the output. A write error is ignored, because there is
    /// no other place to report it.
    pub fn note(&self, text: &str) {
        let _ = self.notes.borrow_mut().write_all(text.as_bytes());
    }
}

/// Writes to standard output, as [`Screen::print`] does.
pub fn print(text: &str) -> io::Result<()> {
    Screen::process().print(text)
}

/// Writes to standard error, as [`Screen::note`] does.
pub fn note(text: &str) {
    Screen::process().note(text);
}

/// Returns `text` as one line that is safe to show in a terminal: without control characters, and
/// without characters that change the text direction.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' => Some(' '),
        '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => None,
        c if c.is_control() => None,
        c => Some(c),
    };
    text.chars().filter_map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_removed() {
        assert_eq!(printable("a\x1b[31mb\x07\u{9b}c\nd\te\u{202e}f"), "a[31mbc d ef");
        assert_eq!(printable("Ünïcode 日本"), "Ünïcode 日本");
    }
}
