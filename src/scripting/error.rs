//! An error that was found when a script was loaded: file, position, message, and the source line
//! with a caret under the position.

use std::fmt;

use rhai::Position;

/// An error that was found when a script was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptError {
    /// The file, relative to the folder of scripts: `auth/hmac.rhai`.
    pub file: String,
    /// The line, from 1; `None` means that the error concerns the file as a whole.
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    pub column: Option<usize>,
    /// The problem and its fix, as sentences.
    pub message: String,
    /// The source line.
    source: Option<String>,
}

/// The maximum length of a quoted source line, in characters. A caret under a longer line would be
/// unreadable.
const MAX_EXCERPT: usize = 160;

impl ScriptError {
    /// An error of a file as a whole.
    pub(super) fn in_file(file: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { file: file.to_owned(), line: None, column: None, message, source: None }
    }

    /// An error that concerns a whole folder.
    pub fn of_folder(folder: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            file: folder.into(),
            line: None,
            column: None,
            message: message.into(),
            source: None,
        }
    }

    /// A missing file that a record refers to.
    pub fn missing(file: impl Into<String>, needed_by: &str) -> Self {
        let file = file.into();
        let message = format!(
            "this script is missing, and {needed_by} needs it. Restore the file, or change {needed_by}"
        );
        Self::in_file(&file, message)
    }

    /// An error at a position in a file's text.
    pub(super) fn at(
        file: &str,
        text: &str,
        position: Position,
        message: impl Into<String>,
    ) -> Self {
        let source = position.line().and_then(|line| text.lines().nth(line - 1));
        Self {
            file: file.to_owned(),
            line: position.line(),
            column: position.position(),
            message: message.into(),
            source: source.map(|line| line.chars().take(MAX_EXCERPT).collect()),
        }
    }

    /// The file, with line and column if they are known: `auth/hmac.rhai:3:5`.
    pub fn location(&self) -> String {
        let numbers = [self.line, self.column].into_iter().flatten();
        numbers.fold(self.file.clone(), |location, number| format!("{location}:{number}"))
    }

    /// The source line with a caret under the position; `None` if the position is unknown.
    pub fn excerpt(&self) -> Option<String> {
        let (line, source) = (self.line?, self.source.as_ref()?);
        let number = line.to_string();
        let mut out = format!("{number} | {source}");
        if let Some(column) = self.column.filter(|column| *column <= MAX_EXCERPT) {
            // Tabs stay tabs, so that the caret is under its character with any tab width.
            let indent = source.chars().take(column - 1).map(|c| if c == '\t' { c } else { ' ' });
            let indent: String = indent.collect();
            out += &format!("\n{} | {indent}^", " ".repeat(number.len()));
        }
        Some(out)
    }
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location(), self.message)?;
        if let Some(excerpt) = self.excerpt() {
            write!(f, "\n{excerpt}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ScriptError {}
