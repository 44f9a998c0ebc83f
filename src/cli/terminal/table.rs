//! Formats records as tables for people: plain text in columns, without colours, lines or control
//! characters.

use comfy_table::{ColumnConstraint, Table, Width, presets::NOTHING};
use serde_json::{Map, Value};

use super::screen::printable;

/// A column of a list: its heading, and a function that returns the text of a cell.
pub type Column = (&'static str, fn(&Value) -> String);

/// The text of an empty cell.
const EMPTY_CELL: &str = "-";

/// A list that is printed page by page. Only the first page has the heading.
pub struct Listing {
    columns: &'static [Column],
    /// The maximum width of each column in the printed pages. Later pages have at least this width.
    widths: Vec<u16>,
    has_heading: bool,
}

impl Listing {
    /// Creates a list with these columns.
    pub fn new(columns: &'static [Column]) -> Self {
        Self { columns, widths: vec![0; columns.len()], has_heading: false }
    }

    /// Formats one page. The first page begins with the heading.
    pub fn page(&mut self, records: &[Value]) -> String {
        let mut table = plain_table();
        if !self.has_heading {
            table.set_header(self.columns.iter().map(|(heading, _)| *heading));
        }
        for record in records {
            table.add_row(self.columns.iter().map(|(_, cell)| cell(record)));
        }
        self.has_heading = true;
        for (width, current) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = current.max(*width);
        }
        let at_least = |width: &u16| ColumnConstraint::LowerBoundary(Width::Fixed(width + GAP));
        table.set_constraints(self.widths.iter().map(at_least));
        lines(&mut table)
    }
}

/// Formats one record, one field per line.
pub fn record(record: &Value) -> String {
    let mut table = plain_table();
    for (name, value) in record.as_object().into_iter().flatten() {
        table.add_row([printable(name), cell(value)]);
    }
    lines(&mut table)
}

/// Formats a value as one line.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(is_true) => if *is_true { "yes" } else { "no" }.into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => printable(text),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => pairs(fields),
    };
    if text.is_empty() { EMPTY_CELL.into() } else { text }
}

fn pairs(fields: &Map<String, Value>) -> String {
    let pair = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => format!("{}: ({})", printable(name), cell(value)),
        _ => format!("{}: {}", printable(name), cell(value)),
    };
    fields.iter().map(pair).collect::<Vec<_>>().join("; ")
}

/// The number of spaces between two columns.
const GAP: u16 = 2;

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}

fn lines(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let text = table.trim_fmt();
    if text.is_empty() { text } else { text + "\n" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("ID", |r| cell(&r["id"])), ("NAME", |r| cell(&r["name"]))];

    #[test]
    fn cells_are_plain_text() {
        for (value, text) in [
            (json!(null), "-"),
            (json!(""), "-"),
            (json!([]), "-"),
            (json!({}), "-"),
            (json!(true), "yes"),
            (json!(7), "7"),
            (json!(["a", "b"]), "a, b"),
            (json!("a\x1b]0;title\x07\nb"), "a]0;title b"),
            (json!({ "GET": ["x", "y"], "k\x1b": { "z": 1 } }), "GET: x, y; k: (z: 1)"),
        ] {
            assert_eq!(cell(&value), text, "{value}");
        }
    }

    #[test]
    fn pages_share_one_heading_and_column_widths() {
        let mut listing = Listing::new(COLUMNS);
        let first = listing.page(&[json!({ "id": 1000, "name": "llama" })]);
        assert_eq!(first, "ID    NAME\n1000  llama\n");
        let second = listing.page(&[json!({ "id": 7, "name": "日本" })]);
        assert_eq!(second, "7     日本\n");
        assert_eq!(Listing::new(COLUMNS).page(&[]), "ID  NAME\n");
    }

    #[test]
    fn record_has_one_field_per_line() {
        let text = record(&json!({ "id": "x", "is_admin": false, "label": "\x1b[1mA" }));
        assert_eq!(text, "id        x\nis_admin  no\nlabel     [1mA\n");
    }

    #[test]
    fn table_contains_no_control_characters() {
        let record = json!({ "id": "\x1b[31m", "name": "\u{9b}1m" });
        let text = Listing::new(COLUMNS).page(&[record]);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
