//! `keyward key revoke`: revokes keys by id, by their text, or all keys that a filter selects.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{find, many::ManyKeys};
use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        commands::user::{self, Who},
        terminal::table::cell,
    },
    model::{Clock, Timestamp, parse_day, start_of},
};

/// The number of keys in one request of a search.
const PAGE_SIZE: usize = 1000;

#[derive(Debug, Args)]
pub struct Revoke {
    /// The keys' ids, or - to read a text with keys from standard input: a key, a credential, a
    /// header field or a command line of curl
    #[arg(required_unless_present = "filter", conflicts_with = "filter", value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    many: ManyKeys,
    /// Only show which keys would be revoked
    #[arg(long)]
    dry_run: bool,
}

/// Selects keys. With several options, a key must fit all of them.
#[derive(Debug, Args)]
#[group(id = "filter", multiple = true, required = false)]
struct Filter {
    /// Revoke the keys of this user: the name, or # and the number
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Revoke the keys that only this application accepts
    #[arg(long, value_name = "ID")]
    application: Option<String>,
    /// Revoke the keys that were created before this time, such as 2027-01-01T00:00:00Z, or before
    /// this span of time, such as 90d
    #[arg(long, value_name = "TIME", value_parser = created_before)]
    created_before: Option<CreatedBefore>,
}

/// A time, or a span before now.
#[derive(Debug, Clone, Copy)]
enum CreatedBefore {
    Time(Timestamp),
    Ago(i64),
}

fn created_before(text: &str) -> Result<CreatedBefore, String> {
    if let Some(seconds) = crate::model::parse_span(text) {
        return Ok(CreatedBefore::Ago(seconds));
    }
    let day = || parse_day(text).and_then(start_of);
    let time = Timestamp::parse(text).or_else(day).map(CreatedBefore::Time);
    time.ok_or_else(|| {
        "use a time such as 2027-01-01T00:00:00Z, a day such as 2026-12-31, or a span such as 90d"
            .to_owned()
    })
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.user.is_none() && self.application.is_none() && self.created_before.is_none()
    }

    /// The active keys that fit.
    async fn keys(&self, session: &Session) -> Result<Vec<Value>, CliError> {
        let target = match self.user.clone().and_then(|name| Who::new(Some(name), None)) {
            Some(who) => path(&["users", &user::uid(&who, session).await?.to_string(), "keys"]),
            None => path(&["keys"]),
        };
        let before = self.created_before.map(|before| match before {
            CreatedBefore::Time(time) => time,
            CreatedBefore::Ago(seconds) => {
                Timestamp(Clock::system().now().0.saturating_sub(seconds))
            }
        });
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let (items, next) = session.page(&target, PAGE_SIZE, cursor.as_deref()).await?;
            keys.extend(items.into_iter().filter(|key| self.selects(key, before)));
            match next {
                Some(next) => cursor = Some(next),
                None => return Ok(keys),
            }
        }
    }

    fn selects(&self, key: &Value, before: Option<Timestamp>) -> bool {
        let created = key["created"].as_str().and_then(Timestamp::parse);
        key["state"] == "active"
            && self.application.as_ref().is_none_or(|id| key["application"] == *id.as_str())
            && before.is_none_or(|before| created.is_some_and(|created| created.0 < before.0))
    }
}

impl Revoke {
    /// Revokes keys one after another, and stops at the first failure. The output lists the keys
    /// that were revoked before the failure.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        if let Some(result) = self.many.revoke(self.dry_run, session).await {
            return result;
        }
        let is_search = !self.filter.is_empty();
        let keys = if is_search {
            self.filter.keys(session).await?
        } else {
            self.named_keys(session).await?
        };
        let mut revoked = Vec::new();
        let mut failed = None;
        for key in keys {
            match self.revoke(&key, session).await {
                Ok(key) => revoked.push(key),
                Err(problem) => {
                    failed = Some(problem);
                    break;
                }
            }
        }
        match (session.output, is_search) {
            (Output::Json, _) => {
                session.screen.print(&format!("{:#}\n", Value::Array(revoked)))?;
            }
            (Output::Table, true) => {
                let verb = if self.dry_run { "would be revoked" } else { "revoked" };
                session.screen.note(&format!("{} keys {verb}.\n", revoked.len()));
            }
            (Output::Table, false) => {}
        }
        failed.map_or(Ok(()), |problem| Err(problem.into()))
    }

    /// The keys of the arguments. All arguments are read before the first key is revoked.
    async fn named_keys(&self, session: &Session) -> Result<Vec<Value>, CliError> {
        let mut keys = Vec::new();
        for id in &self.ids {
            if id != "-" {
                keys.push(json!({ "id": super::parse_id(id)? }));
                continue;
            }
            for key in find::read(session).await? {
                session.screen.note(&format!("{}\n", find::recognized(&key)));
                match (find::lost(&key), key["state"].as_str()) {
                    (Some(text), Some("deleted")) => session.screen.note(&format!("{text}\n")),
                    (Some(text), _) => return Err(CliError::new(Exit::Failed, text)),
                    (None, _) => keys.push(key),
                }
            }
        }
        Ok(keys)
    }

    async fn revoke(&self, key: &Value, session: &Session) -> Result<Value, CliError> {
        let id = cell(&key["id"]);
        let target = path(&["keys", &id]);
        let (key, verb) = if self.dry_run {
            (session.client.get(&target).await?.body, "would be revoked")
        } else {
            let target = path(&["keys", &id, "revoke"]);
            (session.client.post(&target, &Value::Object(Map::new())).await?.body, "is revoked")
        };
        if session.output == Output::Table {
            let owner = find::owner(&key);
            let printed = session.screen.say(&format!("The key {id} of {owner} {verb}.\n"));
            printed.map_err(|problem| CliError::new(Exit::Failed, problem.to_string()))?;
        }
        Ok(key)
    }
}
