//! Formats records as tables for people: text in columns, without lines or control characters. In a
//! terminal, a table is never wider than the terminal.

use serde_json::{Map, Value};

use super::{
    display::{Display, Style},
    screen::printable,
    times,
    width::{cut, width, wrap},
};

/// A column of a list.
pub struct Column {
    heading: &'static str,
    /// Returns the text of a cell.
    cell: fn(&Value) -> String,
    kind: ColumnKind,
    /// The rank in which columns are left out if the terminal is too narrow; 1 goes first. `None`
    /// means that the column always stays.
    leaves: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    Text,
    /// Times of the API, and words such as `never`.
    Time,
    /// A state, which has a colour.
    State,
    /// The last column, whose text is wrapped instead of cut.
    Wrapped,
}

impl Column {
    /// A column of texts.
    pub const fn new(heading: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { heading, cell, kind: ColumnKind::Text, leaves: None }
    }

    /// A column of times.
    pub const fn time(heading: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { kind: ColumnKind::Time, ..Self::new(heading, cell) }
    }

    /// A column of states.
    pub const fn state(heading: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { kind: ColumnKind::State, ..Self::new(heading, cell) }
    }

    /// The last column, whose text is wrapped.
    pub const fn wrapped(heading: &'static str, cell: fn(&Value) -> String) -> Self {
        Self { kind: ColumnKind::Wrapped, ..Self::new(heading, cell) }
    }

    /// Lets the column go if the terminal is too narrow. The column with rank 1 goes first.
    pub const fn leaves(self, rank: u8) -> Self {
        Self { leaves: Some(rank), ..self }
    }

    fn text(&self, record: &Value, display: &Display) -> String {
        let text = printable(&(self.cell)(record));
        if self.kind == ColumnKind::Time { times::in_table(&text, display) } else { text }
    }
}

/// The text of an empty cell.
const EMPTY_CELL: &str = "-";
/// The number of spaces between two columns.
const GAP: usize = 2;
/// A column goes if the others, each with at most this many cells, do not fit beside it.
const FAIR_WIDTH: usize = 20;

/// A list that is printed page by page. Only the first page has the heading.
pub struct Listing {
    display: Display,
    /// The columns that are shown.
    columns: Vec<&'static Column>,
    /// The columns that do not fit.
    left_out: Vec<&'static str>,
    /// The width of each column in the printed pages. Later pages have at least this width, as far
    /// as it fits.
    widths: Vec<usize>,
    has_heading: bool,
}

impl Listing {
    /// Creates a list with these columns.
    pub fn new(columns: &'static [Column], display: Display) -> Self {
        let columns: Vec<_> = columns.iter().collect();
        let widths = columns.iter().map(|column| width(column.heading)).collect();
        Self { display, columns, left_out: Vec::new(), widths, has_heading: false }
    }

    /// Formats one page. The first page begins with the heading.
    pub fn page(&mut self, records: &[Value]) -> String {
        let mut rows: Vec<Vec<String>> = records.iter().map(|record| self.row(record)).collect();
        self.widen(&rows);
        if !self.has_heading && self.leave_out() {
            rows = records.iter().map(|record| self.row(record)).collect();
        }
        let widths = self.fit();
        let mut text = String::new();
        if !self.has_heading {
            let headings: Vec<String> = self.columns.iter().map(|c| c.heading.into()).collect();
            self.add_line(&headings, &widths, true, &mut text);
        }
        for row in &rows {
            self.add_row(row, &widths, &mut text);
        }
        self.has_heading = true;
        text
    }

    /// The headings of the columns that the terminal has no room for.
    pub fn left_out(&self) -> &[&'static str] {
        &self.left_out
    }

    fn row(&self, record: &Value) -> Vec<String> {
        self.columns.iter().map(|column| column.text(record, &self.display)).collect()
    }

