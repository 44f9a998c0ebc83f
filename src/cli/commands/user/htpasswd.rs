//! `keyward user import`: imports users and password digests from files of Apache's `htpasswd`, or
//! from CSV with a heading.

use std::{collections::HashMap, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Session,
        client::paths::path,
        commands::{
            files::table::{Columns, Fault, has_heading, read_table},
            key::import::refuse_faults,
            upload::{Upload, read},
        },
    },
    model::fold,
};

#[derive(Debug, Args)]
pub struct Import {
    /// The file, with a line username:digest for each user, or CSV with the heading
    /// username,password_digest; - is standard input. Supported digests: bcrypt, $apr1$, {SHA},
    /// $5$, $6$, Argon2, and $S$, $H$ and $P$ of Drupal
    file: PathBuf,
    /// A role for new users; repeatable
    #[arg(long = "role", value_name = "ID")]
    roles: Vec<String>,
    /// Only check the file, and print the number of users that would be created
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    /// Checks all rows and then, unless this is a dry run, imports the rows.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let text = read(&self.file)?;
        let mut faults = Vec::new();
        let rows = if has_heading(&text, &COLUMNS) {
            from_csv(&text, &mut faults)
        } else {
            rows(&text, &mut faults)
        };
        drop(text);
        refuse_faults(&faults)?;
        let upload = Upload {
            target: path(&["users", "import"]),
            common: json!({ "roles": self.roles }),
            unit: "users",
            rows: &rows,
        };
        let counts = upload.run(self.dry_run, session).await?;
        let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or_default();
        let done = if self.dry_run { "would be created" } else { "are created" };
        session.report(&counts, |screen| {
            let (users, passwords) = (count("users"), count("passwords"));
            screen.note(&format!(
                "{users} users {done}; {passwords} existing users get a password.\n"
            ));
            if count("kept") > 0 {
                screen.note(&format!(
                    "{} users have a password already, and keep it.\n",
                    count("kept")
                ));
            }
        })
    }
}

/// The columns of a CSV file.
static COLUMNS: Columns = Columns {
    all: &[
        &["username", "name", "user"],
        &["password_digest", "digest", "password_hash", "hash", "pass"],
    ],
    required: 2,
};

fn from_csv(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut lines_of_users = HashMap::new();
    read_table(text, &COLUMNS, faults, |read, faults| {
        let field = |name| read.field(name).unwrap_or_default();
        let (username, digest) = (field("username"), field("password_digest"));
        if username.is_empty() || digest.is_empty() {
            faults.push((read.line, "The username or the digest is missing.".into()));
            return;
        }
        add(&mut rows, &mut lines_of_users, faults, (read.line, &username, &digest));
    });
    rows
}

/// Adds the row of a user who is not listed yet.
fn add(
    rows: &mut Vec<Value>,
    lines_of_users: &mut HashMap<String, u64>,
    faults: &mut Vec<Fault>,
    (line, username, digest): (u64, &str, &str),
) {
    if let Some(earlier) = lines_of_users.insert(fold(username), line) {
        faults.push((line, format!("The user was already listed in line {earlier}.")));
        return;
    }
    rows.push(json!({ "line": line, "username": username, "password_digest": digest }));
}

/// Parses a file with one line per user. Empty lines and lines that begin with # are skipped, as
/// Apache does.
pub(in crate::cli) fn rows(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut lines_of_users: HashMap<String, u64> = HashMap::new();
    for (index, text) in text.lines().enumerate() {
        let line = index as u64 + 1;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        // The error does not show the line, because the line may contain a password.
        let Some((username, digest)) = text.split_once(':').filter(|(name, _)| !name.is_empty())
        else {
            faults.push((line, "The line does not have the form username:digest.".into()));
            continue;
        };
        add(&mut rows, &mut lines_of_users, faults, (line, username, digest));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_user() {
        let mut faults = Vec::new();
        let text = "# made by hand\nann:$apr1$a$b\r\n\n  bob:{SHA}x:y\nANN:z\nnobody\n:x\n";
        let rows = rows(text, &mut faults);
        let row = |line: u64, username: &str, digest: &str| json!({ "line": line, "username": username, "password_digest": digest });
        assert_eq!(rows, [row(2, "ann", "$apr1$a$b"), row(4, "bob", "{SHA}x:y")]);
        let lines: Vec<u64> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [5, 6, 7]);
        assert!(faults.iter().all(|(_, message)| !message.contains("nobody")));
    }

    #[test]
    fn csv_with_a_heading_is_read() {
        let mut faults = Vec::new();
        let text = "Password hash;Name\n$2y$05$x;ann\n{SHA}y;ANN\n;bob\n";
        assert!(has_heading(text, &COLUMNS));
        let rows = from_csv(text, &mut faults);
        assert_eq!(rows, [json!({ "line": 2, "username": "ann", "password_digest": "$2y$05$x" })]);
        let lines: Vec<u64> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 4]);
        assert!(!has_heading("name:hash\n", &COLUMNS));
    }
}
