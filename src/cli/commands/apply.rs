//! `keyward apply`: applies a file with records, which `keyward export` or a person wrote.

pub mod export;

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use clap::Args;
use serde_json::Value;

use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::{
            connect,
            paths::{path, with_query},
        },
        instance::{
            accounts::{self, NewStore},
            control_file::{self, ControlState},
            refusals,
        },
        terminal::{screen::printable, table::cell},
    },
    config::{Engine, Settings},
    store::store_exists,
};

const TOML: &str = "application/toml";
/// The maximum number of characters of a value that a line of changes shows.
const MAX_SHOWN: usize = 80;

#[derive(Debug, Args)]
pub struct Apply {
    /// The file; - is standard input
    file: PathBuf,
    /// Only check the file, and print the changes that would be made
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: end with exit code 7 if something would be changed
    #[arg(long, requires = "dry_run")]
    exit_code: bool,
    /// Keep fields of existing records that the file leaves out; tables are merged, lists replaced
    #[arg(long, conflicts_with_all = ["prune", "clear"])]
    patch: bool,
    /// Clear fields of existing records that the file leaves out. Without this option and without
    /// --patch, such a file is refused
    #[arg(long)]
    clear: bool,
    /// Delete users, keys, roles, applications and resources that are not in the file
    #[arg(long)]
    prune: bool,
    /// Allow changes that open a path which a resource of the store guards
    #[arg(long)]
    opens_guarded: bool,
    /// If there is no store, create one with the existing pepper file
    #[arg(long)]
    new: bool,
}

impl Apply {
    /// Applies the file to the running server or the store. If there is no store, creates a store
    /// from the file.
    pub async fn run(self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let text = self.read()?;
        if has_no_store(settings)? {
            if !self.new {
                refusals::check_store_is_there(settings)?;
            }
            check_pepper(&text, settings)?;
            // The file is first applied in memory, so that a refused file leaves no empty store
            // behind.
            let in_memory = accounts::in_memory(settings)?;
            let client = connect::client_of_accounts(settings, in_memory).await?;
            let session = Session::new(client, output);
            let report = self.send(&session, text.clone(), true).await?;
            if self.dry_run {
                return self.show(&report, &session);
            }
            let accounts = accounts::open(settings, NewStore::WithExistingPepper);
            let accounts = accounts.map_err(CliError::from)?;
            let client = connect::client_of_accounts(settings, accounts).await?;
            let session = Session::new(client, output);
            return self.show(&self.send(&session, text, false).await?, &session);
        }
        let session = Session::new(connect::client(settings).await?, output);
        self.show(&self.send(&session, text, self.dry_run).await?, &session)
    }

    /// Prints the changes. With `--exit-code`, changes are an error.
    fn show(&self, report: &Value, session: &Session) -> anyhow::Result<()> {
        show(report, session)?;
        let count = report["changes"].as_array().map_or(0, Vec::len);
        if !self.exit_code || count == 0 {
            return Ok(());
        }
        let text = match count {
            1 => "the file would change 1 record".to_owned(),
            count => format!("the file would change {count} records"),
        };
        Err(CliError::new(Exit::Changes, text).into())
    }

