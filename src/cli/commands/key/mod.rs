//! `keyward key`: creates, lists, changes, rotates and revokes API keys.

pub(super) mod bulk;
mod edit;
mod find;
pub(super) mod import;
mod remove;
mod revoke;
pub(super) mod scan;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{
    key::{
        bulk::Bulk,
        edit::Edit,
        import::Import,
        remove::{Delete, Purge},
        revoke::Revoke,
        scan::Scan,
    },
    limit::{Budget, Rate},
    user::{self, Who},
};
use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        terminal::table::{self, Column, cell},
    },
    model::{Clock, Expires, KeyId, parse_span},
};

const COLUMNS: &[Column] = &[
    ("ID", |key| cell(&key["id"])),
    ("USER", |key| cell(&key["username"])),
    ("LABEL", |key| cell(&key["label"])),
    ("KEY", shown),
    ("STATE", |key| cell(&key["state"])),
    ("APPLICATION", |key| any(&key["application"])),
    ("SCOPES", |key| all(&key["scopes"])),
    ("NETWORKS", |key| any(&key["networks"])),
    ("EXPIRES", end),
];

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a key, or a key for each user with --all; the text of a key is shown only once
    Generate(Generate),
    /// List the keys of a user, or all keys
    List {
        #[command(flatten)]
        who: MaybeWho,
        /// Show at most this many keys
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show a key's record, which does not contain the key's text
    Show {
        /// The key's id (8 letters and digits), or - to read a text with keys from standard input:
        /// a key, a credential, a header field or a command line of curl
        id: String,
    },
    /// Change a key's label, limits, end, scopes or networks; fields that are not given stay
    /// unchanged. An option of a list replaces the list, --add-… and --remove-… change one element
    Edit(Edit),
    /// Replace a key: the new key is shown only once, and both keys are accepted for a while
    Rotate(Rotate),
    /// Revoke keys immediately and permanently
    Revoke(Revoke),
    /// Delete the records of keys that were revoked, rotated or have expired
    Delete(Delete),
    /// Delete the records of all keys that ended before a time
    Purge(Purge),
    /// Import the keys of another system; either all keys of the file are imported or none
    Import(Import),
    /// Search files for keys, without a server; the exit code is 6 if keys are found
    Scan(Scan),
}

#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    bulk: Bulk,
    /// A label for people
    #[arg(long)]
    label: Option<String>,
    /// The only application that accepts the key [default: any]
    #[arg(long, value_name = "ID")]
    application: Option<String>,
    /// Create a universal key, for which the user is responsible: in an application that accepts
    /// universal keys, the key authenticates any user that the client names
    #[arg(long, requires = "application", conflicts_with = "all")]
    universal: bool,
    /// Restrict the key to this permission; repeatable [default: all permissions of the user]
    #[arg(long = "scope", value_name = "PERMISSION")]
    scopes: Vec<String>,
    /// The expiry: a time span such as 90d, 12h or 30m, a time such as 2027-01-01T00:00:00Z, a day
    /// such as 2026-12-31 (to its end in UTC), or never [default: never]
    #[arg(long, value_name = "WHEN", value_parser = Expires::parse)]
    expires: Option<Expires>,
    /// A network from which the key is accepted, such as 10.0.0.0/8; repeatable [default: any]
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    budget: Budget,
}

#[derive(Debug, Args)]
pub struct Rotate {
    /// The key's id, or - to read the key's text from standard input
    id: String,
    /// How long the old key is accepted after the rotation, such as 24h; 0s revokes the old key at
    /// once [default: 24h, but at most the old key's remaining lifetime]
    #[arg(long, value_name = "SPAN", value_parser = overlap)]
    overlap: Option<i64>,
    /// The expiry of the new key: a time span such as 90d, a time such as 2027-01-01T00:00:00Z, a
    /// day such as 2026-12-31 (to its end in UTC), or never [default: the same lifetime as the old
    /// key]
    #[arg(long, value_name = "WHEN", value_parser = Expires::parse)]
    expires: Option<Expires>,
}

/// A user, or all users.
#[derive(Debug, Clone, Args)]
#[group(id = "whom", required = true, multiple = false)]
struct Whom {
    /// The user's name, or # and the user's number: '#7'
    #[arg(id = "user", value_name = "NAME")]
    name: Option<String>,
    /// The user's number
    #[arg(long)]
    uid: Option<u64>,
    /// One key for each user
    #[arg(long)]
    all: bool,
}

