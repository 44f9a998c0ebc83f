//! `keyward import drupal`: imports the users, roles, keys and applications of a Drupal site. The
//! whole dump is checked before the first record is written.

mod dump;
mod lexer;
mod people;
mod php;
mod plan;
mod row;
mod rows;
mod send;
mod site;

use std::path::PathBuf;

use clap::Args;

use self::{
    plan::Plan,
    rows::Source,
    send::Import,
    site::{Places, Site},
};
use crate::cli::{CliError, Exit, Session, commands::upload::refused};

#[derive(Debug, Args)]
pub struct Drupal {
    /// An SQL dump (drush sql-dump, mysqldump, pg_dump, SQLite), or a folder with a CSV file for
    /// each table, such as users_field_data.csv
    dump: PathBuf,
    /// Only check the dump, and print what would be imported
    #[arg(long)]
    dry_run: bool,
    /// Give existing users and roles the fields of the dump; without this option they stay as they
    /// are. A user who has a password keeps it
    #[arg(long)]
    update: bool,
    /// Import the other users if some are refused
    #[arg(long)]
    skip_refused: bool,
    /// The text before the names of all tables
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    table_prefix: String,
    /// The table and the column with the keys of users, such as
    /// user__field_key.field_key_value [default: api_key of users_field_data and key_auth]
    #[arg(long, value_name = "TABLE.COLUMN", value_parser = table_and_column)]
    key_column: Option<(String, String)>,
    /// Import keys that look like digests, because they really are keys
    #[arg(long)]
    clear_keys: bool,
    /// Import the module's universal key although users have keys of their own; then the keys of
    /// the users are not imported
    #[arg(long)]
    universal_key: bool,
    /// Import all permissions of the roles, also those that neither Keyward nor a resource checks
    #[arg(long)]
    all_permissions: bool,
    /// A field of users and the attribute for it; repeatable
    #[arg(long = "field", value_name = "FIELD=ATTRIBUTE", value_parser = field_and_attribute)]
    fields: Vec<(String, String)>,
}

fn table_and_column(text: &str) -> Result<(String, String), String> {
    pair(text, '.').ok_or_else(|| "give a table and a column, such as key_auth.api_key".into())
}

fn field_and_attribute(text: &str) -> Result<(String, String), String> {
    pair(text, '=').ok_or_else(|| "give a field and an attribute, such as field_city=city".into())
}

fn pair(text: &str, separator: char) -> Option<(String, String)> {
    let (one, other) = text.split_once(separator)?;
    (!one.is_empty() && !other.is_empty()).then(|| (one.to_owned(), other.to_owned()))
}

impl Drupal {
    /// Checks the dump and then, unless this is a dry run, imports it.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let source = Source::open(&self.dump, &self.table_prefix)?;
        let places = Places { keys: self.key_column.clone(), fields: self.fields.clone() };
        let site = Site::read(&source, &places)?;
        if site.largest_uid == 0 {
            let text = format!(
                "{}: there are no rows of the table {}users_field_data. If the tables have a \
                 prefix, give it with --table-prefix",
                self.dump.display(),
                self.table_prefix
            );
            return Err(CliError::new(Exit::Usage, text).into());
        }
        let plan = Plan::new(&site, &self, session).await?;
        let mut import = Import::new(&source, &site, &plan, &self, session);
        import.check().await?;
        let problems = import.problems();
        if !problems.is_empty() && !self.skip_refused {
            let count = problems.len();
            return Err(refused(problems, count).into());
        }
        if !self.dry_run {
            plan.write_policy(session).await?;
            import.write().await?;
        }
        import.report()
    }
}
