//! Uploads the rows of an imported file: reads the file, asks the API to check all rows, and then
//! sends the rows in parts.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    cli::{CliError, Exit, Session, commands::files::text::decode, terminal::progress},
    model::fold,
};

/// The maximum number of rows in one request.
const MAX_ROWS: usize = 1000;
/// After this many rows, a request ends as soon as the next row belongs to another user. So the API
/// usually checks all rows of a user together.
const SPLIT_ROWS: usize = 900;
/// The maximum number of problems in one message.
pub(in crate::cli) const MAX_PROBLEMS: usize = 100;

/// Rows to upload to the API.
pub(in crate::cli) struct Upload<'a> {
    /// The path of the API's import action.
    pub target: String,
    /// The JSON object with the fields of each request other than `rows` and `dry_run`.
    pub common: Value,
    /// The noun for the rows in the progress bar.
    pub unit: &'static str,
    /// The rows, grouped by user.
    pub rows: &'a [Value],
}

impl Upload<'_> {
    /// Asks the API to check all rows and then, unless this is a dry run, to write them. Returns
    /// the sums of the counts in the responses.
    pub async fn run(
        &self,
        dry_run: bool,
        session: &Session,
    ) -> anyhow::Result<Map<String, Value>> {
        let counts = self.check(session).await?;
        if dry_run { Ok(counts) } else { self.write(session).await }
    }

    /// Asks the API to check all parts. The error contains the problems of all parts.
    async fn check(&self, session: &Session) -> anyhow::Result<Map<String, Value>> {
        let mut found = Vec::new();
        let mut counts = Map::new();
        let bar = progress::bar(self.unit);
        bar.set_message("checked");
        bar.set_length(self.rows.len() as u64);
        for part in parts(self.rows) {
            match session.client.post(&self.target, &self.body(part, true)).await {
                Ok(response) => add(&mut counts, &response.body),
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
            found.truncate(MAX_PROBLEMS);
            return Err(refused(found, count).into());
        }
        Ok(counts)
    }

    async fn write(&self, session: &Session) -> anyhow::Result<Map<String, Value>> {
        let mut counts = Map::new();
        let bar = progress::bar(self.unit);
        bar.set_length(self.rows.len() as u64);
        for part in parts(self.rows) {
            let response = session.client.post(&self.target, &self.body(part, false)).await?;
            add(&mut counts, &response.body);
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

/// Reads a whole file. The path `-` means standard input.
pub(in crate::cli) fn read(file: &Path) -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => io::stdin().lock().read_to_end(&mut bytes),
        _ => File::open(file).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    let failed = |problem: &dyn std::fmt::Display| {
        CliError::new(Exit::Usage, format!("{}: {problem}", file.display()))
    };
    read.map_err(|problem| failed(&problem))?;
    decode(bytes).map_err(|problem| failed(&problem))
}

/// Returns the case-folded name of a row's user.
pub(in crate::cli) fn owner(row: &Value) -> String {
    fold(row["username"].as_str().unwrap_or_default())
}

fn parts(rows: &[Value]) -> Vec<&[Value]> {
    let mut parts = Vec::new();
    let mut start = 0;
    for end in 1..=rows.len() {
        let length = end - start;
        let is_new_user = || owner(&rows[end]) != owner(&rows[end - 1]);
        if end == rows.len() || length == MAX_ROWS || length >= SPLIT_ROWS && is_new_user() {
            parts.push(&rows[start..end]);
            start = end;
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

/// Returns the error for a file that has `count` problems. `errors` may list only some of the
/// problems.
pub(in crate::cli) fn refused(errors: Vec<Value>, count: usize) -> CliError {
    let text = match count {
        1 => "Nothing was imported: there is a problem.".to_owned(),
        count => format!("Nothing was imported: there are {count} problems."),
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
    fn rows_of_a_user_stay_together() {
        let rows_of = |name: &str, count: u64| {
            (0..count)
                .map(move |line| json!({ "line": line, "username": name, "key": "k" }))
                .collect::<Vec<_>>()
        };
        let rows =
            [rows_of("a", 850), rows_of("b", 100), rows_of("c", 950), rows_of("d", 2100)].concat();
        let lengths: Vec<usize> = parts(&rows).iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [950, 950, 1000, 1000, 100]);
        assert!(parts(&[]).is_empty());
        assert_eq!(parts(&rows_of("a", 1)).len(), 1);
    }
}
