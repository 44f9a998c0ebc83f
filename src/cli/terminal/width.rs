//! The width of text in a terminal: cutting and wrapping by cells, of which a wide character takes
//! two.

use unicode_width::UnicodeWidthChar as _;

/// The mark of a text that was cut.
const CUT: char = '…';

/// The number of cells that a text takes. The characters are counted one by one, because terminals
/// differ in which of them they join, and none shows more cells than these.
pub fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

fn cells(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// The text, cut to this number of cells.
pub fn cut(text: &str, max: usize) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut room = max.saturating_sub(cells(CUT));
    for c in text.chars() {
        // Marks that have no cell of their own stay with their letter.
        match room.checked_sub(cells(c)) {
            Some(rest) => room = rest,
            None => break,
        }
        kept.push(c);
    }
    if max > 0 {
        kept.push(CUT);
    }
    kept
}

/// Breaks a text at spaces into lines of at most `max` cells. A word that is wider is broken, too.
pub fn wrap(text: &str, max: usize) -> Vec<String> {
    let max = max.max(2);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for (index, word) in text.split(' ').enumerate() {
        let length = width(word);
        if index > 0 && used > 0 && used + 1 + length <= max {
            push(&mut lines, " ");
            used += 1;
        } else if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        for c in word.chars() {
            if used + cells(c) > max {
                lines.push(String::new());
                used = 0;
            }
            push(&mut lines, c.encode_utf8(&mut [0; 4]));
            used += cells(c);
        }
    }
    lines
}

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// Wraps each line of a text that is wider than `max` cells. The further lines of a line are
/// indented. Commands and excerpts of files stay as they are, because they are copied, or because a
/// mark below them points to a column.
pub fn wrap_text(text: &str, max: usize) -> String {
    let mut wrapped = String::new();
    for line in text.split_inclusive('\n') {
        let (content, end) = match line.strip_suffix('\n') {
            Some(content) => (content, "\n"),
            None => (line, ""),
        };
        let words = content.trim_start_matches(' ');
        let indent = content.len() - words.len();
        let is_command = indent > 0 && ["keyward ", "curl "].iter().any(|c| words.starts_with(c));
        if width(content) <= max || indent >= 4 || is_command {
            wrapped.push_str(line);
            continue;
        }
        let room = max.saturating_sub(indent + 2);
        let lines = wrap(words, room);
        let first = " ".repeat(indent);
        let next = format!("\n{}", " ".repeat(indent + 2));
        wrapped.push_str(&first);
        wrapped.push_str(&lines.join(&next));
        wrapped.push_str(end);
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_cells() {
        for (text, max, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("e\u{301}e\u{301}e", 2, "e\u{301}…"),
            ("🦙🦙", 3, "🦙…"),
            ("ab", 1, "…"),
            ("ab", 0, ""),
        ] {
            assert_eq!(cut(text, max), expected, "{text} {max}");
            assert!(width(&cut(text, max)) <= max);
        }
    }

    #[test]
    fn text_is_wrapped_at_spaces_and_long_words_are_broken() {
        assert_eq!(wrap("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrap("abcdef g", 4), ["abcd", "ef g"]);
        assert_eq!(wrap("日本語", 5), ["日本", "語"]);
        assert_eq!(wrap("", 5), [""]);
        let text = "error: a b c\n  name: d e f\n    excerpt stays\n  keyward user list\n";
        let wrapped =
            "error:\n  a b c\n  name:\n    d e f\n    excerpt stays\n  keyward user list\n";
        assert_eq!(wrap_text(text, 9), wrapped);
        assert_eq!(wrap_text("Delete? [y/N] ", 20), "Delete? [y/N] ");
    }
}
