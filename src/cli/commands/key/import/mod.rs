//! `keyward key import`: imports keys of other systems. The whole file is checked before the first
//! key is written.

pub(super) mod kong;

use std::{collections::HashMap, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::{
    CliError, Session,
    client::paths::path,
    commands::upload::{MOST_FAULTS, Upload, owner, read, refused},
    terminal::screen::Screen,
};

#[derive(Debug, Args)]
pub struct Import {
    /// The file; - is standard input
    file: PathBuf,
    /// csv (username,key and optionally label,expires,scopes; with or without a heading), jsonl
    /// (objects with these fields, one per line), or kong (its declarative configuration, YAML or
    /// JSON: consumers with their keyauth_credentials) [default: by the file's name, else csv]
    #[arg(long, value_name = "FORM", value_enum, hide_possible_values = true)]
    format: Option<Form>,
    /// The form of the keys in the file: clear (text), sha256, hmac-sha256 or blake3 (digest of the
    /// text in hexadecimal), bcrypt or argon2 (digest string)
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Clear, hide_possible_values = true)]
    digest: Kind,
    /// Create missing users
    #[arg(long)]
    create_users: bool,
    /// Check only, and print what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Csv,
    Jsonl,
    Kong,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Clear,
    Sha256,
    HmacSha256,
    Blake3,
    Bcrypt,
    Argon2,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Sha256 => "sha256",
            Self::HmacSha256 => "hmac-sha256",
            Self::Blake3 => "blake3",
            Self::Bcrypt => "bcrypt",
            Self::Argon2 => "argon2",
        }
    }
}

/// The problem of a line.
pub(in crate::cli) type Fault = (u64, String);

impl Import {
    /// Checks all rows and then, unless this is a dry run, writes them.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = read(&self.file)?;
        let mut faults = Vec::new();
        let mut rows = match self.form() {
            Form::Csv => from_csv(&text, &mut faults),
            Form::Jsonl => from_jsonl(&text, &mut faults),
            Form::Kong => kong::read(&text, &mut faults),
        };
        drop(text);
        rows.sort_by_cached_key(owner);
        find_twins(&rows, &mut faults);
        refuse_faults(&faults)?;
        let upload = Upload {
            target: path(&["keys", "import"]),
            common: json!({ "digest": self.digest.name(), "create_users": self.create_users }),
            unit: "keys",
            rows: &rows,
        };
        let counts = upload.run(self.dry_run, session).await?;
        let done = if self.dry_run { "would be imported" } else { "are imported" };
        session.report(&counts, |screen| tell(&counts, done, screen))
    }

    fn form(&self) -> Form {
        let end = self.file.extension().and_then(|end| end.to_str());
        let by_name = match end {
            Some("jsonl" | "ndjson") => Form::Jsonl,
            Some("json" | "yaml" | "yml") => Form::Kong,
            _ => Form::Csv,
        };
        self.format.unwrap_or(by_name)
    }
}

fn tell(counts: &Map<String, Value>, done: &str, screen: &Screen) {
    let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (keys, users, known) = (count("keys"), count("users"), count("known"));
    screen.note(&format!("{keys} keys {done}, with {users} new users.\n"));
    if known > 0 {
        screen.note(&format!("{known} keys were there already.\n"));
    }
}

/// The problems of a file's lines, found before the API checks them.
pub(in crate::cli) fn refuse_faults(faults: &[Fault]) -> Result<(), CliError> {
    if faults.is_empty() {
        return Ok(());
    }
    let told = faults.iter().take(MOST_FAULTS);
    let told = told.map(
        |(line, said)| json!({ "location": format!("line {line}"), "message": said, "fix": "" }),
    );
    Err(refused(told.collect(), faults.len()))
}

/// A row for the API, without absent fields.
pub(in crate::cli) fn row(
    line: u64,
    field: impl Fn(&str) -> Option<String>,
) -> Result<Value, Fault> {
    let any = |names: &[&str]| names.iter().find_map(|name| field(name)).filter(|v| !v.is_empty());
    let needed = |names: &[&str]| {
        any(names).ok_or_else(|| (line, format!("There is no {} here.", names[0])))
    };
    let mut row = json!({
        "line": line,
        "username": needed(&["username", "name", "user"])?,
        "key": needed(&["key", "api_key"])?,
    });
    for name in ["label", "expires"] {
        if let Some(text) = any(&[name]) {
            row[name] = text.into();
        }
    }
    if let Some(words) = any(&["scopes"]) {
        row["scopes"] = words.split(';').map(str::trim).collect();
    }
    Ok(row)
}

const NAMES: [&str; 8] =
    ["username", "name", "user", "key", "api_key", "label", "expires", "scopes"];

/// The line of an offset in the text. The reader's own count is one too low with Windows line ends.
struct Lines<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of a record that begins after the previous one.
    fn of(&mut self, place: &csv::Position) -> u64 {
        let begin = (place.byte() as usize).min(self.text.len());
        let blank = self.text[begin..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let end = (begin + blank).max(self.at);
        self.line += self.text[self.at..end].iter().filter(|b| **b == b'\n').count() as u64;
        self.at = end;
        self.line
    }
}