/// A user. Without a name and a number, all users.
#[derive(Debug, Clone, Args)]
#[group(id = "maybe_who", multiple = false)]
pub struct MaybeWho {
    /// The user's name, or # and the user's number: '#7'
    #[arg(id = "user", value_name = "NAME")]
    name: Option<String>,
    /// The user's number
    #[arg(long)]
    uid: Option<u64>,
}

/// Runs the command.
pub async fn run(verb: Verb, session: &Session) -> anyhow::Result<()> {
    match verb {
        Verb::Generate(generate) => generate.run(session).await,
        Verb::List { who, limit } => {
            let target = match Who::new(who.name, who.uid) {
                Some(who) => keys_of(&who, session).await?,
                None => path(&["keys"]),
            };
            session.list(&target, limit, COLUMNS).await
        }
        Verb::Show { id } if id == "-" => show_found(session).await,
        Verb::Show { id } => {
            let found = session.client.get(&path(&["keys", &parse_id(&id)?])).await?;
            show(&found.body, session)
        }
        Verb::Edit(edit) => edit.run(session).await,
        Verb::Rotate(rotate) => rotate.run(session).await,
        Verb::Revoke(revoke) => revoke.run(session).await,
        Verb::Delete(delete) => delete.run(session).await,
        Verb::Purge(purge) => purge.run(session).await,
        Verb::Import(import) => import.run(session).await,
        Verb::Scan(scan) => scan.run(session.output),
    }
}

impl Generate {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Some(who) = Who::new(self.whom.name.clone(), self.whom.uid) else {
            let record = self.record();
            return self.bulk.run(record, session).await;
        };
        if self.universal {
            session.screen.note("Warning: anyone who has this key can act as any user of the application. Restrict the key to networks and scopes.\n");
        }
        let target = keys_of(&who, session).await?;
        let created = session.client.post(&target, &Value::Object(self.record())).await?.body;
        show_once(&created, session)?;
        note_end_of_day(self.expires, session);
        Ok(())
    }

    fn record(&self) -> Map<String, Value> {
        let mut record = Map::new();
        let expires = self.expires.and_then(|expires| expires.from(Clock::system().now()));
        let expires = expires.map(|time| time.to_string());
        for (name, text) in
            [("label", &self.label), ("application", &self.application), ("expires", &expires)]
        {
            if let Some(text) = text {
                record.insert(name.into(), text.as_str().into());
            }
        }
        for (name, words) in [("scopes", &self.scopes), ("networks", &self.networks)] {
            if !words.is_empty() {
                record.insert(name.into(), json!(words));
            }
        }
        if self.universal {
            record.insert("universal".into(), true.into());
        }
        self.rate.put(&mut record);
        self.budget.put(&mut record);
        record
    }
}

impl Rotate {
    async fn run(self, session: &Session) -> anyhow::Result<()> {
        let mut body = Map::new();
        body.extend(self.overlap.map(|seconds| ("overlap".to_owned(), seconds.into())));
        if let Some(expires) = self.expires {
            let time = expires.from(Clock::system().now());
            let text = time.map_or_else(|| "never".to_owned(), |time| time.to_string());
            body.insert("expires".into(), text.into());
        }
        let target = path(&["keys", &key_id(&self.id, session).await?, "rotate"]);
        let created = session.client.post(&target, &Value::Object(body)).await?.body;
        show_once(&created, session)?;
        note_end_of_day(self.expires, session);
        Ok(())
    }
}

/// Prints a new key. Only the key's text goes to standard output, so that
/// `KEY=$(keyward key generate …)` works.
fn show_once(created: &Value, session: &Session) -> anyhow::Result<()> {
    if session.output == Output::Json {
        return session.show(created);
    }
    let mut record = created.as_object().cloned().unwrap_or_default();
    let text = record.remove("key").unwrap_or_default();
    let replaced = record.remove("replaces");
    session.screen.note(&table::record(&readable(&Value::Object(record))));
    if let Some(old) = replaced {
        let (id, until) = (cell(&old["id"]), cell(&old["rotated"]["until"]));
        session.screen.note(&format!("\nThe old key {id} works until {until}.\n"));
    }
    session.screen.note("\nThis is the key. It is not shown again:\n");
    Ok(session.screen.print(&format!("{}\n", text.as_str().unwrap_or_default()))?)
}

/// Prints the record of a key.
fn show(key: &Value, session: &Session) -> anyhow::Result<()> {
    match session.output {
        Output::Json => session.show(key),
        Output::Table => session.show(&readable(key)),
    }
}

