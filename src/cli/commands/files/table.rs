//! Reads tables from text files: CSV as spreadsheets and other programs write it, with any usual
//! separator, with or without a heading.

/// A problem in a file: the line number and the message.
pub(in crate::cli) type Fault = (u64, String);

/// The separators that are recognized without a line `sep=`.
const SEPARATORS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// The columns of a table. Each column is a list of names for it, and the first name is the one
/// that the caller uses.
pub(in crate::cli) struct Columns {
    /// All columns, in the order of a file without a heading.
    pub all: &'static [&'static [&'static str]],
    /// How many of the first columns are required.
    pub required: usize,
}

/// A record with its columns.
pub(in crate::cli) struct TableRow<'a> {
    /// The number of the line.
    pub line: u64,
    record: &'a csv::StringRecord,
    /// The column of each field, as an index of [`Columns::all`].
    heading: &'a [usize],
    columns: &'static Columns,
}

impl TableRow<'_> {
    /// The text of a column. `None` means that the record has no such field.
    pub fn field(&self, name: &str) -> Option<String> {
        let column = self.columns.all.iter().position(|names| names[0] == name)?;
        let field = self.heading.iter().position(|known| *known == column)?;
        self.record.get(field).map(str::to_owned)
    }
}

/// Calls `each` with the records of a table.
pub(in crate::cli) fn read_table(
    text: &str,
    columns: &'static Columns,
    faults: &mut Vec<Fault>,
    mut each: impl FnMut(&TableRow<'_>, &mut Vec<Fault>),
) {
    let (text, first_line, declared) = split_separator_line(text);
    let Some(separator) = declared.or_else(|| detect_separator(text, columns)) else {
        if !text.trim().is_empty() {
            let message = "The line has only one field: separate the fields by a comma, a \
                           semicolon or a tab, or begin the file with a line such as sep=;";
            faults.push((first_line, message.into()));
        }
        return;
    };
    let mut reader = csv_reader(text, separator);
    let mut lines = Lines { text: text.as_bytes(), offset: 0, line: first_line };
    let mut heading: Vec<usize> = (0..columns.all.len()).collect();
    for (index, record) in reader.records().enumerate() {
        let record = match record {
            Ok(record) => without_empty_end(record),
            Err(problem) => {
                let line = problem.position().map_or(0, |position| lines.of(position));
                faults.push((line, "The line is not valid CSV.".into()));
                continue;
            }
        };
        let line = record.position().map_or(0, |position| lines.of(position));
        // Spreadsheets write a line of separators for an empty row.
        if record.is_empty() {
            continue;
        }
        if index == 0 && columns.is_heading(&record) {
            match columns.read_heading(&record) {
                Ok(read) => heading = read,
                Err(message) => {
                    faults.push((line, message));
                    return;
                }
            }
            continue;
        }
        if record.len() > heading.len() {
            faults.push((line, format!("The line has more than {} fields.", heading.len())));
            continue;
        }
        if record.iter().any(has_kept_quotes) {
            let message = "A field is in quotes that are part of its text: write straight quotes, \
                           without a space before or after them, or none.";
            faults.push((line, message.into()));
            continue;
        }
        each(&TableRow { line, record: &record, heading: &heading, columns }, faults);
    }
}

/// Whether the first record of a file is a heading of these columns.
pub(in crate::cli) fn has_heading(text: &str, columns: &'static Columns) -> bool {
    let (text, _, declared) = split_separator_line(text);
    let separators = declared.map_or(SEPARATORS.to_vec(), |separator| vec![separator]);
    separators.into_iter().any(|separator| {
        first_record(text, separator).is_some_and(|record| columns.has_required(&record))
    })
}

impl Columns {
    /// The column with this name. Case, and the characters between words, do not matter.
    fn find(&self, name: &str) -> Option<usize> {
        let plain = |text: &str| -> String {
            text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        let wanted = plain(name);
        self.all.iter().position(|names| names.iter().any(|name| plain(name) == wanted))
    }

    fn has_required(&self, record: &csv::StringRecord) -> bool {
        (0..self.required).all(|column| record.iter().any(|name| self.find(name) == Some(column)))
    }

    /// Whether a record is a heading: it has the required columns, or consists of words, one of
    /// which is the name of a column.
    fn is_heading(&self, record: &csv::StringRecord) -> bool {
        let is_word = |name: &str| {
            name.len() <= 24 && name.chars().all(|c| c.is_alphabetic() || " _-".contains(c))
        };
        let has_known = || record.iter().any(|name| self.find(name).is_some());
        self.has_required(record) || record.len() > 1 && record.iter().all(is_word) && has_known()
    }

    fn read_heading(&self, record: &csv::StringRecord) -> Result<Vec<usize>, String> {
        let mut heading = Vec::new();
        for name in record {
            let Some(column) = self.find(name) else {
                return Err(format!("The column {name:?} cannot be imported."));
            };
            if heading.contains(&column) {
                return Err(format!("The heading has two columns {}.", self.all[column][0]));
            }
            heading.push(column);
        }
        let missing = (0..self.required).find(|column| !heading.contains(column));
        match missing {
            Some(column) => Err(format!("The heading has no column {}.", self.all[column][0])),
            None => Ok(heading),
        }
    }
}

/// Removes a line such as `sep=;`, which spreadsheets write. Returns the text after the line, the
/// number of its first line, and the separator.
fn split_separator_line(text: &str) -> (&str, u64, Option<u8>) {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let first = first.trim_end_matches('\r').trim_matches('"');
    let declared = first.get(..4).filter(|start| start.eq_ignore_ascii_case("sep="));
    match (declared, first.as_bytes()) {
        (Some(_), [_, _, _, _, separator]) if !separator.is_ascii_alphanumeric() => {
            (rest, 2, Some(*separator))
        }
        _ => (text, 1, None),
    }
}

/// The separator of a table: the one with which the first record is a heading, else the one with
/// which its first field contains no other separator.
fn detect_separator(text: &str, columns: &Columns) -> Option<u8> {
    let records = SEPARATORS.map(|separator| (separator, first_record(text, separator)));
    let records =
        || records.iter().filter_map(|(separator, record)| Some((*separator, record.as_ref()?)));
    let is_heading = |(_, record): &(u8, &csv::StringRecord)| columns.has_required(record);
    let is_split = |(_, record): &(u8, &csv::StringRecord)| {
        let first = record.get(0).unwrap_or_default();
        record.len() > 1 && !first.bytes().any(|byte| SEPARATORS.contains(&byte))
    };
    let found = records().find(is_heading).or_else(|| records().find(is_split));
    found.map(|(separator, _)| separator)
}

fn first_record(text: &str, separator: u8) -> Option<csv::StringRecord> {
    csv_reader(text, separator).records().next()?.ok()
}

fn csv_reader(text: &str, separator: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(separator)
        .from_reader(text.as_bytes())
}

/// The record without empty fields at its end, which spreadsheets write.
fn without_empty_end(mut record: csv::StringRecord) -> csv::StringRecord {
    let last = (0..record.len()).rev().find(|field| !record[*field].is_empty());
    let used = last.map_or(0, |last| last + 1);
    record.truncate(used);
    record
}

/// Whether a field begins or ends with a quotation mark, after the reader has removed the quotes of
/// CSV.
fn has_kept_quotes(field: &str) -> bool {
    let is_quote = |c: char| "\"“”„«»".contains(c);
    field.chars().count() > 1 && field.starts_with(is_quote) && field.ends_with(is_quote)
}

/// Counts lines up to a byte offset. The CSV reader's line numbers are one too low if lines end
/// with CR LF.
struct Lines<'a> {
    text: &'a [u8],
    /// The offset up to which `line` is counted.
    offset: usize,
    line: u64,
}

impl Lines<'_> {
    /// Returns the line of the record at `position`, which must follow the previous record.
    fn of(&mut self, position: &csv::Position) -> u64 {
        let begin = (position.byte() as usize).min(self.text.len());
        let blank = self.text[begin..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let end = (begin + blank).max(self.offset);
        self.line += self.text[self.offset..end].iter().filter(|b| **b == b'\n').count() as u64;
        self.offset = end;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: Columns =
        Columns { all: &[&["username", "user"], &["key", "api_key"], &["label"]], required: 2 };

    type Row = (u64, Option<String>, Option<String>, Option<String>);

    fn read(text: &str) -> (Vec<Row>, Vec<Fault>) {
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        read_table(text, &COLUMNS, &mut faults, |row, _| {
            let field = |name| row.field(name);
            rows.push((row.line, field("username"), field("key"), field("label")));
        });
        (rows, faults)
    }

    fn pair(line: u64, user: &str, key: &str) -> Row {
        (line, Some(user.into()), Some(key.into()), None)
    }

    #[test]
    fn every_usual_separator_is_recognized() {
        for separator in [",", ";", "\t", "|"] {
            for heading in ["", "user,key\n", "User,API-Key\n", "USERNAME,\"Api Key\"\n"] {
                let text = format!("{heading}ann,key-of-ann\nbob,key-of-bob\n");
                let first = if heading.is_empty() { 1 } else { 2 };
                let expected =
                    vec![pair(first, "ann", "key-of-ann"), pair(first + 1, "bob", "key-of-bob")];
                assert_eq!(read(&text.replace(',', separator)), (expected, vec![]), "{text}");
            }
        }
        // A separator that occurs in a key is not the separator.
        assert_eq!(read("ann;a,b").0, [pair(1, "ann", "a,b")]);
        assert_eq!(read("user;key\nann;a,b").0, [pair(2, "ann", "a,b")]);
        for text in ["sep=;\r\nann;a,b", "SEP=;\nann;a,b", "\"sep=;\"\nann;a,b"] {
            assert_eq!(read(text), (vec![pair(2, "ann", "a,b")], vec![]), "{text}");
        }
        assert_eq!(read("sep=#\nann#k").0, [pair(2, "ann", "k")]);
        let (rows, faults) = read("ann key\nbob key\n");
        assert_eq!((rows.len(), faults.len(), faults[0].0), (0, 1, 1));
        assert!(faults[0].1.contains("semicolon"), "{faults:?}");
        assert_eq!(read(""), (vec![], vec![]));
    }

    #[test]
    fn order_of_the_heading_counts_and_mistakes_in_it_are_named() {
        let row = (2, Some("ann".into()), Some("k".into()), Some("x".into()));
        assert_eq!(read("Label;key;User\nx;k;ann").0, [row]);
        for (heading, message) in [
            ("username,token", "The column \"token\" cannot be imported."),
            ("username,label", "The heading has no column key."),
            ("username,key,Api Key", "The heading has two columns key."),
            ("key,user,shoe", "The column \"shoe\" cannot be imported."),
        ] {
            let (rows, faults) = read(&format!("{heading}\nann,k\n"));
            assert_eq!((rows.len(), faults), (0, vec![(1, message.to_owned())]), "{heading}");
        }
        assert!(has_heading("key;user\n", &COLUMNS) && !has_heading("a;b\n", &COLUMNS));
    }

    #[test]
    fn empty_rows_and_separators_at_the_end_are_ignored() {
        let (rows, faults) = read("user,key,,\r\n,,,\r\n\r\nann,k1,,,\r\nbob,k2\r\n,,\n");
        assert_eq!((rows, faults), (vec![pair(4, "ann", "k1"), pair(5, "bob", "k2")], vec![]));
        assert_eq!(read("user,key\nann,k,x\n").1.len(), 1);
    }

    #[test]
    fn quotes_that_are_part_of_a_field_are_refused() {
        for text in ["ann, \"k1\"\n", "ann,“k1”\n", "ann,„k1“\n"] {
            let (rows, faults) = read(text);
            assert_eq!((rows.len(), faults.len()), (0, 1), "{text}");
        }
        let (rows, _) = read("ann,\"k,\"\"1\"\nbob,k\"2\n");
        assert_eq!(rows, [pair(1, "ann", "k,\"1"), pair(2, "bob", "k\"2")]);
    }
}
