//! Uploads an imported file: reads it, has all of it checked, and then sends it in parts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::cli::{CliError, Exit, Session};

/// The maximum number of rows of one request.
const MOST: usize = 1000;
/// From this many rows, a request ends at the next user, so that errors about a user cover all its
/// rows.
const ENOUGH: usize = 900;
/// The maximum number of problems in one message.
pub(in crate::cli) const MOST_FAULTS: usize = 100;

/// Rows to upload to the API.
pub(in crate::cli) struct Upload<'a> {
    /// The path.
    pub target: String,
    /// The other fields of each request: an object.
    pub common: Value,
    /// The noun for the rows.
    pub unit: &'static str,
    /// The rows, grouped by user.
    pub rows: &'a [Value],
}

impl Upload<'_> {
    /// Has all rows checked and then, unless this is a dry run, written. Returns the sum of the
    /// responses' counts.
    pub async fn run(
        &self,
        dry_run: bool,
        session: &Session,
    ) -> anyhow::Result<Map<String, Value>> {
        let seen = self.look(session).await?;
        if dry_run { Ok(seen) } else { self.write(session).await }
    }

    /// All problems that the API finds, of all parts.
    async fn look(&self, session: &Session) -> anyhow::Result<Map<String, Value>> {
        let mut found = Vec::new();
        let mut counts = Map::new();
        let bar = super::key::bulk::bar(self.unit);
        bar.set_message("looked at");
        bar.set_length(self.rows.len() as u64);
        for part in parts(self.rows) {
            match session.client.post(&self.target, &self.body(part, true)).await {
                Ok(answer) => add(&mut counts, &answer.body),
                Err(problem) => match problem.problem["errors"].as_array() {
                    Some(errors) => found.extend(errors.iter().cloned()),
                    None => return Err(problem.into()),
                },
            }
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
        if !found.is_empty() {
            let count = found.len();
            found.truncate(MOST_FAULTS);
            return Err(refused(found, count).into());
        }
        Ok(counts)
    }

    async fn write(&self, session: &Session) -> anyhow::Result<Map<String, Value>> {
        let mut counts = Map::new();
        let bar = super::key::bulk::bar(self.unit);
        bar.set_length(self.rows.len() as u64);
        for part in parts(self.rows) {
            let made = session.client.post(&self.target, &self.body(part, false)).await?;
            add(&mut counts, &made.body);
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
        Ok(counts)
    }

    fn body(&self, rows: &[Value], dry_run: bool) -> Value {
        let mut body = self.common.clone();
        body["dry_run"] = dry_run.into();
        body["rows"] = rows.into();
        body
    }
}

/// Reads a whole file; - is standard input.
pub(in crate::cli) fn read(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let read = match file.to_str() {
        Some("-") => io::stdin().lock().read_to_string(&mut text),
        _ => File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|problem| CliError::new(Exit::Usage, format!("{}: {problem}", file.display())))?;
    // Some spreadsheets write a byte order mark.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// The user of a row.
pub(in crate::cli) fn owner(row: &Value) -> String {
    row["username"].as_str().unwrap_or_default().to_lowercase()
}

fn parts(rows: &[Value]) -> Vec<&[Value]> {
    let mut parts = Vec::new();
    let mut begin = 0;
    for at in 1..=rows.len() {
        let length = at - begin;
        let is_new_user = || owner(&rows[at]) != owner(&rows[at - 1]);
        if at == rows.len() || length == MOST || length >= ENOUGH && is_new_user() {
            parts.push(&rows[begin..at]);
            begin = at;
        }
    }
    parts
}

fn add(counts: &mut Map<String, Value>, part: &Value) {
    for (name, count) in part.as_object().into_iter().flatten() {
        let sum = counts.get(name).and_then(Value::as_u64).unwrap_or_default();
        counts.insert(name.clone(), (sum + count.as_u64().unwrap_or_default()).into());
    }
}

/// The error for a whole file.
pub(in crate::cli) fn refused(errors: Vec<Value>, count: usize) -> CliError {
    let text = match count {
        1 => "Nothing was imported: one line is not in order.".to_owned(),
        count => format!("Nothing was imported: {count} things are not in order."),
    };
    let mut failure = CliError::new(Exit::Refused, text);
    failure.problem["errors"] = errors.into();
    failure
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_keys_of_a_user_stay_together() {
        let of = |name: &str, count: u64| {
            (0..count)
                .map(move |at| json!({ "line": at, "username": name, "key": "k" }))
                .collect::<Vec<_>>()
        };
        let rows = [of("a", 850), of("b", 100), of("c", 950), of("d", 2100)].concat();
        let lengths: Vec<usize> = parts(&rows).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [950, 950, 1000, 1000, 100]);
        assert!(parts(&[]).is_empty());
        assert_eq!(parts(&of("a", 1)).len(), 1);
    }
}
