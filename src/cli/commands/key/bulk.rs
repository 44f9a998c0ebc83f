//! `keyward key generate --all`: creates a key for each user and writes them into a file that only
//! its owner can read, or into a pipe.
//!
//! While the file is unfinished, `FILE.run` beside it contains the id of the run. The same command
//! continues the run: keys whose response was lost are returned again, and none is created twice.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    cli::{CliError, Exit, Output, Session, client::paths::path},
    model::Entropy,
};

/// The users of one request.
const PART: usize = 2000;
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
    /// Creates the keys; `record` has their fields.
    pub async fn run(self, record: Map<String, Value>, session: &Session) -> anyhow::Result<()> {
        let format = self.format();
        let mut asked = record;
        asked.insert("missing_only".into(), self.missing_only.into());
        match &self.file {
            Some(file) => {
                let (run, mut sheet, after) = begin(file, asked, format)?;
                let counts = fetch(&run, after, format, &mut sheet, session).await?;
                fs::remove_file(beside(file)).map_err(|problem| at(&beside(file), &problem))?;
                tell(&counts, Some(file), session)
            }
            None => {
                let run = Run { run: name(), asked };
                session.screen.print(heading(format))?;
                let counts = fetch(&run, None, format, &mut Pipe(session), session).await?;
                tell(&counts, None, session)
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

/// The output of keys; written rows are durable.
trait Sheet {
    fn put(&mut self, rows: &str) -> io::Result<()>;
}

struct Pipe<'a>(&'a Session);

impl Sheet for Pipe<'_> {
    fn put(&mut self, rows: &str) -> io::Result<()> {
        self.0.screen.print(rows)
    }
}

impl Sheet for File {
    fn put(&mut self, rows: &str) -> io::Result<()> {
        self.write_all(rows.as_bytes())?;
        self.sync_data()
    }
}

/// A random name.
fn name() -> String {
    format!("{:032x}", u128::from_be_bytes(Entropy::system().bytes()))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".run");
    name.into()
}

fn at(path: &Path, problem: &io::Error) -> CliError {
    CliError::new(Exit::Failed, format!("{}: {problem}", path.display()))
}

fn heading(format: Format) -> &'static str {
    match format {
        Format::Csv => HEADING,
        Format::Jsonl => "",
    }
}

