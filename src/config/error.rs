//! Configuration errors, each with its place, problem and fix.
//!
//! Errors do not show values, so that a secret at the wrong place stays out of the logs. The
//! exception is a line that is not TOML: it has no key that the error could name, so the error
//! shows the line.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The reason why the configuration is unusable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {problem}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        problem: io::Error,
    },
    /// The file is not text.
    #[error("{}:{line}: the line is not UTF-8 text. Save the file as UTF-8.", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is not text, counted from 1.
        line: usize,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: the line is not TOML: {problem}\n  {text}\n{fix}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The column in characters, counted from 1.
        column: usize,
        /// The line's text, without control characters and truncated.
        text: String,
        /// The problem.
        problem: String,
        /// The fix.
        fix: String,
    },
    /// All invalid keys and values: first those in the file, then those in the environment.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// An invalid key or value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The place that sets the value.
    pub place: Place,
    /// The key with its section, such as `server.listen`. For an unknown section, its name in
    /// brackets; for an unknown variable, empty.
    pub key: String,
    /// The problem, as a sentence.
    pub message: String,
    /// The fix, as a sentence.
    pub fix: String,
}

/// The place that sets a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// The environment variable with this name.
    Variable(String),
    /// The default.
    Default,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, message, fix } = self;
        match place {
            Place::File { path, line } => write!(f, "{}:{line}: {key}", path.display())?,
            Place::Variable(name) => write!(f, "{name}")?,
            Place::Default => write!(f, "{key} (its default)")?,
        }
        write!(f, ": {message} {fix}")
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Returns the line number of the byte at `offset` in `text`, counted from 1.
pub(super) fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// Converts an error of the TOML parser into one that shows the line and the fix.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(text.len(), |span| span.start.min(text.len()));
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    let before_in_line = before[start..].trim_start_matches('\u{feff}').trim_end_matches('\r');
    let (problem, fix) = diagnose(line, error.message());
    ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text.as_bytes(), offset),
        column: 1 + before_in_line.chars().count(),
        text: excerpt(line),
        problem,
        fix,
    }
}

/// Replaces control characters with spaces, because a terminal would execute them.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Returns the start of a line, for an error text: at most 120 characters, without control
/// characters.
fn excerpt(line: &str) -> String {
    const MAX_CHARS: usize = 120;
    let start: String = line.trim_start_matches('\u{feff}').chars().take(MAX_CHARS).collect();
    let mut text = printable(&start);
    if line.chars().count() > MAX_CHARS {
        text.push('…');
    }
    text
}

/// Returns the problem and the fix. The parser's messages are about grammar; for common mistakes,
/// this function replaces them with messages about the file.
fn diagnose(line: &str, message: &str) -> (String, String) {
    let (problem, fix) = match message {
        "duplicate key" if line.trim_start().starts_with('[') => {
            ("the file has this section twice.", "Put all keys of the section below one heading.")
        }
        "duplicate key" => ("the section has this key twice.", "Keep one of the two lines."),
        message if message.starts_with("key with no value") => {
            ("the key has no = after it.", "Write key = value; put # before a comment.")
        }
        message if message.starts_with("unclosed table") => (
            "the bracket is not closed.",
            "Write the section's name in brackets, such as [server].",
        ),
        r#"invalid basic string, expected `"`"# => {
            ("the text has no closing quote.", "End the text with a double quote on the same line.")
        }
        message if message.starts_with("missing escaped value") => {
            ("the backslash begins an unknown escape sequence.", r"Write \\ for a backslash.")
        }
        message => return diagnose_value(line, message),
    };
    (problem.into(), fix.into())
}

fn diagnose_value(line: &str, message: &str) -> (String, String) {
    let value = line.split_once('=').map(|(_, value)| value.split('#').next().unwrap_or(""));
    match value.map(str::trim) {
        Some("") => (
            "the value is missing.".into(),
            "Write a value after the =, or remove the line.".into(),
        ),
        Some(text) if is_bare_text(text) => (
            "the value is text without quotes.".into(),
            "Put the value in double quotes: key = \"value\".".into(),
        ),
        _ => (
            format!("{message}."),
            "Write sections as [server] and values as key = \"text\" or key = 10.".into(),
        ),
    }
}

/// Whether the value looks like text without quotes, and not like a misspelled number.
fn is_bare_text(value: &str) -> bool {
    let starts = value.starts_with(|c: char| c.is_alphanumeric() || "/.:~".contains(c));
    starts && !value.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}
