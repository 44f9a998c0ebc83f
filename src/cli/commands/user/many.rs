//! The options of commands that change all users whom conditions select.

use clap::Args;
use serde_json::{Map, Value};

use crate::cli::{
    CliError, Exit, Session,
    client::{many::Many, paths::path},
    terminal::prompt::Confirmation,
};

/// Selects many users instead of one.
#[derive(Debug, Default, Args)]
pub struct ManyUsers {
    /// All users for whom these conditions hold, such as role=editor, name="build-*" or
    /// created-before=90d; separated by commas
    #[arg(long = "where", value_name = "CONDITIONS", group = "who")]
    conditions: Option<String>,
    /// With --where: only show how many users would be changed, and the first of them
    #[arg(long, requires = "conditions")]
    dry_run: bool,
}

impl ManyUsers {
    /// Whether the command is about many users.
    pub fn is_given(&self) -> bool {
        self.conditions.is_some()
    }

    /// Changes the users. `change` contains the fields of the change.
    pub async fn edit(&self, change: Map<String, Value>, session: &Session) -> anyhow::Result<()> {
        let many = self.request(change, "changed");
        many.report(&many.run(self.dry_run, session).await?, session)
    }

    /// Deletes the users after confirmation.
    pub async fn delete(&self, consent: Confirmation, session: &Session) -> anyhow::Result<()> {
        let change = [("delete".to_owned(), true.into())].into_iter().collect();
        let many = self.request(change, "deleted");
        let found = many.run(true, session).await?;
        if self.dry_run {
            return many.report(&found, session);
        }
        let count = found["changed"].as_u64().unwrap_or_default();
        if count > 0 {
            consent.ask(&format!("Delete {count} users and their keys?"))?;
        }
        many.report(&many.run(false, session).await?, session)
    }

    /// The error for options that are for one user only.
    pub fn refuse(option: &str) -> CliError {
        let text =
            format!("{option} is for one user: with --where, use --add-role or --remove-role");
        CliError::new(Exit::Usage, text)
    }

    fn request(&self, change: Map<String, Value>, verb: &'static str) -> Many {
        let mut body = change;
        body.insert("where".into(), self.conditions.clone().unwrap_or_default().into());
        Many { target: path(&["users", "bulk"]), body, records: "users", verb }
    }
}
