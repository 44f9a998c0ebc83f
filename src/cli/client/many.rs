//! Changes many records that conditions select: repeats the request of the API until all parts are
//! done.

use serde_json::{Map, Value, json};

use super::session::Session;
use crate::cli::{
    CliError, Exit, Output,
    terminal::{progress::bar, screen::printable, table::cell},
};

/// A change of many records.
pub struct Many {
    /// The path of the API's action.
    pub target: String,
    /// The body of each request, without `dry_run` and `after`.
    pub body: Map<String, Value>,
    /// The noun for the records: `users` or `keys`.
    pub records: &'static str,
    /// The verb of the change, such as `deleted`.
    pub verb: &'static str,
}

impl Many {
    /// Makes the change, or only counts what it would change. Returns the sums of all parts.
    pub async fn run(&self, dry_run: bool, session: &Session) -> Result<Value, CliError> {
        let mut sums = json!({
            "dry_run": dry_run, "matched": 0, "changed": 0, "unchanged": 0,
            "left_out": { "forbidden": 0, "refused": 0 }, "first": [],
        });
        let bar = bar(self.records);
        let mut after = None;
        loop {
            let mut body = self.body.clone();
            body.insert("dry_run".into(), dry_run.into());
            body.extend(
                after.iter().map(|cursor: &String| ("after".to_owned(), cursor.clone().into())),
            );
            let sent = session.client.post(&self.target, &Value::Object(body)).await;
            let part = sent.map_err(|problem| self.interrupted(problem, &sums))?.body;
            add(&mut sums, &part);
            bar.set_length(part["total"].as_u64().unwrap_or_default());
            bar.set_position(sums["matched"].as_u64().unwrap_or_default());
            let next = part["next"].as_str().map(str::to_owned);
            if next.is_none() {
                bar.finish_and_clear();
                return Ok(sums);
            }
            if next == after {
                let text = "The server repeats the same part of the change.";
                return Err(CliError::new(Exit::Failed, text));
            }
            after = next;
        }
    }

    /// The error of a run that has made a part of the change.
    fn interrupted(&self, mut problem: CliError, sums: &Value) -> CliError {
        let changed = sums["changed"].as_u64().unwrap_or_default();
        if changed > 0 && sums["dry_run"] == false {
            let (records, verb) = (self.records, self.verb);
            let detail = format!(
                "{problem}. Before that, {changed} {records} were {verb}: run the command again to \
                 go on"
            );
            problem.problem["detail"] = detail.into();
        }
        problem
    }

    /// Prints the sums.
    pub fn report(&self, sums: &Value, session: &Session) -> anyhow::Result<()> {
        if session.output == Output::Json {
            return session.show(sums);
        }
        let (records, verb) = (self.records, self.verb);
        let is_dry_run = sums["dry_run"] == true;
        if is_dry_run {
            let lines: String = sums["first"].as_array().into_iter().flatten().map(line).collect();
            session.screen.print(&lines)?;
        }
        let would = if is_dry_run { "would be" } else { "were" };
        let [changed, unchanged] = ["changed", "unchanged"].map(|name| cell(&sums[name]));
        let mut text = format!("{changed} {records} {would} {verb}, {unchanged} stay unchanged.\n");
        let left_out = &sums["left_out"];
        for (reason, why) in [
            ("forbidden", "only an administrator may change them"),
            ("refused", "a rule forbids the change; change one of them alone to see the rule"),
        ] {
            if left_out[reason].as_u64() > Some(0) {
                text.push_str(&format!("{} were left out: {why}.\n", cell(&left_out[reason])));
            }
        }
        session.screen.note(&text);
        Ok(())
    }
}

fn line(record: &Value) -> String {
    format!("{} ({})\n", printable(&cell(&record["name"])), printable(&cell(&record["id"])))
}

fn add(sums: &mut Value, part: &Value) {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    for name in ["matched", "changed", "unchanged"] {
        sums[name] = (count(&sums[name]) + count(&part[name])).into();
    }
    for name in ["forbidden", "refused"] {
        let sum = count(&sums["left_out"][name]) + count(&part["left_out"][name]);
        sums["left_out"][name] = sum.into();
    }
    if let (Some(all), Some(more)) = (sums["first"].as_array_mut(), part["first"].as_array()) {
        let room = 5_usize.saturating_sub(all.len());
        all.extend(more.iter().take(room).cloned());
    }
}
