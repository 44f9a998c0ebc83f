//! The report of `key scan`: a line for each key, the JSON for programs, or SARIF for code hosts.

use std::io;

use serde_json::{Value, json};

use super::{finding::Finding, owners::Owners, sarif};
use crate::{
    cli::{
        Format,
        terminal::{
            screen::{Screen, printable},
            table::{Column, Listing, cell},
        },
    },
    model::{Form, Found, KeyId},
};

/// The maximum number of keys in JSON and SARIF, which are printed at the end. Further keys are
/// only counted.
const MAX_LISTED: usize = 100_000;
/// The maximum number of different keys whose owners are asked for.
const MAX_ASKED: usize = 1_000;

const COLUMNS: &[Column] = &[
    Column::new("ID", |key| cell(&key["id"])),
    Column::new("USER", |key| cell(&key["username"])),
    Column::new("LABEL", |key| cell(&key["label"])).leaves(1),
    Column::state("STATE", |key| cell(&key["state"])),
];

pub struct Report<'a> {
    format: Format,
    screen: &'a Screen,
    keys: u64,
    /// The found keys, for formats that are printed at the end.
    findings: Vec<Finding>,
    ids: Vec<KeyId>,
}

impl<'a> Report<'a> {
    pub fn new(format: Format, screen: &'a Screen) -> Self {
        Self { format, screen, keys: 0, findings: Vec::new(), ids: Vec::new() }
    }

    /// The ids of the found keys, each one once.
    pub fn ids(&self) -> &[KeyId] {
        &self.ids
    }

    /// Adds a key. A line for people is printed at once.
    pub fn add(&mut self, finding: Finding) -> io::Result<()> {
        self.keys += 1;
        let id = finding.found.id;
        if self.ids.len() < MAX_ASKED && !self.ids.contains(&id) {
            self.ids.push(id);
        }
        if self.format == Format::Table {
            self.screen.print(&line(&finding))?;
        } else if self.findings.len() < MAX_LISTED {
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Prints the rest of the report, and returns the number of keys.
    pub fn finish(&self, owners: &Owners, is_complete: bool) -> io::Result<u64> {
        if self.keys > self.findings.len() as u64 && self.format != Format::Table {
            self.screen.note(&format!("Only the first {MAX_LISTED} keys are listed.\n"));
        }
        let text = match self.format {
            Format::Table => match &owners.store {
                Some(store) => {
                    let keys: Vec<Value> = self.ids.iter().map(|id| owners.record(*id)).collect();
                    let rows = Listing::new(COLUMNS, self.screen.display()).page(&keys);
                    self.screen.print(&format!("\nIn the store {}:\n", printable(store)))?;
                    self.screen.print_styled(&rows)?;
                    return Ok(self.keys);
                }
                None => String::new(),
            },
            Format::Json => {
                let entries: Vec<Value> =
                    self.findings.iter().map(|finding| entry(finding, owners)).collect();
                format!("{:#}\n", Value::from(entries))
            }
            Format::Sarif => format!("{:#}\n", sarif::log(&self.findings, owners, is_complete)),
        };
        self.screen.print(&text)?;
        Ok(self.keys)
    }
}

/// Formats a key as `file:line:column: id prefix…last four`. Editors can jump to such a place.
fn line(Finding { file, is_content, found }: &Finding) -> String {
    let Found { line, column, id, prefix, last_four, form } = found;
    let form = match (is_content, form) {
        (false, _) => " (in the name)",
        (true, Form::Plain) => "",
        (true, Form::Escaped) => " (escaped, folded or in UTF-16)",
        (true, Form::Encoded) => " (in a Base64 credential)",
    };
    let place = if *is_content { format!("{line}:{column}:") } else { String::new() };
    format!("{}:{place} {id} {prefix}…{last_four}{form}\n", printable(file))
}

fn entry(finding: &Finding, owners: &Owners) -> Value {
    let Finding { file, is_content, found } = finding;
    let mut entry = json!({
        "file": file,
        "line": is_content.then_some(found.line),
        "column": is_content.then_some(found.column),
        "id": found.id,
        "prefix": found.prefix,
        "last_four": found.last_four,
        "form": finding.form(),
    });
    if owners.store.is_some() {
        let record = owners.record(found.id);
        for name in ["state", "user", "username", "label"] {
            entry[name] = record[name].clone();
        }
    }
    entry
}