    fn widen(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (known, cell) in self.widths.iter_mut().zip(row) {
                *known = width(cell).max(*known);
            }
        }
    }

    /// Leaves out columns until the others have a fair width. Returns whether a column was left
    /// out.
    fn leave_out(&mut self) -> bool {
        let Some(room) = self.display.width else { return false };
        loop {
            let fair = |(column, width): (&&Column, &usize)| match column.kind {
                ColumnKind::Text | ColumnKind::Wrapped => (*width).min(FAIR_WIDTH),
                ColumnKind::Time | ColumnKind::State => *width,
            };
            let needed: usize = self.columns.iter().zip(&self.widths).map(fair).sum();
            if needed + gaps(self.columns.len()) <= room {
                break;
            }
            let ranked = self.columns.iter().enumerate();
            let next = ranked.filter_map(|(at, column)| Some((column.leaves?, at))).min();
            let Some((_, at)) = next else { break };
            self.left_out.push(self.columns.remove(at).heading);
            self.widths.remove(at);
        }
        !self.left_out.is_empty()
    }

    /// The widths with which the table fits: the widest column of text becomes narrower first.
    fn fit(&self) -> Vec<usize> {
        let mut widths = self.widths.clone();
        let Some(room) = self.display.width else { return widths };
        let room = room.saturating_sub(gaps(widths.len()));
        let is_text =
            |at: usize| matches!(self.columns[at].kind, ColumnKind::Text | ColumnKind::Wrapped);
        while widths.iter().sum::<usize>() > room {
            let widest = |texts_only: bool| {
                let candidates = (0..widths.len()).filter(|at| !texts_only || is_text(*at));
                candidates.max_by_key(|at| widths[*at]).filter(|at| widths[*at] > 1)
            };
            // Times and states become narrower only after all texts are narrow.
            let texts = widest(true).filter(|at| widths[*at] > 6);
            let Some(at) = texts.or_else(|| widest(false)) else { break };
            widths[at] -= 1;
        }
        widths
    }

    fn add_row(&self, row: &[String], widths: &[usize], text: &mut String) {
        let is_wrapped =
            self.columns.last().is_some_and(|column| column.kind == ColumnKind::Wrapped);
        let (Some(last), Some(room), true) = (row.last(), widths.last(), is_wrapped) else {
            return self.add_line(row, widths, false, text);
        };
        let lines = if width(last) > *room { wrap(last, *room) } else { vec![last.clone()] };
        for (index, line) in lines.into_iter().enumerate() {
            let mut cells: Vec<String> = match index {
                0 => row.to_vec(),
                _ => vec![String::new(); row.len()],
            };
            if let Some(last) = cells.last_mut() {
                *last = line;
            }
            self.add_line(&cells, widths, false, text);
        }
    }

    fn add_line(&self, cells: &[String], widths: &[usize], is_heading: bool, text: &mut String) {
        let mut pending = 0;
        for ((cell, room), column) in cells.iter().zip(widths).zip(&self.columns) {
            let shown = cut(cell, *room);
            if !shown.is_empty() {
                text.extend(std::iter::repeat_n(' ', pending));
                pending = 0;
                text.push_str(&self.styled(&shown, column, is_heading));
            }
            pending += room - width(&shown) + GAP;
        }
        text.push('\n');
    }

    fn styled(&self, text: &str, column: &Column, is_heading: bool) -> String {
        let style = match column.kind {
            _ if !self.display.colours => None,
            _ if is_heading => Some(Style::Bold),
            ColumnKind::State => Style::of_state(text),
            _ => None,
        };
        style.map_or_else(|| text.to_owned(), |style| style.paint(text))
    }
}

fn gaps(columns: usize) -> usize {
    columns.saturating_sub(1) * GAP
}

/// Formats a value as one line.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::Bool(is_true) => if *is_true { "yes" } else { "no" }.into(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => times::utc(text).unwrap_or_else(|| printable(text)),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => pairs(fields),
    };
    if text.is_empty() { EMPTY_CELL.into() } else { text }
}

