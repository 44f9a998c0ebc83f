//! The rows of a Drupal database: from an SQL dump, or from a folder of CSV files. Rows are read
//! one at a time.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    dump::Dump,
    row::{Cell, Row},
};
use crate::cli::{CliError, Exit};

/// The separators of CSV files.
const SEPARATORS: [u8; 3] = [b',', b';', b'\t'];
/// The size of the buffer of a CSV file, which must contain the heading.
const BUFFER: usize = 64 * 1024;

/// A database on disk.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// The text before the names of all tables.
    prefix: String,
}

/// The rows of some tables.
pub(super) enum Rows {
    Dump(Dump<File>),
    Folder(Folder),
}

impl Source {
    /// Checks that the path leads to a dump or to a folder.
    pub fn open(path: &Path, prefix: &str) -> Result<Self, CliError> {
        let refuse =
            |problem: &str| CliError::new(Exit::Usage, format!("{}: {problem}", path.display()));
        if path.as_os_str() == "-" {
            return Err(refuse("give a file: the dump is read several times"));
        }
        if !path.is_dir() {
            let mut start = [0; 4];
            let mut file = File::open(path).map_err(|problem| refuse(&problem.to_string()))?;
            let length = file.read(&mut start).map_err(|problem| refuse(&problem.to_string()))?;
            match &start[..length] {
                [0x1F, 0x8B, ..] => return Err(refuse("decompress the dump with gunzip first")),
                b"PGDM" => return Err(refuse("write the dump as text: pg_dump --format=plain")),
                [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => {
                    return Err(refuse("the dump is UTF-16: in PowerShell, use --result-file"));
                }
                _ => {}
            }
        }
        Ok(Self { path: path.to_owned(), prefix: prefix.to_owned() })
    }

    /// Reads the rows of some tables, in the order of the dump.
    pub fn rows(&self, tables: &[&str]) -> Result<Rows, CliError> {
        let mut tables: Vec<Arc<str>> = tables.iter().map(|table| Arc::from(*table)).collect();
        tables.sort();
        tables.dedup();
        if self.path.is_dir() {
            return Ok(Rows::Folder(Folder {
                folder: self.path.clone(),
                prefix: self.prefix.clone(),
                tables: tables.into_iter().rev().collect(),
                current: None,
            }));
        }
        let file = File::open(&self.path).map_err(|problem| self.failed(&problem))?;
        Ok(Rows::Dump(Dump::new(file, tables, self.prefix.clone())))
    }

    /// The error for a dump that cannot be read.
    pub fn failed(&self, problem: &dyn std::fmt::Display) -> CliError {
        CliError::new(Exit::Usage, format!("{}: {problem}", self.path.display()))
    }
}

impl Rows {
    /// Reads a row. `None` means that there are no more.
    pub fn next(&mut self) -> Result<Option<Row>, String> {
        match self {
            Self::Dump(dump) => dump.next(),
            Self::Folder(folder) => folder.next(),
        }
    }
}

/// Reads CSV files, each of which is named after its table.
pub(super) struct Folder {
    folder: PathBuf,
    prefix: String,
    /// The tables that are still to read, the next one last.
    tables: Vec<Arc<str>>,
    current: Option<OpenTable>,
}

/// A table that is being read: its name, its columns and its file.
type OpenTable = (Arc<str>, Arc<[String]>, csv::Reader<BufReader<File>>);

impl Folder {
    fn next(&mut self) -> Result<Option<Row>, String> {
        loop {
            if let Some((table, columns, reader)) = &mut self.current {
                let mut record = csv::ByteRecord::new();
                let line = reader.position().line();
                let read = reader.read_byte_record(&mut record);
                match read {
                    Ok(true) => {
                        let cells = record.iter().zip(columns.iter());
                        let cells = cells.map(|(bytes, column)| csv_cell(bytes, column)).collect();
                        let (table, columns) = (table.clone(), columns.clone());
                        return Ok(Some(Row { table, line, columns, cells }));
                    }
                    Ok(false) => self.current = None,
                    Err(problem) => return Err(format!("{table}.csv, line {line}: {problem}")),
                }
            }
            let Some(table) = self.tables.pop() else { return Ok(None) };
            let path = self.folder.join(format!("{}{table}.csv", self.prefix));
            if path.exists() {
                let (columns, reader) =
                    open_csv(&path).map_err(|problem| format!("{table}.csv: {problem}"))?;
                self.current = Some((table, columns, reader));
            }
        }
    }
}

fn csv_cell(bytes: &[u8], column: &str) -> Cell {
    match bytes {
        b"\\N" => Cell::Null,
        b"NULL" if column != "name" => Cell::Null,
        bytes => Cell::Bytes(bytes.to_vec()),
    }
}

type OpenCsv = (Arc<[String]>, csv::Reader<BufReader<File>>);

fn open_csv(path: &Path) -> Result<OpenCsv, String> {
    let file = File::open(path).map_err(|problem| problem.to_string())?;
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let start = reader.fill_buf().map_err(|problem| problem.to_string())?;
    if start.starts_with(b"\xFF\xFE") || start.starts_with(b"\xFE\xFF") {
        return Err("the file is UTF-16: save it as UTF-8".into());
    }
    let mark = if start.starts_with(b"\xEF\xBB\xBF") { 3 } else { 0 };
    let heading = start[mark..].split(|byte| *byte == b'\n').next().unwrap_or_default();
    let count = |separator: u8| heading.iter().filter(|byte| **byte == separator).count();
    let separator = SEPARATORS.into_iter().max_by_key(|separator| count(*separator));
    reader.consume(mark);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator.unwrap_or(b','))
        .flexible(true)
        .from_reader(reader);
    let headers = reader.headers().map_err(|problem| problem.to_string())?;
    let columns: Arc<[String]> = headers.iter().map(|name| name.trim().to_lowercase()).collect();
    Ok((columns, reader))
}
