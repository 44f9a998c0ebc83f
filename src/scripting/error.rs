//! What is wrong with a script: the file, the place, the sentence, and the line with a caret under it.

use std::fmt;

use rhai::Position;

/// One fault of one script, found when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptError {
    /// The file, relative to the folder of scripts: `auth/hmac.rhai`.
    pub file: String,
    /// The line, from 1, where one is at fault.
    pub line: Option<usize>,
    /// The column, from 1, in characters.
    pub column: Option<usize>,
    /// What is wrong and what to do, as sentences.
    pub message: String,
    /// The line of the source.
    source: Option<String>,
}

/// What is kept of a source line: a caret under a line of a megabyte helps nobody.
const SHOWN: usize = 160;

impl ScriptError {
    /// A fault of a file as a whole.
    pub(super) fn of_file(file: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { file: file.to_owned(), line: None, column: None, message, source: None }
    }

    /// A file that is not there, and that somebody needs.
    pub fn missing(file: impl Into<String>, needed_by: &str) -> Self {
        let file = file.into();
        let message = format!(
            "this script is missing, and {needed_by} needs it. Put it back, or change what needs it"
        );
        Self::of_file(&file, message)
    }

    /// A fault at a place in a file's text.
    pub(super) fn at(file: &str, text: &str, place: Position, message: impl Into<String>) -> Self {
        let source = place.line().and_then(|line| text.lines().nth(line - 1));
        Self {
            file: file.to_owned(),
            line: place.line(),
            column: place.position(),
            message: message.into(),
            source: source.map(|line| line.chars().take(SHOWN).collect()),
        }
    }

    /// The file, and the line and column where it has them: `auth/hmac.rhai:3:5`.
    pub fn location(&self) -> String {
        let place = [self.line, self.column].into_iter().flatten();
        place.fold(self.file.clone(), |shown, number| format!("{shown}:{number}"))
    }

    /// The source line with a caret under the place; none where the fault has no place.
    pub fn excerpt(&self) -> Option<String> {
        let (line, source) = (self.line?, self.source.as_ref()?);
        let number = line.to_string();
        let mut out = format!("{number} | {source}");
        if let Some(column) = self.column.filter(|column| *column <= SHOWN) {
            // Tabs stay tabs, so that the caret stands where the reader's editor puts the character.
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