/// The text of a value, or a word for `null` and an empty list.
pub fn cell_or(value: &Value, word: &str) -> String {
    let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if is_empty { word.into() } else { cell(value) }
}

fn pairs(fields: &Map<String, Value>) -> String {
    let pair = |(name, value): (&String, &Value)| match value {
        Value::Object(_) => format!("{}: ({})", printable(name), cell(value)),
        _ => format!("{}: {}", printable(name), cell(value)),
    };
    fields.iter().map(pair).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{cli::terminal::display::Times, model::Timestamp};

    const COLUMNS: &[Column] = &[
        Column::new("ID", |r| cell(&r["id"])),
        Column::new("NAME", |r| cell(&r["name"])),
        Column::time("MADE", |r| cell_or(&r["made"], "never")).leaves(1),
    ];

    fn terminal(width: usize) -> Display {
        let now = Timestamp(86_400);
        Display { width: Some(width), colours: false, times: Times::Relative, now }
    }

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
            (json!("2027-01-01T00:00:00+00:00"), "2027-01-01T00:00:00Z"),
            (json!({ "GET": ["x", "y"], "k\x1b": { "z": 1 } }), "GET: x, y; k: (z: 1)"),
        ] {
            assert_eq!(cell(&value), text, "{value}");
        }
    }

    #[test]
    fn pages_share_one_heading_and_column_widths() {
        let mut listing = Listing::new(COLUMNS, Display::plain());
        let first = listing.page(&[json!({ "id": 1000, "name": "llama", "made": null })]);
        assert_eq!(first, "ID    NAME   MADE\n1000  llama  never\n");
        let second = listing.page(&[json!({ "id": 7, "name": "日本", "made": "-" })]);
        assert_eq!(second, "7     日本   -\n");
        assert_eq!(Listing::new(COLUMNS, Display::plain()).page(&[]), "ID  NAME  MADE\n");
    }

    #[test]
    fn table_fits_the_terminal() {
        let made = "1970-01-01T23:00:00+00:00";
        let record = |name: &str| json!({ "id": 1, "name": name, "made": made });
        let page =
            |width: usize, name: &str| Listing::new(COLUMNS, terminal(width)).page(&[record(name)]);
        assert_eq!(page(40, "ann"), "ID  NAME  MADE\n1   ann   1 hour ago\n");
        assert_eq!(page(30, &"x".repeat(40)), "ID  NAME\n1   xxxxxxxxxxxxxxxxxxxxxxxxx…\n");
        for (name, room) in [("日本語のとても長い名前です", 25), ("e\u{301}", 20), ("🦙 a", 21)]
        {
            for line in page(room, name).lines() {
                assert!(width(line) <= room, "{line}");
            }
        }
        let mut listing = Listing::new(COLUMNS, terminal(19));
        listing.page(&[record("ann")]);
        assert_eq!(listing.left_out(), ["MADE"]);
        assert_eq!(listing.page(&[record(&"y".repeat(50))]), "1   yyyyyyyyyyyyyy…\n");
    }

    #[test]
    fn last_column_can_be_wrapped() {
        const FOUND: &[Column] = &[
            Column::state("VERDICT", |r| cell(&r["verdict"])),
            Column::wrapped("FOUND", |r| cell(&r["found"])),
        ];
        let record = json!({ "verdict": "passed", "found": "a: 1; b: 2222; c: 3" });
        let text = Listing::new(FOUND, terminal(20)).page(std::slice::from_ref(&record));
        assert_eq!(text, "VERDICT  FOUND\npassed   a: 1; b:\n         2222; c: 3\n");
        let colours = Display { colours: true, ..terminal(20) };
        let text = Listing::new(FOUND, colours).page(&[record]);
        assert!(text.contains("\n\x1b[32mpassed\x1b[0m   a: 1"), "{text:?}");
    }

    #[test]
    fn table_contains_no_control_characters() {
        let record = json!({ "id": "\x1b[31m", "name": "\u{9b}1m" });
        let text = Listing::new(COLUMNS, Display::plain()).page(&[record]);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
}