    fn read(&self) -> Result<String, CliError> {
        let mut bytes = Vec::new();
        let read = match self.file.to_str() {
            Some("-") => io::stdin().lock().read_to_end(&mut bytes),
            _ => File::open(&self.file).and_then(|mut file| file.read_to_end(&mut bytes)),
        };
        let file = self.file.display();
        read.map_err(|problem| CliError::new(Exit::Usage, format!("{file}: {problem}")))?;
        String::from_utf8(bytes).map_err(|problem| {
            let before = &problem.as_bytes()[..problem.utf8_error().valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let message = format!("{file}: line {line} is not UTF-8 text. Save the file as UTF-8");
            CliError::new(Exit::Refused, message)
        })
    }

    async fn send(
        &self,
        session: &Session,
        text: String,
        dry_run: bool,
    ) -> Result<Value, CliError> {
        let flag = |is_set: bool| if is_set { "true" } else { "false" };
        let query = [
            ("dry_run", flag(dry_run)),
            ("prune", flag(self.prune)),
            ("patch", flag(self.patch)),
            ("clear", flag(self.clear)),
            ("opens_guarded", flag(self.opens_guarded)),
        ];
        let target = with_query(&path(&["state"]), &query);
        let mut report = session.client.post_text(&target, TOML, text).await?.body;
        report["dry_run"] = self.dry_run.into();
        Ok(report)
    }
}

fn has_no_store(settings: &Settings) -> Result<bool, CliError> {
    let store = &settings.store;
    Ok(store.engine != Engine::Memory
        && !store_exists(&store.path)
        && !matches!(control_file::find(&store.control_file)?, ControlState::Found(_)))
}

/// Checks that the keys of a file were made with the pepper in the existing pepper file. A new
/// store uses this pepper, and keys that were made with another pepper would be invalid.
fn check_pepper(text: &str, settings: &Settings) -> Result<(), CliError> {
    let document: Option<toml::Table> = text.parse().ok();
    let document = document.filter(|document| document.contains_key("keys"));
    let Some(needed) = document.as_ref().and_then(|document| document.get("pepper")?.as_str())
    else {
        return Ok(());
    };
    let file = &settings.store.pepper_file;
    let existing = crate::accounts::read_pepper(file).map(|pepper| pepper.fingerprint().to_hex());
    if existing.is_ok_and(|existing| existing == needed) {
        return Ok(());
    }
    let message = format!(
        "the keys in the file were made with another pepper than the one in {}. First store the pepper of these keys in that file",
        file.display()
    );
    Err(CliError::new(Exit::Refused, message))
}

/// Prints the changes, one line per record.
fn show(report: &Value, session: &Session) -> anyhow::Result<()> {
    if session.output == Output::Json {
        return session.show(report);
    }
    let changes = report["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: String = changes.iter().map(line).collect();
    session.screen.say(&format!("{lines}= {} unchanged\n", cell(&report["unchanged"])))?;
    let count = |name: &str| report[name].as_u64().unwrap_or_default();
    let [added, changed, removed] = ["added", "changed", "removed"].map(count);
    let message = match (changes.is_empty(), report["dry_run"] == true) {
        (true, _) => "There is nothing to change: the records are as the file says.\n".to_owned(),
        (_, true) => format!(
            "Nothing was written. {added} would be added, {changed} changed, {removed} removed.\n"
        ),
        _ => format!("{added} added, {changed} changed, {removed} removed.\n"),
    };
    note_warnings(report, session);
    session.screen.note(&message);
    Ok(())
}

/// Prints the fields that the file clears because it leaves them out, and the advice of the API.
fn note_warnings(report: &Value, session: &Session) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let warn = |text: &str| session.screen.note(&format!("Warning: {}\n", printable(text)));
    let changes = list(&report["changes"]);
    let clearing: Vec<&Value> =
        changes.iter().filter(|c| !list(&c["cleared"]).is_empty()).collect();
    for change in &clearing {
        let [kind, id, cleared] = ["kind", "id", "cleared"].map(|name| cell(&change[name]));
        warn(&format!("{kind} {id}: the file leaves out {cleared}, which loses its value."));
    }
    if !clearing.is_empty() && report["dry_run"] == true {
        let text = "To keep what the file leaves out, use --patch. To clear it, use --clear.\n";
        session.screen.note(text);
    }
    for warning in list(&report["warnings"]) {
        warn(&cell(&warning));
    }
}

/// Formats a change, such as `~ resource r: enabled true → false`.
fn line(change: &Value) -> String {
    let sign = match change["change"].as_str() {
        Some("add") => '+',
        Some("remove") => '-',
        _ => '~',
    };
    let (kind, id) = (cell(&change["kind"]), cell(&change["id"]));
    let mut line = format!("{sign} {} {}", printable(&kind), printable(&id));
    if sign == '~' {
        let side = |name: &str| change[name].as_object().cloned().unwrap_or_default();
        let (before, after) = (side("before"), side("after"));
        let mut names: Vec<&String> = before.keys().collect();
        names.extend(after.keys().filter(|name| !before.contains_key(*name)));
        let fields = names.iter().map(|name| {
            format!(
                "{} {} → {}",
                printable(name),
                shown(before.get(*name)),
                shown(after.get(*name))
            )
        });
        line.push_str(": ");
        line.push_str(&fields.collect::<Vec<_>>().join(", "));
    }
    line.push('\n');
    line
}

fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => return "none".into(),
        Some(Value::String(text)) if text.is_empty() => return "none".into(),
        Some(Value::String(text)) => printable(text),
        Some(other) => printable(&other.to_string()),
    };
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
