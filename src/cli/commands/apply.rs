//! `keyward export` and `keyward apply`: write all records into a file for people and version
//! control, and apply such a file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::Value;

use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::{
            connect,
            paths::{path, with_query},
        },
        instance::{accounts, control_file},
        terminal::{screen::printable, table::cell},
    },
    config::{Engine, Settings},
    store::store_exists,
};

const TOML: &str = "application/toml";
/// The maximum number of characters of a value in a line.
const SHOWN: usize = 80;

#[derive(Debug, Args)]
pub struct Export {
    /// The file, which must not exist yet; only its owner can read it [default: standard output]
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Apply {
    /// The file; - is standard input
    file: PathBuf,
    /// Check only, and print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Delete users, keys, roles, applications and resources that are not in the file
    #[arg(long)]
    prune: bool,
}

impl Export {
    /// Writes the file.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let is_there = |file: &PathBuf| file.exists();
        if let Some(file) = self.file.as_ref().filter(|file| is_there(file)) {
            return Err(there_already(file).into());
        }
        let text = session.client.get_text(&path(&["state"]), TOML).await?;
        let Some(file) = self.file else {
            return Ok(session.screen.print(&text)?);
        };
        write(&file, &text).map_err(|problem| match problem.kind() {
            io::ErrorKind::AlreadyExists => there_already(&file),
            _ => CliError::new(Exit::Usage, format!("{}: {problem}", file.display())),
        })?;
        session.screen.note(&format!(
            "The records are in {}. It holds digests: keep it to yourself.\n",
            file.display()
        ));
        Ok(())
    }
}

fn there_already(file: &Path) -> CliError {
    let file = file.display();
    CliError::new(Exit::Refused, format!("{file}: there is such a file already. Name a new one"))
}

/// The file gets its name when it is complete.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut draft = file.as_os_str().to_owned();
    draft.push(".part");
    let draft = PathBuf::from(draft);
    let _ = fs::remove_file(&draft);
    let whole = || {
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        renameat_with(CWD, &draft, CWD, file, RenameFlags::NOREPLACE)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    whole().inspect_err(|_| drop(fs::remove_file(&draft)))
}

impl Apply {
    /// Applies the file to the running server or the store. If there is no store, creates it from
    /// the file.
    pub async fn run(self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let text = self.read()?;
        if has_no_store(settings)? {
            same_pepper(&text, settings)?;
            // A refused file leaves no empty store.
            let rehearsal = accounts::in_memory(settings)?;
            let client = connect::client_of_accounts(settings, rehearsal).await?;
            let session = Session::new(client, output);
            let told = self.send(&session, text.clone(), true).await?;
            if self.dry_run {
                return show(&told, &session);
            }
            let client = connect::client_of_accounts(settings, accounts::open(settings)?).await?;
            let session = Session::new(client, output);
            return show(&self.send(&session, text, false).await?, &session);
        }
        let session = Session::new(connect::client(settings).await?, output);
        show(&self.send(&session, text, self.dry_run).await?, &session)
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
            let said = format!("{file}: line {line} is not UTF-8 text. Save the file as UTF-8");
            CliError::new(Exit::Refused, said)
        })
    }

    async fn send(
        &self,
        session: &Session,
        text: String,
        dry_run: bool,
    ) -> Result<Value, CliError> {
        let flag = |is_set: bool| if is_set { "true" } else { "false" };
        let query = [("dry_run", flag(dry_run)), ("prune", flag(self.prune))];
        let target = with_query(&path(&["state"]), &query);
        let mut told = session.client.post_text(&target, TOML, text).await?.body;
        told["dry_run"] = self.dry_run.into();
        Ok(told)
    }
}

fn has_no_store(settings: &Settings) -> Result<bool, CliError> {
    let store = &settings.store;
    Ok(store.engine != Engine::Memory
        && !store_exists(&store.path)
        && control_file::find(&store.control_file)?.is_none())
}

/// Keys of a file are valid with only one pepper; a new store uses the existing pepper file.
fn same_pepper(text: &str, settings: &Settings) -> Result<(), CliError> {
    let stated: Option<toml::Table> = text.parse().ok();
    let stated = stated.filter(|stated| stated.contains_key("keys"));
    let Some(stated) = stated.as_ref().and_then(|stated| stated.get("pepper")?.as_str()) else {
        return Ok(());
    };
    let file = &settings.store.pepper_file;
    let ours = crate::accounts::read_pepper(file).map(|pepper| pepper.fingerprint().to_hex());
    if ours.is_ok_and(|ours| ours == stated) {
        return Ok(());
    }
    let said = format!(
        "the keys of the file were made with another pepper than the one in {}. Put the pepper that belongs to it there first",
        file.display()
    );
    Err(CliError::new(Exit::Refused, said))
}

/// The changes, one line per record.
fn show(told: &Value, session: &Session) -> anyhow::Result<()> {
    if session.output == Output::Json {
        return session.show(told);
    }
    let changes = told["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let lines: String = changes.iter().map(line).collect();
    session.screen.print(&format!("{lines}= {} unchanged\n", cell(&told["unchanged"])))?;
    let count = |name: &str| told[name].as_u64().unwrap_or_default();
    let [added, changed, removed] = ["added", "changed", "removed"].map(count);
    let said = match (changes.is_empty(), told["dry_run"] == true) {
        (true, _) => "There is nothing to do: the records are as the file says.\n".to_owned(),
        (_, true) => format!(
            "Nothing was written. {added} would be added, {changed} changed, {removed} removed.\n"
        ),
        _ => format!("{added} added, {changed} changed, {removed} removed.\n"),
    };
    session.screen.note(&said);
    Ok(())
}

/// `~ resource r: enabled true → false`
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
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