/// The record of a key for people: a bound that is not set has a word, because `-` could mean
/// nothing as well as everything.
fn readable(key: &Value) -> Value {
    let mut key = key.clone();
    for (name, word) in [
        ("application", "any"),
        ("scopes", "all"),
        ("networks", "any"),
        ("rate_limit", "none"),
        ("credits", "none"),
        ("expires", "never"),
        ("ends", "never"),
    ] {
        let Some(value) = key.get_mut(name) else { continue };
        let is_unset = value.is_null() || name == "networks" && cell(value) == "-";
        if is_unset {
            *value = word.into();
        } else if name == "scopes" && cell(value) == "-" {
            *value = "none (no permission)".into();
        }
    }
    key
}

/// Says what a day means as an expiry.
fn note_end_of_day(expires: Option<Expires>, session: &Session) {
    if let (Some(Expires::EndOfDay(end)), Output::Table) = (expires, session.output) {
        session.screen.note(&format!(
            "The key is accepted to the end of that day in UTC: it is refused from {end}.\n"
        ));
    }
}

fn overlap(text: &str) -> Result<i64, String> {
    parse_span(text)
        .ok_or_else(|| "use a time span such as 24h, 90m or 0s; units: s, m, h, d, w".to_owned())
}

async fn keys_of(who: &Who, session: &Session) -> Result<String, CliError> {
    Ok(path(&["users", &user::uid(who, session).await?.to_string(), "keys"]))
}

/// Shows the keys in the text on standard input, also those of users who were deleted.
async fn show_found(session: &Session) -> anyhow::Result<()> {
    for key in find::read(session).await? {
        if session.output == Output::Table {
            session.screen.note(&format!("{}\n", find::recognized(&key)));
        }
        match (find::lost(&key), key["state"].as_str()) {
            (Some(text), Some("unknown")) => return Err(CliError::new(Exit::Failed, text).into()),
            (Some(text), _) if session.output == Output::Table => {
                session.screen.print(&format!("{text}\n"))?;
            }
            _ => show(&key, session)?,
        }
    }
    Ok(())
}

/// The id of a key: the argument, or the key in the text on standard input if the argument is -.
async fn key_id(text: &str, session: &Session) -> Result<String, CliError> {
    if text == "-" { find::read_one(session).await } else { parse_id(text) }
}

/// Parses a key's id. The error does not show `text`, because `text` may be a whole key.
fn parse_id(text: &str) -> Result<String, CliError> {
    let id = KeyId::parse(text).map(|id| id.to_string());
    id.ok_or_else(|| {
        let text = "the argument is not a key's id: an id is 8 letters and digits, and keyward key list shows all ids. \
                    Others can read arguments, so do not give a key's whole text: give - and paste the key into standard input";
        CliError::new(Exit::Usage, text)
    })
}

/// Returns the parts of a key's text that a list shows: the prefix and the last four characters.
fn shown(key: &Value) -> String {
    format!("{}…{}", cell(&key["prefix"]), cell(&key["last_four"]))
}

/// The first second in which the key is refused, also because of a rotation or a revocation.
fn end(key: &Value) -> String {
    key.get("ends").map_or_else(|| cell(&key["expires"]), cell)
}

fn any(value: &Value) -> String {
    cell_or(value, "any")
}

fn all(value: &Value) -> String {
    // `null` means all permissions; an empty list means no permission.
    if value.is_null() { "all".into() } else { cell(value) }
}

fn cell_or(value: &Value, word: &str) -> String {
    let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if is_empty { word.into() } else { cell(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_about_an_id_does_not_show_the_argument() {
        assert_eq!(parse_id("0000aZ19").unwrap(), "0000aZ19");
        for text in
            ["kw_0000aZ19_secretsecretsecretsecretsecretABCDEF", "", "0000aZ1!", "..", "éééé"]
        {
            let refused = parse_id(text).unwrap_err();
            assert_eq!(refused.exit, Exit::Usage);
            assert!(text.is_empty() || !refused.to_string().contains(text), "{refused}");
        }
    }

    #[test]
    fn null_scopes_differ_from_empty_scopes() {
        assert_eq!(
            (any(&json!(null)), any(&json!([])), any(&json!("a"))),
            ("any".into(), "any".into(), "a".into())
        );
        assert_eq!((all(&json!(null)), all(&json!([]))), ("all".into(), "-".into()));
        assert_eq!(shown(&json!({ "prefix": "kw", "last_four": "aB12" })), "kw…aB12");
    }
}