fn from_csv(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut heading: Vec<String> =
        ["username", "key", "label", "expires", "scopes"].map(str::to_owned).into();
    let mut lines = Lines { text: text.as_bytes(), at: 0, line: 1 };
    let mut rows = Vec::new();
    for (at, record) in reader.records().enumerate() {
        let record = match record {
            Ok(record) => record,
            Err(problem) => {
                let line = problem.position().map_or(0, |at| lines.of(at));
                faults.push((line, "This is not a line of CSV.".into()));
                continue;
            }
        };
        let line = record.position().map_or(0, |at| lines.of(at));
        // A heading is a line with the words of a key and a user column.
        let names: Vec<String> = record.iter().map(str::to_lowercase).collect();
        let has = |names_of: &[&str]| names.iter().any(|name| names_of.contains(&name.as_str()));
        if at == 0 && has(&NAMES[..3]) && has(&NAMES[3..5]) {
            if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
                faults.push((
                    line,
                    format!("There is no column {unknown:?} that could be imported."),
                ));
            }
            heading = names;
            continue;
        }
        if record.len() > heading.len() {
            faults.push((line, format!("It has more than {} fields.", heading.len())));
            continue;
        }
        let field = |name: &str| {
            let at = heading.iter().position(|known| known == name)?;
            record.get(at).map(str::to_owned)
        };
        collect(row(line, field), &mut rows, faults);
    }
    rows
}

fn from_jsonl(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut rows = Vec::new();
    for (at, one) in text.lines().enumerate().filter(|(_, one)| !one.trim().is_empty()) {
        let line = at as u64 + 1;
        // The text may be a key, so it is not repeated.
        let Ok(Value::Object(object)) = serde_json::from_str(one) else {
            faults.push((line, "This is not a JSON object.".into()));
            continue;
        };
        if let Some(unknown) = object.keys().find(|name| !NAMES.contains(&name.as_str())) {
            faults.push((line, format!("There is no field {unknown:?} that could be imported.")));
            continue;
        }
        let field = |name: &str| match object.get(name)? {
            Value::String(text) => Some(text.clone()),
            Value::Array(words) => {
                let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
                words.map(|words| words.join(";"))
            }
            _ => None,
        };
        collect(row(line, field), &mut rows, faults);
    }
    rows
}

pub(in crate::cli) fn collect(
    row: Result<Value, Fault>,
    rows: &mut Vec<Value>,
    faults: &mut Vec<Fault>,
) {
    match row {
        Ok(row) => rows.push(row),
        Err(fault) => faults.push(fault),
    }
}

/// Finds keys of two users in the whole file, since one part would not show all of them.
fn find_twins(rows: &[Value], faults: &mut Vec<Fault>) {
    let mut owners: HashMap<&str, (&Value, String)> = HashMap::new();
    for row in rows {
        let key = row["key"].as_str().unwrap_or_default();
        let name = owner(row);
        match owners.get(key) {
            Some((first, owner)) if *owner != name => {
                let line = row["line"].as_u64().unwrap_or_default();
                faults.push((
                    line,
                    format!("The key of line {first} is given to another user here."),
                ));
            }
            Some(_) => {}
            None => drop(owners.insert(key, (&row["line"], name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(from: fn(&str, &mut Vec<Fault>) -> Vec<Value>, text: &str) -> (Vec<Value>, Vec<u64>) {
        let mut faults = Vec::new();
        let rows = from(text, &mut faults);
        (rows, faults.into_iter().map(|(line, _)| line).collect())
    }

    fn pair(line: u64, username: &str, key: &str) -> Value {
        json!({ "line": line, "username": username, "key": key })
    }

    #[test]
    fn csv_is_read_with_a_heading_and_without() {
        let two = vec![pair(2, "ann", "k,1"), pair(4, "bob", "k2")];
        for heading in ["username,key", "Name,API_KEY"] {
            let text = format!("{heading}\r\nann,\"k,1\"\r\n\r\nbob, k2\r\n");
            assert_eq!(read(from_csv, &text), (two.clone(), vec![]));
        }
        let text = "key,label,user,scopes\nk1,x,ann,read; write\n";
        let row = json!({ "line": 2, "username": "ann", "key": "k1", "label": "x", "scopes": ["read", "write"] });
        assert_eq!(read(from_csv, text), (vec![row], vec![]));
        assert_eq!(
            read(from_csv, "ann,k1\nbob,k2"),
            (vec![pair(1, "ann", "k1"), pair(2, "bob", "k2")], vec![])
        );
        assert_eq!(
            read(from_csv, "ann,k1\nbob\n,k3\na,b,c,d,e,f\n"),
            (vec![pair(1, "ann", "k1")], vec![2, 3, 4])
        );
        assert_eq!(read(from_csv, "username,key,shoe\n").1, [1]);
    }

    #[test]
    fn json_lines_are_objects_with_known_fields() {
        let text = "{\"username\":\"ann\",\"key\":\"k1\",\"scopes\":[\"a\",\"b\"]}\n\n{\"user\":\"bob\",\"api_key\":\"k2\"}\n";
        let (rows, faults) = read(from_jsonl, text);
        assert_eq!(
            (rows.len(), &rows[0]["scopes"], &rows[1]),
            (2, &json!(["a", "b"]), &pair(3, "bob", "k2"))
        );
        assert!(faults.is_empty());
        let text = "nonsense\n[]\n{\"username\":\"a\"}\n{\"username\":\"a\",\"key\":7}\n{\"username\":\"a\",\"key\":\"k\",\"shoe\":1}\n";
        assert_eq!(read(from_jsonl, text), (vec![], vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn a_key_for_two_users_is_found() {
        let rows = [pair(1, "ann", "k1"), pair(2, "ANN", "k1"), pair(3, "bob", "k1")];
        let mut faults = Vec::new();
        find_twins(&rows, &mut faults);
        assert_eq!(faults, [(3, "The key of line 1 is given to another user here.".to_owned())]);
    }
}
