//! `keyward key generate --all`: creates a key for each user, and writes the keys into a file that
//! only the file's owner can read, or to standard output.
//!
//! While the file is incomplete, `FILE.run` beside the file contains the id of the run. If the run
//! is interrupted, the same command continues the run: the API returns the keys of a lost response
//! once more, and creates no key twice.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    cli::{CliError, Exit, Output, Session, client::paths::path, terminal::progress::bar},
    model::Entropy,
};

/// The maximum number of users in one request.
const MAX_USERS: usize = 2000;
const HEADING: &str = "uid,username,id,key\n";

#[derive(Debug, Args)]
pub struct Bulk {
    /// With --all: only for users without an active key
    #[arg(long, conflicts_with_all = ["user", "uid"])]
    missing_only: bool,
    /// With --all: the file for the keys, which must not exist yet; only its owner can read it
    /// [default: standard output]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "uid"])]
    file: Option<PathBuf>,
    /// With --all: csv or jsonl [default: by the file's name, else csv]
    #[arg(long, value_name = "FORM", conflicts_with_all = ["user", "uid"], value_enum, hide_possible_values = true)]
    format: Option<Format>,
}

/// The format of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Comma-separated values (RFC 4180), with a heading
    Csv,
    /// One JSON object per line
    Jsonl,
}

/// The content of `FILE.run`.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    run: String,
    /// The body of each request.
    asked: Map<String, Value>,
}

impl Bulk {
    /// Creates the keys. `record` contains the fields that all new keys have.
    pub async fn run(self, record: Map<String, Value>, session: &Session) -> anyhow::Result<()> {
        let format = self.format();
        let mut asked = record;
        asked.insert("missing_only".into(), self.missing_only.into());
        match &self.file {
            Some(file) => {
                let (run, mut keys, after) = begin_or_continue(file, asked, format)?;
                let counts = fetch(&run, after, format, &mut keys, session).await?;
                fs::remove_file(run_file(file))
                    .map_err(|problem| io_error(&run_file(file), &problem))?;
                report(&counts, Some(file), session)
            }
            None => {
                let run = Run { run: run_id(), asked };
                session.screen.print(heading(format))?;
                let counts =
                    fetch(&run, None, format, &mut StandardOutput(session), session).await?;
                report(&counts, None, session)
            }
        }
    }

    fn format(&self) -> Format {
        let is_jsonl = |file: &PathBuf| {
            file.extension().is_some_and(|end| end == "jsonl" || end == "ndjson" || end == "json")
        };
        let by_name =
            if self.file.as_ref().is_some_and(is_jsonl) { Format::Jsonl } else { Format::Csv };
        self.format.unwrap_or(by_name)
    }
}

/// The output of the rows. When `put` returns, the rows in a file are durable.
trait RowOutput {
    fn put(&mut self, rows: &str) -> io::Result<()>;
}

struct StandardOutput<'a>(&'a Session);

impl RowOutput for StandardOutput<'_> {
    fn put(&mut self, rows: &str) -> io::Result<()> {
        self.0.screen.print(rows)
    }
}

impl RowOutput for File {
    fn put(&mut self, rows: &str) -> io::Result<()> {
        self.write_all(rows.as_bytes())?;
        self.sync_data()
    }
}

/// Returns a random id of a run.
fn run_id() -> String {
    format!("{:032x}", u128::from_be_bytes(Entropy::system().bytes()))
}

fn run_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".run");
    name.into()
}

fn io_error(path: &Path, problem: &io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{}: {problem}", path.display()))
}

fn heading(format: Format) -> &'static str {
    match format {
        Format::Csv => HEADING,
        Format::Jsonl => "",
    }
}

