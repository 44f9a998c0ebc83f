//! Configuration errors: place, problem and fix.
//!
//! Values are never shown, so that a secret at the wrong place stays out of the logs. The exception
//! is a line that is not TOML, because it has no key that could be named.

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
    #[error("{}:{line}: this is not UTF-8 text. Save the file as UTF-8.", .path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first line that is not text, counted from 1.
        line: usize,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: this is not TOML: {problem}\n  {text}\n{fix}", .path.display())]
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
    /// All invalid keys and values, those in the file first.
    #[error("{}", lines(.0))]
    Invalid(Vec<Problem>),
}

/// An invalid key or value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The origin of the value.
    pub place: Place,
    /// The key with its section, such as `server.listen`, or its replacement in the message.
    pub key: String,
    /// The problem, as a sentence.
    pub message: String,
    /// The fix, as a sentence.
    pub fix: String,
}

/// The origin of a value.
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

/// The line of a byte in `text`, counted from 1.
pub(super) fn line_of(text: &[u8], at: usize) -> usize {
    1 + text.iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// The parser's error, with its line and the fix.
pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(text.len(), |span| span.start.min(text.len()));
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let whole = text[start..].lines().next().unwrap_or_default();
    let left = before[start..].trim_start_matches('\u{feff}').trim_end_matches('\r');
    let (problem, fix) = diagnose(whole, error.message());
    ConfigError::Syntax {
        path: path.to_owned(),
        line: line_of(text.as_bytes(), at),
        column: 1 + left.chars().count(),
        text: shown(whole),
        problem,
        fix,
    }
}

/// `text` without control characters, which a terminal would obey.
pub(super) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A line as it is shown: printable, and not endless.
fn shown(line: &str) -> String {
    const LONGEST: usize = 120;
    let start: String = line.trim_start_matches('\u{feff}').chars().take(LONGEST).collect();
    let mut text = printable(&start);
    if line.chars().count() > LONGEST {
        text.push('…');
    }
    text
}

/// Puts the parser's words, which are about grammar, into words about the file, where the mistake
/// is a common one.
fn diagnose(line: &str, said: &str) -> (String, String) {
    let (problem, fix) = match said {
        "duplicate key" if line.trim_start().starts_with('[') => {
            ("the section stands twice.", "Put the keys of both below one heading.")
        }
        "duplicate key" => ("the key stands twice in its section.", "Keep one of the two lines."),
        said if said.starts_with("key with no value") => {
            ("there is no = here.", "Write key = value; put # before a comment.")
        }
        said if said.starts_with("unclosed table") => (
            "the bracket is not closed.",
            "Write the section's name in brackets, such as [server].",
        ),
        r#"invalid basic string, expected `"`"# => {
            ("the text is not closed.", "End it with a double quote on the same line.")
        }
        said if said.starts_with("missing escaped value") => {
            ("a backslash begins a special character.", r"Write \\ for the backslash itself.")
        }
        said => return value_or_other(line, said),
    };
    (problem.into(), fix.into())
}

fn value_or_other(line: &str, said: &str) -> (String, String) {
    let value = line.split_once('=').map(|(_, value)| value.split('#').next().unwrap_or(""));
    match value.map(str::trim) {
        Some("") => {
            ("the value is missing.".into(), "Write it after the =, or remove the line.".into())
        }
        Some(text) if is_bare_text(text) => (
            "text stands without quotes.".into(),
            "Put the value in double quotes: key = \"value\".".into(),
        ),
        _ => (
            format!("{said}."),
            "Write sections as [server] and values as key = \"text\" or key = 10.".into(),
        ),
    }
}

/// Whether this looks like text that misses its quotes, rather than a number that is written wrong.
fn is_bare_text(value: &str) -> bool {
    let starts = value.starts_with(|c: char| c.is_alphanumeric() || "/.:~".contains(c));
    starts && !value.bytes().all(|b| b.is_ascii_digit() || b == b'_')
}
