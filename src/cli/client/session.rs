//! The operations on records that all commands share: listing, showing, adding, updating and
//! deleting records through the API, and printing the result.

use serde_json::{Map, Value};

use super::{AdminClient, ApiResponse, paths::with_query};
use crate::cli::{
    CliError, Exit, Output,
    terminal::{
        confirm::{self, Change},
        display::DisplayOptions,
        prompt::Confirmation,
        record,
        screen::{Screen, printable},
        table::{Column, Listing},
    },
};

/// The maximum number of records in one page of a list.
const PAGE_SIZE: usize = 100;
/// The number of records in one page of a list that is only counted.
const COUNT_PAGE_SIZE: usize = 1000;
/// The maximum number of attempts of one update, if other clients change the record at the same
/// time.
const MAX_ATTEMPTS: usize = 5;

/// A client of the API, with the output format and the streams of one command.
pub struct Session {
    /// The client of the API.
    pub client: AdminClient,
    /// The output format.
    pub output: Output,
    /// The streams that the command writes to.
    pub screen: Screen,
}

impl Session {
    /// Creates a session that writes to standard output and standard error.
    pub fn new(client: AdminClient, output: Output) -> Self {
        Self { client, output, screen: Screen::process() }
    }

    /// Shows the output with these options.
    pub fn with_display(self, options: DisplayOptions) -> Self {
        Self { screen: Screen::with_options(options), ..self }
    }

    /// Reports the result of a command: prints `counts` as JSON for programs, or calls `print_text`
    /// for people.
    pub fn report(
        &self,
        counts: &Map<String, Value>,
        print_text: impl FnOnce(&Screen),
    ) -> anyhow::Result<()> {
        match self.output {
            Output::Json => self.show(&Value::Object(counts.clone())),
            Output::Table => {
                print_text(&self.screen);
                Ok(())
            }
        }
    }

