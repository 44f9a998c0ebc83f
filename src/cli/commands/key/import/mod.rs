//! `keyward key import`: imports keys of other systems. The whole file is checked before the first
//! key is written.

mod digests;
pub(in crate::cli) mod kong;

use std::{collections::HashMap, path::PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::cli::{
    CliError, Session,
    client::paths::path,
    commands::{
        files::table::{Columns, read_table},
        upload::{MAX_PROBLEMS, Upload, owner, read, refused},
    },
    terminal::screen::Screen,
};

#[derive(Debug, Args)]
pub struct Import {
    /// The file; - is standard input
    file: PathBuf,
    /// The format: csv (username,key and optionally label,expires,scopes; with or without a
    /// heading; separated by commas, semicolons or tabs), jsonl (objects with these fields, one per
    /// line), or kong (Kong's declarative configuration in YAML or JSON: consumers with their
    /// keyauth_credentials) [default: by the
    /// file's name, else csv]
    #[arg(long, value_name = "FORM", value_enum, hide_possible_values = true)]
    format: Option<Form>,
    /// The form of the keys in the file: clear (text), sha256, hmac-sha256 or blake3 (digest of the
    /// text in hexadecimal), bcrypt or argon2 (digest string) [default: clear, but keys that look
    /// like digests are refused]
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true)]
    digest: Option<Kind>,
    /// Create missing users
    #[arg(long)]
    create_users: bool,
    /// Only check the file, and print the number of keys that would be imported
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

pub(in crate::cli) use crate::cli::commands::files::table::Fault;

impl Import {
    /// Checks all rows and then, unless this is a dry run, imports the rows.
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
        find_shared_keys(&rows, &mut faults);
        refuse_faults(&faults)?;
        if self.digest.is_none() {
            digests::refuse_digests(&rows)?;
        }
        let digest = self.digest.unwrap_or(Kind::Clear).name();
        let upload = Upload {
            target: path(&["keys", "import"]),
            common: json!({ "digest": digest, "create_users": self.create_users }),
            unit: "keys",
            rows: &rows,
        };
        let counts = upload.run(self.dry_run, session).await?;
        let done = if self.dry_run { "would be imported" } else { "are imported" };
        session.report(&counts, |screen| print_counts(&counts, done, screen))
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

fn print_counts(counts: &Map<String, Value>, done: &str, screen: &Screen) {
    let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (keys, users, known) = (count("keys"), count("users"), count("known"));
    screen.note(&format!("{keys} keys {done}, with {users} new users.\n"));
    if known > 0 {
        screen.note(&format!("{known} keys existed already.\n"));
    }
}

/// Returns an error if `faults` is not empty. These problems are found before the API checks rows.
pub(in crate::cli) fn refuse_faults(faults: &[Fault]) -> Result<(), CliError> {
    if faults.is_empty() {
        return Ok(());
    }
    let listed = faults.iter().take(MAX_PROBLEMS).map(
        |(line, message)| json!({ "location": format!("line {line}"), "message": message, "fix": "" }),
    );
    Err(refused(listed.collect(), faults.len()))
}

/// Creates a row for the API from the fields that are present. The username and the key are
/// required.
pub(in crate::cli) fn row(
    line: u64,
    field: impl Fn(&str) -> Option<String>,
) -> Result<Value, Fault> {
    let first_of =
        |names: &[&str]| names.iter().find_map(|name| field(name)).filter(|v| !v.is_empty());
    let required = |names: &[&str]| {
        first_of(names).ok_or_else(|| (line, format!("The {} is missing.", names[0])))
    };
    let mut row = json!({
        "line": line,
        "username": required(&["username", "name", "user"])?,
        "key": required(&["key", "api_key"])?,
    });
    for name in ["label", "expires"] {
        if let Some(text) = first_of(&[name]) {
            row[name] = text.into();
        }
    }
    if let Some(words) = first_of(&["scopes"]) {
        row["scopes"] = words.split(';').map(str::trim).collect();
    }
    Ok(row)
}

/// The columns of a CSV file, and the fields of JSON lines.
static COLUMNS: Columns = Columns {
    all: &[
        &["username", "name", "user"],
        &["key", "api_key"],
        &["label"],
        &["expires"],
        &["scopes"],
    ],
    required: 2,
};

pub(in crate::cli) fn from_csv(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut rows = Vec::new();
    read_table(text, &COLUMNS, faults, |read, faults| {
        collect(row(read.line, |name| read.field(name)), &mut rows, faults);
    });
    rows
}

pub(in crate::cli) fn from_jsonl(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let is_known = |name: &str| COLUMNS.all.iter().any(|names| names.contains(&name));
    let mut rows = Vec::new();
    for (index, json) in text.lines().enumerate().filter(|(_, json)| !json.trim().is_empty()) {
        let line = index as u64 + 1;
        // The error does not show the line, because the line may contain a key.
        let Ok(Value::Object(object)) = serde_json::from_str(json) else {
            faults.push((line, "The line is not a JSON object.".into()));
            continue;
        };
        if let Some(unknown) = object.keys().find(|name| !is_known(name)) {
            faults.push((line, format!("The field {unknown:?} cannot be imported.")));
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

/// Finds keys that the file gives to two users. The API receives the file in parts, so it would not
/// find all of them.
fn find_shared_keys(rows: &[Value], faults: &mut Vec<Fault>) {
    let mut owners: HashMap<&str, (&Value, String)> = HashMap::new();
    for row in rows {
        let key = row["key"].as_str().unwrap_or_default();
        let name = owner(row);
        match owners.get(key) {
            Some((first, owner)) if *owner != name => {
                let line = row["line"].as_u64().unwrap_or_default();
                faults.push((line, format!("Line {first} gives the same key to another user.")));
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
    fn csv_is_read_with_and_without_a_heading() {
        let expected = vec![pair(2, "ann", "k,1"), pair(4, "bob", "k2")];
        for heading in ["username,key", "Name,API_KEY"] {
            let text = format!("{heading}\r\nann,\"k,1\"\r\n\r\nbob, k2\r\n");
            assert_eq!(read(from_csv, &text), (expected.clone(), vec![]));
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
        find_shared_keys(&rows, &mut faults);
        assert_eq!(faults, [(3, "Line 1 gives the same key to another user.".to_owned())]);
    }
}
