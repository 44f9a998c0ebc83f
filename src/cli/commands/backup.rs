//! `keyward backup` and `keyward restore`: write a whole store into a file, and read it back.

use std::{io, path::PathBuf};

use clap::Args;
use serde_json::json;

use crate::{
    accounts::{RestoreError, SetupError, check_backup, restore},
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        instance::accounts::engine_on_disk,
        terminal::{
            screen::Screen,
            table::{self, cell},
        },
    },
    config::Settings,
    model::Digest,
    store::archive::{ArchiveError, Contents},
};

#[derive(Debug, Args)]
pub struct Backup {
    /// The file, which must not exist yet; the server writes it, readable only by its owner
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup file
    file: PathBuf,
    /// Only check that the backup is complete
    #[arg(long)]
    check: bool,
}

impl Backup {
    /// Has the process that has the store open write the backup.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let file = std::path::absolute(&self.file)?;
        let Some(name) = file.to_str() else {
            return Err(CliError::new(Exit::Usage, "the file's name is not UTF-8 text").into());
        };
        let made = session.client.post(&path(&["backup"]), &json!({ "file": name })).await?.body;
        if session.output == Output::Json {
            return session.show(&made);
        }
        let records = cell(&made["records"]);
        session.screen.note(&format!(
            "{records} records are in {}. The pepper is not among them: keep a copy of its file in another place.\n",
            file.display()
        ));
        Ok(())
    }
}

impl Restore {
    /// Restores a backup, or checks it.
    pub async fn run(self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let screen = Screen::process();
        if self.check {
            let (contents, _) = check_backup(&self.file).map_err(failure)?;
            return show(&contents, output, &screen, "The backup is whole");
        }
        let Some(engine) = engine_on_disk(settings) else {
            let text = "with store.engine = \"memory\" there is no store that a backup could be put back into";
            return Err(CliError::new(Exit::Usage, text).into());
        };
        let store = &settings.store;
        let (path, pepper_file) = (&store.path, &store.pepper_file);
        let restored = restore(&self.file, path, pepper_file, engine, store.cache_mib).await;
        let restored = restored.map_err(failure)?;
        if let Some(former) = &restored.former_store {
            screen.note(&format!("The store that was there is in {} now.\n", former.display()));
        }
        show(&restored.contents, output, &screen, "The backup is restored")
    }
}

fn show(
    contents: &Contents,
    output: Output,
    screen: &Screen,
    headline: &str,
) -> anyhow::Result<()> {
    let record = json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
    });
    match output {
        Output::Json => screen.print(&format!("{record:#}\n"))?,
        Output::Table => {
            screen.note(&format!("{headline}.\n"));
            screen.print(&table::record(&record))?;
        }
    }
    Ok(())
}

fn failure(problem: RestoreError) -> anyhow::Error {
    let exit = match &problem {
        RestoreError::File { problem: ArchiveError::Io(e), .. }
            if e.kind() == io::ErrorKind::NotFound =>
        {
            Exit::Usage
        }
        RestoreError::File { .. } | RestoreError::Pepper { .. } => Exit::Refused,
        RestoreError::InUse(_) | RestoreError::Setup(SetupError::Pepper(_)) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    CliError::new(exit, problem.to_string()).into()
}