    /// Prints a list page by page, at most `limit` records.
    pub async fn list(
        &self,
        target: &str,
        limit: Option<usize>,
        columns: &'static [Column],
    ) -> anyhow::Result<()> {
        let mut listing = Listing::new(columns, self.screen.display());
        let mut remaining = limit.unwrap_or(usize::MAX);
        let mut cursor = None;
        let mut separator = "[\n";
        loop {
            let (mut items, next) =
                self.page(target, remaining.min(PAGE_SIZE), cursor.as_deref()).await?;
            items.truncate(remaining);
            remaining -= items.len();
            let is_last = next.is_none() || remaining == 0;
            match self.output {
                // A page of a filtered list can be empty although more pages follow. The first
                // records decide about the columns.
                Output::Table if items.is_empty() && !is_last => {}
                Output::Table => self.screen.print_styled(&listing.page(&items))?,
                Output::Json => {
                    self.screen.print(&array_part(&items, &mut separator, is_last))?;
                }
            }
            if is_last {
                self.name_left_out(&listing);
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Says which columns the terminal has no room for.
    fn name_left_out(&self, listing: &Listing) {
        if let [_, ..] = listing.left_out() {
            let columns = listing.left_out().join(", ");
            self.screen.note(&format!("Not shown: {columns}. All columns: --wide\n"));
        }
    }

    /// Returns one page of a list, and the cursor of the next page. `None` means the last page.
    pub async fn page(
        &self,
        target: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), CliError> {
        let limit = limit.max(1).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.map(|cursor| ("after", cursor)));
        let (path, filters) = target.split_once('?').unwrap_or((target, ""));
        let filters: Vec<(String, String)> =
            form_urlencoded::parse(filters.as_bytes()).into_owned().collect();
        query.extend(filters.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut body = self.client.get(&with_query(path, &query)).await?.body;
        let next = body["next"].as_str().map(str::to_owned);
        if next.is_some() && next.as_deref() == after {
            return Err(CliError::new(
                Exit::Failed,
                "The server repeats the same page of the list.",
            ));
        }
        match body["items"].take() {
            Value::Array(items) => Ok((items, next)),
            _ => Err(CliError::new(
                Exit::Failed,
                "The server's response is not a list. Is the server Keyward?",
            )),
        }
    }

    /// Prints a record.
    pub fn show(&self, record: &Value) -> anyhow::Result<()> {
        match self.output {
            Output::Table => {
                let text = record::record(record, &self.screen.display());
                self.screen.print_styled(&text)?;
            }
            Output::Json => self.screen.print(&format!("{record:#}\n"))?,
        }
        Ok(())
    }

    /// Prints a record for programs, or a line for people.
    fn confirm(&self, record: &Value, line: &str) -> anyhow::Result<()> {
        match self.output {
            Output::Table => Ok(self.screen.say(line)?),
            Output::Json => self.show(record),
        }
    }

    /// Gets a record and prints it.
    pub async fn get(&self, target: &str) -> anyhow::Result<()> {
        self.show(&self.client.get(target).await?.body)
    }

    /// Creates a record and confirms it.
    pub async fn add(&self, target: &str, record: &Map<String, Value>) -> anyhow::Result<()> {
        let created = self.client.post(target, &Value::Object(record.clone())).await?;
        let line = confirm::created(kind(target), &created.body);
        self.confirm(&created.body, &line)?;
        self.note_warnings(&created.warnings);
        Ok(())
    }

    /// Updates a record and confirms the change. `change` edits a copy of the current record, and
    /// the request contains only the changed fields. If another client changes the record before
    /// the request arrives, the update starts again.
    pub async fn update(
        &self,
        target: &str,
        change: impl Fn(&mut Map<String, Value>),
    ) -> anyhow::Result<()> {
        let change = |record: &mut Map<String, Value>, _: &mut Vec<String>| {
            change(record);
            Ok(())
        };
        self.edit(target, change).await
    }

    /// Updates a record as [`Session::update`] does, without printing it. `change` may refuse the
    /// record, and may add notes, which are printed.
    pub async fn updated(
        &self,
        target: &str,
        change: impl Fn(&mut Map<String, Value>, &mut Vec<String>) -> Result<(), CliError>,
    ) -> Result<Change, CliError> {
        let mut attempts = 1;
        loop {
            let mut notes = Vec::new();
            match self.try_update(target, &change, &mut notes).await {
                Err(problem) if problem.is_stale() && attempts < MAX_ATTEMPTS => attempts += 1,
                updated => {
                    let updated = updated?;
                    for note in notes {
                        self.screen.note(&format!("{}\n", printable(&note)));
                    }
                    return Ok(updated);
                }
            }
        }
    }

    /// The line that confirms a change. That of a user who was blocked or unblocked has the number
    /// of the keys that this concerns.
    async fn change_line(&self, target: &str, change: &Change) -> Result<String, CliError> {
        let kind = kind(target);
        let keys = if kind == "user" && change.before["active"] != change.after["active"] {
            Some(self.count(&format!("{target}/keys?state=active")).await?)
        } else {
            None
        };
        Ok(confirm::changed(kind, change, keys))
    }

    /// The number of records in a list.
    async fn count(&self, target: &str) -> Result<usize, CliError> {
        let (mut count, mut cursor) = (0, None);
        loop {
            let (items, next) = self.page(target, COUNT_PAGE_SIZE, cursor.as_deref()).await?;
            count += items.len();
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(count),
            }
        }
    }

    /// Updates a record as [`Session::updated`] does, and confirms the change.
    pub async fn edit(
        &self,
        target: &str,
        change: impl Fn(&mut Map<String, Value>, &mut Vec<String>) -> Result<(), CliError>,
    ) -> anyhow::Result<()> {
        let change = self.updated(target, change).await?;
        let line = self.change_line(target, &change).await?;
        self.confirm(&change.after, &line)?;
        self.note_warnings(&change.warnings);
        Ok(())
    }

    async fn try_update(
        &self,
        target: &str,
        change: &impl Fn(&mut Map<String, Value>, &mut Vec<String>) -> Result<(), CliError>,
        notes: &mut Vec<String>,
    ) -> Result<Change, CliError> {
        let found = self.client.get(target).await?;
        let Value::Object(before) = &found.body else {
            return Err(CliError::new(
                Exit::Failed,
                "The server's response is not a record. Is the server Keyward?",
            ));
        };
        let mut after = before.clone();
        change(&mut after, notes)?;
        let patch = difference(before, &after);
        let sent = patch.keys().cloned().collect::<Vec<_>>();
        if sent.is_empty() {
            let (before, after) = (found.body.clone(), found.body);
            return Ok(Change { before, after, sent, warnings: Vec::new() });
        }
        let changed = self.client.patch(target, &Value::Object(patch), found.etag).await?;
        let ApiResponse { body: after, warnings, .. } = changed;
        Ok(Change { before: found.body, after, sent, warnings })
    }

    /// Prints the advice of the API about a change.
    pub fn note_warnings(&self, warnings: &[String]) {
        for warning in warnings {
            self.screen.note(&format!("Warning: {}\n", printable(warning)));
        }
    }

    /// Deletes a record after confirmation. Messages call the record `name`.
    pub async fn remove(
        &self,
        target: &str,
        name: &str,
        confirmation: Confirmation,
    ) -> anyhow::Result<()> {
        // A missing record is an error before the user is asked for confirmation.
        self.client.get(target).await?;
        confirmation.ask(&format!("Delete the {}?", printable(name)))?;
        self.client.delete(target).await?;
        if self.output == Output::Table {
            self.screen.note(&format!("The {} is deleted.\n", printable(name)));
        }
        Ok(())
    }
}

/// The kind of the records at a path of the API.
fn kind(target: &str) -> &'static str {
    match target.trim_start_matches("/api/v1/").split(['/', '?']).next() {
        Some("users") => "user",
        Some("keys") => "key",
        Some("roles") => "role",
        Some("applications") => "application",
        _ => "resource",
    }
}

/// Returns a part of a JSON array, one item per line. `separator` is the text before the next item.
fn array_part(items: &[Value], separator: &mut &str, is_last: bool) -> String {
    let mut text = String::new();
    for item in items {
        text.push_str(std::mem::replace(separator, ",\n"));
        text.push_str(&item.to_string());
    }
    match (is_last, *separator) {
        (true, ",\n") => text.push_str("\n]\n"),
        (true, _) => text.push_str("[]\n"),
        (false, _) => {}
    }
    text
}

/// Returns the merge patch (RFC 7396) that turns `before` into `after`. The patch contains each
/// `null` in `after`, even if `before` lacks the field: records do not show some fields, such as a
/// password, and `null` clears them.
pub fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let removed = before.keys().filter(|name| !after.contains_key(*name));
    let mut patch: Map<String, Value> = removed.map(|name| (name.clone(), Value::Null)).collect();
    for (name, value) in after {
        match (before.get(name), value) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(name.clone(), Value::Object(difference(old, new)));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn difference_contains_only_changed_fields() {
        let before =
            object(json!({ "a": 1, "b": [1], "c": { "x": 1, "y": 2 }, "d": "gone", "e": ["x"] }));
        let after =
            object(json!({ "a": 1, "b": [2], "c": { "y": 3 }, "p": null, "e": { "x": 1 } }));
        let patch = Value::Object(difference(&before, &after));
        assert_eq!(
            patch,
            json!({ "d": null, "b": [2], "c": { "x": null, "y": 3 }, "p": null, "e": { "x": 1 } })
        );
        assert!(difference(&before, &before).is_empty());
    }

    #[test]
    fn array_parts_form_valid_json() {
        let mut separator = "[\n";
        let mut text = array_part(&[json!(1)], &mut separator, false);
        text.push_str(&array_part(&[], &mut separator, false));
        text.push_str(&array_part(&[json!(2)], &mut separator, true));
        assert_eq!(text, "[\n1,\n2\n]\n");
        assert_eq!(array_part(&[], &mut "[\n", true), "[]\n");
    }
}
