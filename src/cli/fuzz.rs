//! Checks of imported files with any input, for the fuzz targets.

use serde_json::Value;

use super::commands::{
    key::import::{self, Fault},
    user::htpasswd,
};

/// Checks a file of keys or passwords. The first byte chooses the format.
///
/// # Panics
/// A reader panics, reads a row without a user or a key, or reads a written file as another one.
pub fn imported_file(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut faults: Vec<Fault> = Vec::new();
    let (rows, secret) = match choice % 4 {
        0 => (import::from_csv(text, &mut faults), "key"),
        1 => (import::from_jsonl(text, &mut faults), "key"),
        2 => (import::kong::read(text, &mut faults), "key"),
        _ => (htpasswd::rows(text, &mut faults), "password_digest"),
    };
    for row in &rows {
        let is_text = |name: &str| row[name].as_str().is_some_and(|text| !text.is_empty());
        // A digest may be empty in the file; the API refuses it.
        assert!(is_text("username") && (is_text(secret) || secret != "key"), "{row}");
        assert!(row["line"].as_u64().is_some_and(|line| line > 0), "{row}");
    }
    if choice % 4 == 0 {
        let again = import::from_csv(&written(&rows), &mut Vec::new());
        let pairs = |rows: &[Value]| -> Vec<_> {
            rows.iter().map(|row| (row["username"].clone(), row["key"].clone())).collect()
        };
        assert_eq!(pairs(&again), pairs(&rows));
    }
}

/// The users and keys of rows as CSV, with a heading.
fn written(rows: &[Value]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["username", "key"]).expect("memory is written");
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        writer.write_record([text("username"), text("key")]).expect("memory is written");
    }
    let bytes = writer.into_inner().expect("memory is written");
    String::from_utf8(bytes).expect("the rows are text")
}