/// Begins a run, or continues an interrupted one. Returns the run, the file of the keys, and the
/// last user in this file. `None` means that the file contains no user.
fn begin_or_continue(
    file: &Path,
    asked: Map<String, Value>,
    format: Format,
) -> Result<(Run, File, Option<u64>), CliError> {
    let run_path = run_file(file);
    match fs::read(&run_path) {
        Ok(text) => continue_run(file, &text, asked, format),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            if file.exists() {
                let file = file.display();
                let text = format!(
                    "{file} exists already and does not belong to an interrupted run: choose another file"
                );
                return Err(CliError::new(Exit::Usage, text));
            }
            let run = Run { run: run_id(), asked };
            let text = serde_json::to_vec(&run).unwrap_or_default();
            let mut output = create(&run_path).map_err(|problem| io_error(&run_path, &problem))?;
            output
                .write_all(&text)
                .and_then(|()| output.sync_all())
                .map_err(|problem| io_error(&run_path, &problem))?;
            let keys = create_key_file(file, format).map_err(|problem| io_error(file, &problem))?;
            Ok((run, keys, None))
        }
        Err(problem) => Err(io_error(&run_path, &problem)),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn create_key_file(file: &Path, format: Format) -> io::Result<File> {
    let mut keys = create(file)?;
    keys.write_all(heading(format).as_bytes())?;
    keys.sync_all()?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(keys)
}

fn continue_run(
    file: &Path,
    run_text: &[u8],
    asked: Map<String, Value>,
    format: Format,
) -> Result<(Run, File, Option<u64>), CliError> {
    let usage = |text: String| CliError::new(Exit::Usage, text);
    let remedy = format!("delete {} to begin a new run", run_file(file).display());
    let run: Run = serde_json::from_slice(run_text)
        .map_err(|_| usage(format!("the file of the interrupted run is damaged: {remedy}")))?;
    // The time of the expiry is not compared, because a relative expiry is a different time now.
    let without_expiry_time = |asked: &Map<String, Value>| {
        let mut asked = asked.clone();
        asked.insert("expires".into(), asked.contains_key("expires").into());
        asked
    };
    if without_expiry_time(&run.asked) != without_expiry_time(&asked) {
        let text =
            format!("the interrupted run had other options: repeat those options, or {remedy}");
        return Err(usage(text));
    }
    if !file.exists() {
        let keys = create_key_file(file, format).map_err(|problem| io_error(file, &problem))?;
        return Ok((run, keys, None));
    }
    let opened = OpenOptions::new().read(true).write(true).open(file);
    let mut keys = opened.map_err(|problem| io_error(file, &problem))?;
    let after = last_user(&mut keys, format).map_err(|problem| io_error(file, &problem))?;
    Ok((run, keys, after))
}

/// Returns the user of the last complete row. Truncates the file after this row, and sets the
/// file's position to the end.
fn last_user(keys: &mut File, format: Format) -> io::Result<Option<u64>> {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    keys.read_to_end(&mut text)?;
    let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |index| index + 1);
    keys.set_len(end as u64)?;
    keys.seek(SeekFrom::Start(end as u64))?;
    if end == 0 {
        keys.write_all(heading(format).as_bytes())?;
    }
    let complete = String::from_utf8_lossy(&text[..end]);
    let row = complete.lines().last().unwrap_or_default();
    Ok(match format {
        Format::Csv => row.split(',').next().and_then(|uid| uid.parse().ok()),
        Format::Jsonl => {
            serde_json::from_str::<Value>(row).ok().and_then(|row| row["uid"].as_u64())
        }
    })
}

/// The number of created keys, and the number of users without a new key for each reason.
#[derive(Debug, Default)]
struct Counts {
    keys: u64,
    skipped: Map<String, Value>,
}

