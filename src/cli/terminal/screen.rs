//! Standard output for answers, standard error for everything that is said about them.

use std::{
    cell::RefCell,
    io::{self, Write},
};

/// Where a command writes: the process's streams, or a test's.
pub struct Screen {
    answers: RefCell<Box<dyn Write>>,
    notes: RefCell<Box<dyn Write>>,
}

impl Screen {
    /// Standard output and standard error.
    pub fn process() -> Self {
        Self::new(io::stdout(), io::stderr())
    }

    /// Anything else.
    pub fn new(answers: impl Write + 'static, notes: impl Write + 'static) -> Self {
        Self { answers: RefCell::new(Box::new(answers)), notes: RefCell::new(Box::new(notes)) }
    }

    /// Writes an answer, all of it, now.
    ///
    /// # Errors
    /// Nobody reads it any more, or the disk is full. `println!` would panic.
    pub fn print(&self, text: &str) -> io::Result<()> {
        let mut answers = self.answers.borrow_mut();
        answers.write_all(text.as_bytes())?;
        answers.flush()
    }

    /// Writes what is said about an answer. Where nobody listens there is nobody left to tell.
    pub fn note(&self, text: &str) {
        let _ = self.notes.borrow_mut().write_all(text.as_bytes());
    }
}

/// Writes an answer to standard output, as [`Screen::print`] does.
pub fn print(text: &str) -> io::Result<()> {
    Screen::process().print(text)
}

/// Writes to standard error, as [`Screen::note`] does.
pub fn note(text: &str) {
    Screen::process().note(text);
}

/// `text` in one line that a terminal shows and does not obey: without control characters, and without those that turn the direction of
/// what follows.
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
    fn a_terminal_gets_nothing_to_obey() {
        assert_eq!(printable("a\x1b[31mb\x07\u{9b}c\nd\te\u{202e}f"), "a[31mbc d ef");
        assert_eq!(printable("Ünïcode 日本"), "Ünïcode 日本");
    }
}
