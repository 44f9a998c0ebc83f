//! Writes the output of commands to standard output, and notes about the output to standard error.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, IsTerminal as _, Write},
};

use super::{
    display::{Display, DisplayOptions, terminal_width},
    width::wrap_text,
};

/// The streams that a command writes to: those of the process, or those of a test.
pub struct Screen {
    output: RefCell<Box<dyn Write>>,
    notes: RefCell<Box<dyn Write>>,
    /// How tables and records are shown.
    display: Display,
    /// Whether the output goes to a terminal, which would interpret control characters.
    is_terminal: bool,
    /// The width of the terminal of the notes. `None` means that they do not go to a terminal.
    note_width: Option<usize>,
}

impl Screen {
    /// Returns standard output and standard error.
    pub fn process() -> Self {
        Self::with_options(DisplayOptions::default())
    }

    /// Returns standard output and standard error, with these options.
    pub fn with_options(options: DisplayOptions) -> Self {
        Self {
            display: Display::of_output(options),
            is_terminal: io::stdout().is_terminal(),
            note_width: terminal_width(&io::stderr()),
            ..Self::new(io::stdout(), io::stderr())
        }
    }

    /// Creates a screen from any two streams, which are no terminals.
    pub fn new(output: impl Write + 'static, notes: impl Write + 'static) -> Self {
        Self {
            output: RefCell::new(Box::new(output)),
            notes: RefCell::new(Box::new(notes)),
            display: Display::plain(),
            is_terminal: false,
            note_width: None,
        }
    }

    /// How tables and records are shown.
    pub fn display(&self) -> Display {
        self.display
    }

    /// Writes output and flushes it. A terminal gets control characters only as escapes.
    ///
    /// # Errors
    /// The reader closed the pipe, or the disk is full. `println!` would panic in these cases.
    pub fn print(&self, text: &str) -> io::Result<()> {
        if self.is_terminal { self.print_styled(&escaped(text)) } else { self.print_styled(text) }
    }

    /// Writes sentences for people. In a terminal, long lines are wrapped.
    pub fn say(&self, text: &str) -> io::Result<()> {
        match self.display.width {
            Some(width) => self.print(&wrap_text(text, width)),
            None => self.print(text),
        }
    }

    /// Writes a table or a record, which can have colours and has no other control characters.
    pub fn print_styled(&self, text: &str) -> io::Result<()> {
        let mut output = self.output.borrow_mut();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// Writes a note about the output. In a terminal, long lines are wrapped. A write error is
    /// ignored, because there is no other place to report it.
    pub fn note(&self, text: &str) {
        let text = match self.note_width {
            Some(width) => wrap_text(&escaped(text), width),
            None => text.to_owned(),
        };
        let _ = self.notes.borrow_mut().write_all(text.as_bytes());
    }

    /// Writes a note for programs, whose lines stay as they are.
    pub fn note_json(&self, text: &str) {
        let text = if self.note_width.is_some() { escaped(text) } else { text.to_owned() };
        let _ = self.notes.borrow_mut().write_all(text.as_bytes());
    }
}

/// Writes to standard output, as [`Screen::print`] does.
pub fn print(text: &str) -> io::Result<()> {
    Screen::process().print(text)
}

/// Writes to standard output, as [`Screen::say`] does.
pub fn say(text: &str) -> io::Result<()> {
    Screen::process().say(text)
}

/// Writes to standard error, as [`Screen::note`] does.
pub fn note(text: &str) {
    Screen::process().note(text);
}

/// Returns `text` as one line that is safe to show in a terminal: without control characters, and
/// without characters that change the text direction or that nobody sees.
pub fn printable(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}' => Some(' '),
        c if c.is_control() || is_unseen(c) => None,
        c => Some(c),
    };
    text.chars().filter_map(shown).collect()
}

/// Whether a character changes the direction of text, or has no shape and joins no letters.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{61C}' | '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}'
        | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E007F}')
}

/// Returns a text of several lines with escapes instead of control characters. JSON stays the JSON
/// that it was.
fn escaped(text: &str) -> String {
    let is_harmful = |c: char| c != '\n' && c != '\t' && (c.is_control() || is_unseen(c));
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_harmful(c) {
            safe.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_direction_characters_are_removed() {
        assert_eq!(printable("a\x1b[31mb\x07\u{9b}c\nd\te\u{202e}f"), "a[31mbc d ef");
        assert_eq!(printable("a\u{2028}b\u{200b}c\u{e0041}d"), "a bcd");
        assert_eq!(printable("Ünïcode 日本"), "Ünïcode 日本");
    }

    #[test]
    fn json_with_escapes_is_the_same_json() {
        let value = serde_json::json!({ "a\u{9b}31m": "\x7f\u{202e}\u{e0041}\n é" });
        let text = format!("{value:#}\n");
        let safe = escaped(&text);
        assert!(safe.chars().all(|c| c == '\n' || !(c.is_control() || is_unseen(c))), "{safe:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
        assert_eq!(escaped("\x1b]0;x\x07"), "\\u001b]0;x\\u0007");
    }
}