async fn fetch(
    run: &Run,
    after: Option<u64>,
    format: Format,
    output: &mut impl RowOutput,
    session: &Session,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut after = after.map(|uid| uid.to_string());
    let bar = bar("users");
    loop {
        let mut body = run.asked.clone();
        body.insert("run".into(), run.run.as_str().into());
        body.insert("limit".into(), MAX_USERS.into());
        body.extend(after.map(|cursor| ("after".to_owned(), Value::from(cursor))));
        let target = path(&["keys", "generate-all"]);
        let part = session.client.post(&target, &Value::Object(body)).await?.body;
        let items = part["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows =
            zeroize::Zeroizing::new(items.iter().map(|item| row(item, format)).collect::<String>());
        output.put(&rows)?;
        counts.add(&part, items.len());
        bar.set_length(part["users"].as_u64().unwrap_or_default());
        bar.inc(items.len() as u64 + skipped(&part).map(|(_, count)| count).sum::<u64>());
        after = part["next"].as_str().map(str::to_owned);
        if after.is_none() {
            bar.finish_and_clear();
            return Ok(counts);
        }
    }
}

impl Counts {
    fn add(&mut self, part: &Value, keys: usize) {
        self.keys += keys as u64;
        for (reason, count) in skipped(part) {
            let sum = self.skipped.get(reason).and_then(Value::as_u64).unwrap_or_default() + count;
            self.skipped.insert(reason.clone(), sum.into());
        }
    }
}

fn skipped(part: &Value) -> impl Iterator<Item = (&String, u64)> {
    let all = part["skipped"].as_object().into_iter().flatten();
    all.filter_map(|(reason, count)| Some((reason, count.as_u64()?)))
}

fn row(item: &Value, format: Format) -> String {
    let text = |name: &str| item[name].as_str().unwrap_or_default();
    let (name, id, key) = (text("username"), text("id"), text("key"));
    match format {
        Format::Csv => format!("{},{},{id},{key}\n", item["user"], quoted(name)),
        Format::Jsonl => {
            format!("{}\n", json!({ "uid": item["user"], "username": name, "id": id, "key": key }))
        }
    }
}

/// A CSV field (RFC 4180), quoted if necessary.
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn report(counts: &Counts, file: Option<&Path>, session: &Session) -> anyhow::Result<()> {
    if let (Output::Json, Some(file)) = (session.output, file) {
        let file = file.display().to_string();
        return session
            .show(&json!({ "keys": counts.keys, "file": file, "skipped": counts.skipped }));
    }
    let place = file.map_or_else(String::new, |file| format!(" They are in {}.", file.display()));
    session.screen.note(&format!("{} keys were created.{place}\n", counts.keys));
    for (reason, count) in counts.skipped.iter().filter(|(_, count)| count.as_u64() > Some(0)) {
        let why = match reason.as_str() {
            "has_key" => "have a key already",
            "has_most" => "have the maximum number of keys",
            "lacks_scope" => "lack a permission that the keys would have",
            _ => "are administrators",
        };
        session.screen.note(&format!("{count} users got no key: they {why}.\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_field_is_quoted_if_necessary() {
        for (field, expected) in [("a b", "a b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\"")] {
            assert_eq!(quoted(field), expected);
        }
    }

    #[test]
    fn incomplete_file_continues_after_its_last_complete_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let csv = format!("{HEADING}3,a,x,k\n17,\"b,\",y,k\n");
        let jsonl = "{\"uid\":5}\n";
        for (text, format, uid, rest) in [
            (csv.clone() + "18,c,z", Format::Csv, Some(17), csv.as_str()),
            (csv.clone(), Format::Csv, Some(17), &csv),
            (HEADING.to_owned(), Format::Csv, None, HEADING),
            ("uid,user".to_owned(), Format::Csv, None, HEADING),
            (String::new(), Format::Csv, None, HEADING),
            (format!("{jsonl}{{\"uid\":6"), Format::Jsonl, Some(5), jsonl),
            ("{\"ui".to_owned(), Format::Jsonl, None, ""),
        ] {
            fs::write(&path, &text).unwrap();
            let mut keys = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            assert_eq!(last_user(&mut keys, format).unwrap(), uid, "{text}");
            keys.put("next\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{rest}next\n"));
        }
    }
}
