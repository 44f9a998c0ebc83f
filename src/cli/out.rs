//! Standard output for answers, standard error for everything that is said about them.

use std::io::{self, Write as _};

/// Writes `text` to standard output, all of it, now.
///
/// # Errors
/// Nobody reads it any more, or the disk is full. `println!` would panic.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes `text` to standard error. Where that is closed there is nobody left to tell.
pub fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
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
