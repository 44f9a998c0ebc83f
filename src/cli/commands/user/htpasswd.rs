//! `keyward user import`: imports users and password digests from files of Apache's `htpasswd`.

use std::{collections::HashMap, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        Session,
        client::paths::path,
        commands::{
            key::import::{Fault, refuse_faults},
            upload::{Upload, read},
        },
    },
    model::fold,
};

#[derive(Debug, Args)]
pub struct Import {
    /// The file, with a line username:digest for each user; - is standard input. Supported digests:
    /// bcrypt, $apr1$, {SHA}, $5$, $6$ and Argon2
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
        let rows = rows(&text, &mut faults);
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
        if let Some(earlier) = lines_of_users.insert(fold(username), line) {
            faults.push((line, format!("The user was already listed in line {earlier}.")));
            continue;
        }
        rows.push(json!({ "line": line, "username": username, "password_digest": digest }));
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
}