/// Begins a run, or continues an interrupted one. Returns its id, its file, and the last user in
/// it.
fn begin(
    file: &Path,
    asked: Map<String, Value>,
    format: Format,
) -> Result<(Run, File, Option<u64>), CliError> {
    let notes = beside(file);
    match fs::read(&notes) {
        Ok(text) => go_on(file, &text, asked, format),
        Err(problem) if problem.kind() == io::ErrorKind::NotFound => {
            if file.exists() {
                let file = file.display();
                let text = format!(
                    "{file} is there already, and it is not of a run that was broken off: name another file"
                );
                return Err(CliError::new(Exit::Usage, text));
            }
            let run = Run { run: name(), asked };
            let text = serde_json::to_vec(&run).unwrap_or_default();
            let mut made = create(&notes).map_err(|problem| at(&notes, &problem))?;
            made.write_all(&text)
                .and_then(|()| made.sync_all())
                .map_err(|problem| at(&notes, &problem))?;
            let sheet = sheet(file, format).map_err(|problem| at(file, &problem))?;
            Ok((run, sheet, None))
        }
        Err(problem) => Err(at(&notes, &problem)),
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn sheet(file: &Path, format: Format) -> io::Result<File> {
    let mut sheet = create(file)?;
    sheet.write_all(heading(format).as_bytes())?;
    sheet.sync_all()?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(sheet)
}

fn go_on(
    file: &Path,
    notes: &[u8],
    asked: Map<String, Value>,
    format: Format,
) -> Result<(Run, File, Option<u64>), CliError> {
    let usage = |text: String| CliError::new(Exit::Usage, text);
    let remedy = format!("delete {} to begin anew", beside(file).display());
    let run: Run = serde_json::from_slice(notes).map_err(|_| {
        usage(format!("the notes of the run that was broken off are damaged: {remedy}"))
    })?;
    // A relative expiry would be a different time in the continued run.
    let apart_from_expiry = |asked: &Map<String, Value>| {
        let mut asked = asked.clone();
        asked.insert("expires".into(), asked.contains_key("expires").into());
        asked
    };
    if apart_from_expiry(&run.asked) != apart_from_expiry(&asked) {
        let text =
            format!("the run that was broken off had other options: repeat them, or {remedy}");
        return Err(usage(text));
    }
    if !file.exists() {
        let sheet = sheet(file, format).map_err(|problem| at(file, &problem))?;
        return Ok((run, sheet, None));
    }
    let opened = OpenOptions::new().read(true).write(true).open(file);
    let mut sheet = opened.map_err(|problem| at(file, &problem))?;
    let after = last_row(&mut sheet, format).map_err(|problem| at(file, &problem))?;
    Ok((run, sheet, after))
}

/// The user of the last complete row. Truncates the file after it and positions it at the end.
fn last_row(sheet: &mut File, format: Format) -> io::Result<Option<u64>> {
    let mut text = zeroize::Zeroizing::new(Vec::new());
    sheet.read_to_end(&mut text)?;
    let end = text.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    sheet.set_len(end as u64)?;
    sheet.seek(SeekFrom::Start(end as u64))?;
    if end == 0 {
        sheet.write_all(heading(format).as_bytes())?;
    }
    let whole = String::from_utf8_lossy(&text[..end]);
    let row = whole.lines().last().unwrap_or_default();
    Ok(match format {
        Format::Csv => row.split(',').next().and_then(|uid| uid.parse().ok()),
        Format::Jsonl => {
            serde_json::from_str::<Value>(row).ok().and_then(|row| row["uid"].as_u64())
        }
    })
}

/// Reports the number of keys, and why there are no more.
#[derive(Debug, Default)]
struct Counts {
    keys: u64,
    skipped: Map<String, Value>,
}

async fn fetch(
    run: &Run,
    after: Option<u64>,
    format: Format,
    sheet: &mut impl Sheet,
    session: &Session,
) -> anyhow::Result<Counts> {
    let mut counts = Counts::default();
    let mut after = after.map(|uid| uid.to_string());
    let bar = bar("users");
    loop {
        let mut body = run.asked.clone();
        body.insert("run".into(), run.run.as_str().into());
        body.insert("limit".into(), PART.into());
        body.extend(after.map(|cursor| ("after".to_owned(), Value::from(cursor))));
        let target = path(&["keys", "generate-all"]);
        let part = session.client.post(&target, &Value::Object(body)).await?.body;
        let items = part["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let rows =
            zeroize::Zeroizing::new(items.iter().map(|item| row(item, format)).collect::<String>());
        sheet.put(&rows)?;
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

/// Shows progress on standard error, if that is a terminal.
pub(in crate::cli) fn bar(what: &str) -> ProgressBar {
    let form = format!("{{bar:30}} {{pos}}/{{len}} {what}, {{per_sec}}, {{eta}} left");
    let style =
        ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
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

fn tell(counts: &Counts, file: Option<&Path>, session: &Session) -> anyhow::Result<()> {
    if let (Output::Json, Some(file)) = (session.output, file) {
        let file = file.display().to_string();
        return session
            .show(&json!({ "keys": counts.keys, "file": file, "skipped": counts.skipped }));
    }
    let place = file.map_or_else(String::new, |file| format!(" They are in {}.", file.display()));
    session.screen.note(&format!("{} keys were made.{place}\n", counts.keys));
    for (reason, count) in counts.skipped.iter().filter(|(_, count)| count.as_u64() > Some(0)) {
        let why = match reason.as_str() {
            "has_key" => "have a key already",
            "has_most" => "have as many keys as there may be",
            "lacks_scope" => "do not have the permissions that the keys would have",
            _ => "are administrators",
        };
        session.screen.note(&format!("{count} users got none: they {why}.\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_has_to_be() {
        for (field, written) in [("a b", "a b"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\"")] {
            assert_eq!(quoted(field), written);
        }
    }

    #[test]
    fn a_file_that_was_broken_off_goes_on_behind_its_last_whole_row() {
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
            let mut sheet = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            assert_eq!(last_row(&mut sheet, format).unwrap(), uid, "{text}");
            sheet.put("next\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{rest}next\n"));
        }
    }
}
