//! `keyward key delete` and `keyward key purge`: delete the records of keys that are not accepted
//! any more.

use std::io::{self, IsTerminal as _};

use clap::Args;
use serde_json::{Map, Value, json};

use super::find;
use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        terminal::{prompt::Confirmation, screen::printable, table::cell},
    },
    model::{Clock, Timestamp, parse_day, parse_span, start_of},
};

/// The number of keys that one request looks at.
const STEP: usize = 1000;

#[derive(Debug, Args)]
pub struct Delete {
    /// The keys' ids, or - to read a key's text from standard input
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    consent: Confirmation,
}

#[derive(Debug, Args)]
pub struct Purge {
    /// Delete keys that ended before this time: a time such as 2027-01-01T00:00:00Z, the start of a
    /// day such as 2026-12-31, or a span before now such as 90d
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    ended_before: Moment,
    /// Only show which keys would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    consent: Confirmation,
}

/// A time, or a span before now.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Time(Timestamp),
    Ago(i64),
}

fn moment(text: &str) -> Result<Moment, String> {
    let day = || parse_day(text).and_then(start_of);
    let time = Timestamp::parse(text).or_else(day).map(Moment::Time);
    time.or_else(|| parse_span(text).map(Moment::Ago)).ok_or_else(|| {
        "use a time such as 2027-01-01T00:00:00Z, a day such as 2026-12-31, or a span such as 90d"
            .to_owned()
    })
}

impl Moment {
    fn time(self) -> Timestamp {
        match self {
            Self::Time(time) => time,
            Self::Ago(seconds) => Timestamp(Clock::system().now().0.saturating_sub(seconds)),
        }
    }
}

impl Delete {
    /// Deletes keys one after another, and stops at the first failure.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let mut keys = Vec::new();
        for id in &self.ids {
            let id = super::key_id(id, session).await?;
            keys.push(session.client.get(&path(&["keys", &id])).await?);
        }
        // The keys do not work any more, so a script need not confirm.
        if io::stdin().is_terminal() {
            let ids: Vec<String> = keys.iter().map(|key| cell(&key.body["id"])).collect();
            self.consent.ask(&format!("Delete the records of the keys {}?", ids.join(", ")))?;
        }
        for key in keys {
            let id = cell(&key.body["id"]);
            session.client.delete(&path(&["keys", &id])).await?;
            if session.output == Output::Table {
                let owner = find::owner(&key.body);
                session.screen.print(&format!("The key {id} of {owner} is deleted.\n"))?;
            }
        }
        Ok(())
    }
}

impl Purge {
    /// Deletes the keys step by step. If the command is interrupted, run it again.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let time = self.ended_before.time();
        if !self.dry_run && io::stdin().is_terminal() {
            self.consent
                .ask(&format!("Delete the records of all keys that ended before {time}?"))?;
        }
        let (mut ids, mut kept, mut cursor) = (Vec::new(), 0, None::<String>);
        loop {
            let mut body = Map::new();
            body.insert("ended_before".into(), time.to_string().into());
            body.insert("dry_run".into(), self.dry_run.into());
            body.insert("limit".into(), STEP.into());
            body.extend(cursor.take().map(|cursor| ("after".to_owned(), cursor.into())));
            let target = path(&["keys", "purge"]);
            let step = session.client.post(&target, &Value::Object(body)).await?.body;
            let Some(items) = step["items"].as_array() else {
                let text = "The server's response is not a list. Is the server Keyward?";
                return Err(CliError::new(Exit::Failed, text).into());
            };
            if session.output == Output::Table {
                let verb = if self.dry_run { "would be deleted" } else { "is deleted" };
                let lines: String = items.iter().map(|key| line(key, verb)).collect();
                session.screen.print(&lines)?;
            }
            ids.extend(items.iter().map(|key| cell(&key["id"])));
            kept += step["kept"].as_u64().unwrap_or_default();
            cursor = step["next"].as_str().map(str::to_owned);
            if cursor.is_none() {
                return self.report(&ids, kept, session);
            }
        }
    }

    fn report(&self, ids: &[String], kept: u64, session: &Session) -> anyhow::Result<()> {
        if session.output == Output::Json {
            let report = json!({
                "dry_run": self.dry_run, "keys": ids.len(), "kept": kept, "ids": ids,
            });
            return session.show(&report);
        }
        let verb = if self.dry_run { "would be deleted" } else { "deleted" };
        session.screen.note(&format!("{} keys {verb}.\n", ids.len()));
        if kept > 0 {
            session.screen.note(&format!(
                "{kept} ended keys stay: a script took them over from another system, or only an \
                 administrator may delete them.\n"
            ));
        }
        Ok(())
    }
}

fn line(key: &Value, verb: &str) -> String {
    let label = match cell(&key["label"]).as_str() {
        "-" => String::new(),
        label => format!(" ({label})"),
    };
    let (id, owner, ended) = (cell(&key["id"]), find::owner(key), cell(&key["ended"]));
    printable(&format!("The key {id} of {owner}{label}, which ended at {ended}, {verb}.")) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moment_is_a_time_a_day_or_a_span_before_now() {
        let start = Timestamp::parse("2026-12-31T00:00:00Z").unwrap();
        assert_eq!(moment("2026-12-31").unwrap().time(), start);
        assert_eq!(moment("2026-12-31T01:00:00+01:00").unwrap().time(), start);
        let now = Clock::system().now();
        let ago = moment("1d").unwrap().time();
        assert!((now.0 - 86_401..=now.0 - 86_398).contains(&ago.0), "{ago}");
        for bad in ["", "yesterday", "90", "2026-13-01"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }
}
