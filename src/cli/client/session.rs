//! One command's talk with the API: what every noun does with records, and how it is shown.

use serde_json::{Map, Value};

use super::{Client, paths::with_query};
use crate::cli::{
    Exit, Failure, Output,
    terminal::{
        prompt::Consent,
        screen::{Screen, printable},
        table::{self, Column, Listing},
    },
};

/// The records of one request of a list.
const PAGE: usize = 100;
/// How often a change is tried again when somebody else changed the same record in between.
const TRIES: usize = 5;

/// A client, and the form of its answers.
pub struct Session {
    /// The client.
    pub client: Client,
    /// The form.
    pub output: Output,
    /// Where they are written.
    pub screen: Screen,
}

impl Session {
    /// A session on the process's own streams.
    pub fn new(client: Client, output: Output) -> Self {
        Self { client, output, screen: Screen::process() }
    }

    /// Says what came of something: to a program as JSON, to a person in words.
    pub fn tell(
        &self,
        counts: &Map<String, Value>,
        words: impl FnOnce(&Screen),
    ) -> anyhow::Result<()> {
        match self.output {
            Output::Json => self.show(&Value::Object(counts.clone())),
            Output::Table => {
                words(&self.screen);
                Ok(())
            }
        }
    }

    /// Prints a list as it comes, `limit` records at most.
    pub async fn list(
        &self,
        target: &str,
        limit: Option<usize>,
        columns: &'static [Column],
    ) -> anyhow::Result<()> {
        let mut listing = Listing::new(columns);
        let mut left = limit.unwrap_or(usize::MAX);
        let mut cursor = None;
        let mut separator = "[\n";
        loop {
            let (mut items, next) = self.page(target, left.min(PAGE), cursor.as_deref()).await?;
            items.truncate(left);
            left -= items.len();
            let is_last = next.is_none() || left == 0;
            self.screen.print(&match self.output {
                Output::Table => listing.page(&items),
                Output::Json => array_part(&items, &mut separator, is_last),
            })?;
            if is_last {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// One page of a list, and where the next one begins.
    pub async fn page(
        &self,
        target: &str,
        limit: usize,
        after: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let limit = limit.max(1).to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.map(|cursor| ("after", cursor)));
        let (path, more) = target.split_once('?').unwrap_or((target, ""));
        let given: Vec<(String, String)> =
            form_urlencoded::parse(more.as_bytes()).into_owned().collect();
        query.extend(given.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let mut body = self.client.get(&with_query(path, &query)).await?.body;
        let next = body["next"].as_str().map(str::to_owned);
        if next.is_some() && next.as_deref() == after {
            return Err(Failure::new(
                Exit::Failed,
                "The list does not go on where it says it does.",
            ));
        }
        match body["items"].take() {
            Value::Array(items) => Ok((items, next)),
            _ => Err(Failure::new(Exit::Failed, "The server's answer is no list. Is it Keyward?")),
        }
    }

    /// Prints a record.
    pub fn show(&self, record: &Value) -> anyhow::Result<()> {
        let text = match self.output {
            Output::Table => table::record(record),
            Output::Json => format!("{record:#}\n"),
        };
        Ok(self.screen.print(&text)?)
    }

    /// Gets a record and prints it.
    pub async fn get(&self, target: &str) -> anyhow::Result<()> {
        self.show(&self.client.get(target).await?.body)
    }

    /// Makes a record and prints it.
    pub async fn add(&self, target: &str, record: &Map<String, Value>) -> anyhow::Result<()> {
        let made = self.client.post(target, &Value::Object(record.clone())).await?;
        self.show(&made.body)
    }

    /// Changes a record and prints it. `change` gets it as it is; what it changes, and nothing else, is sent.
    pub async fn amend(
        &self,
        target: &str,
        change: impl Fn(&mut Map<String, Value>),
    ) -> anyhow::Result<()> {
        let mut tries = 1;
        loop {
            match self.try_to_amend(target, &change).await {
                Err(problem) if problem.is_stale() && tries < TRIES => tries += 1,
                amended => return self.show(&amended?),
            }
        }
    }

    async fn try_to_amend(
        &self,
        target: &str,
        change: &impl Fn(&mut Map<String, Value>),
    ) -> Result<Value, Failure> {
        let found = self.client.get(target).await?;
        let Value::Object(before) = &found.body else {
            return Err(Failure::new(
                Exit::Failed,
                "The server's answer is no record. Is it Keyward?",
            ));
        };
        let mut after = before.clone();
        change(&mut after);
        let patch = difference(before, &after);
        if patch.is_empty() {
            return Ok(found.body);
        }
        Ok(self.client.patch(target, &Value::Object(patch), found.etag).await?.body)
    }

    /// Takes a record away, with consent.
    pub async fn remove(&self, target: &str, what: &str, consent: Consent) -> anyhow::Result<()> {
        // What is not there needs no consent.
        self.client.get(target).await?;
        consent.ask(&format!("Delete the {}?", printable(what)))?;
        self.client.delete(target).await?;
        if self.output == Output::Table {
            self.screen.note(&format!("The {} is deleted.\n", printable(what)));
        }
        Ok(())
    }
}

/// A part of a JSON array, an item a line.
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

/// The merge patch (RFC 7396) that makes `after` of `before`. A null in `after` is sent as it stands: it clears what `before` does not show.
pub fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let gone = before.keys().filter(|name| !after.contains_key(*name));
    let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
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

/// Adds and takes away members of a list of words, which stays sorted.
pub fn change_words(record: &mut Map<String, Value>, field: &str, add: &[String], take: &[String]) {
    if add.is_empty() && take.is_empty() {
        return;
    }
    let held = record.get(field).and_then(Value::as_array).into_iter().flatten();
    let mut words: std::collections::BTreeSet<String> =
        held.filter_map(Value::as_str).map(str::to_owned).collect();
    words.extend(add.iter().cloned());
    words.retain(|word| !take.contains(word));
    record.insert(field.into(), words.into_iter().collect());
}

#[cfg(test)]
mod unit {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn only_what_is_changed_is_sent() {
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
    fn words_are_added_and_taken_away() {
        let mut record = object(json!({ "roles": ["b", "a"] }));
        change_words(&mut record, "roles", &[], &[]);
        assert_eq!(record["roles"], json!(["b", "a"]));
        change_words(&mut record, "roles", &["c".into(), "a".into()], &["b".into(), "z".into()]);
        assert_eq!(record["roles"], json!(["a", "c"]));
        change_words(&mut record, "new", &["x".into()], &[]);
        assert_eq!(record["new"], json!(["x"]));
    }

    #[test]
    fn an_array_is_whole_however_it_comes() {
        let mut separator = "[\n";
        let mut text = array_part(&[json!(1)], &mut separator, false);
        text.push_str(&array_part(&[], &mut separator, false));
        text.push_str(&array_part(&[json!(2)], &mut separator, true));
        assert_eq!(text, "[\n1,\n2\n]\n");
        assert_eq!(array_part(&[], &mut "[\n", true), "[]\n");
    }
}
