//! A row of a table of a Drupal database.

use std::sync::Arc;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Bytes(Vec<u8>),
    /// The value is too long, or an expression.
    Unreadable,
}

/// A row of a table.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub table: Arc<str>,
    /// The number of the line at which the row begins.
    pub line: u64,
    pub columns: Arc<[String]>,
    pub cells: Vec<Cell>,
}

impl Row {
    /// The bytes of a column. `None` means that the column is absent or empty, as an error that the
    /// value cannot be read.
    pub fn bytes(&self, column: &str) -> Result<Option<&[u8]>, String> {
        let Some(index) = self.columns.iter().position(|name| name == column) else {
            return Ok(None);
        };
        match self.cells.get(index) {
            None | Some(Cell::Null) => Ok(None),
            Some(Cell::Bytes(bytes)) if bytes.is_empty() => Ok(None),
            Some(Cell::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Cell::Unreadable) => Err(format!("The value of {column} cannot be read.")),
        }
    }

    /// The text of a column.
    pub fn text(&self, column: &str) -> Result<Option<&str>, String> {
        let Some(bytes) = self.bytes(column)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        text.map(Some).map_err(|_| format!("The value of {column} is not UTF-8."))
    }

    /// The number of a column.
    pub fn number(&self, column: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.text(column)? else { return Ok(None) };
        let number = text.parse().map(Some);
        number.map_err(|_| format!("The value of {column} is not a number."))
    }

    /// The boolean of a column.
    pub fn flag(&self, column: &str) -> Result<Option<bool>, String> {
        match self.text(column)? {
            None => Ok(None),
            Some("1" | "t" | "true" | "TRUE") => Ok(Some(true)),
            Some("0" | "f" | "false" | "FALSE") => Ok(Some(false)),
            Some(_) => Err(format!("The value of {column} is neither 0 nor 1.")),
        }
    }
}
