//! `keyward backup` and `keyward restore`: write a whole store into a file, and read it back.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    accounts::{
        LaterChanges, RestoreError, Restored, Revival, SetupError, check_backup,
        check_backup_completeness, restore,
    },
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        instance::accounts::engine_on_disk,
        terminal::{
            record,
            screen::{Screen, printable},
            table::cell,
        },
    },
    config::{Loaded, Settings},
    model::Digest,
    store::{
        archive::{ArchiveError, Contents},
        audit_log::AuditVerdict,
    },
};

/// The most records of a list for people. JSON has all of them.
const MAX_LISTED: usize = 100;

#[derive(Debug, Args)]
pub struct Backup {
    /// The file, which must not exist yet; the server writes it, readable only by its owner
    file: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup file
    file: PathBuf,
    /// Only check the backup: that it is complete, and that its seal is right
    #[arg(long)]
    check: bool,
    /// With --check: do not check the seal, only that the file is complete
    #[arg(long, requires = "check")]
    without_pepper: bool,
    /// Restore all records as they were, also keys, users and rights that were taken away since
    #[arg(long, conflicts_with = "check")]
    bring_back: bool,
    /// Restore, and then apply all later revocations, blocks, deletions and narrower limits
    #[arg(long, conflicts_with_all = ["check", "bring_back"])]
    keep_revocations: bool,
    /// Restore also if the present store cannot be read, so that nobody knows what was revoked
    #[arg(long, conflicts_with_all = ["check", "bring_back", "keep_revocations"])]
    replace_unreadable: bool,
}

impl Backup {
    /// Has the process that has the store open write the backup.
    pub async fn run(self, session: &Session, loaded: &Loaded) -> anyhow::Result<()> {
        let file = std::path::absolute(&self.file)?;
        let Some(name) = file.to_str() else {
            return Err(CliError::new(Exit::Usage, "the file's name is not UTF-8 text").into());
        };
        let mut made =
            session.client.post(&path(&["backup"]), &json!({ "file": name })).await?.body;
        let others = not_included(loaded);
        if session.output == Output::Json {
            made["not_included"] = others.iter().map(|(_, path)| json!(path)).collect();
            return session.show(&made);
        }
        if made["replaced_leftover"] == true {
            session.screen.note(&format!(
                "Replaced {}.part, the rest of an interrupted backup.\n",
                printable(name)
            ));
        }
        let records = cell(&made["records"]);
        let mut text = format!(
            "{records} records are in {}. These are not in it: copy them separately, and the pepper to another place than the backup.\n",
            printable(name)
        );
        for (what, path) in others {
            text.push_str(&format!("  {what}: {}\n", printable(&path.display().to_string())));
        }
        session.screen.note(&text);
        Ok(())
    }
}

/// Files and folders that a new machine needs beside the backup.
fn not_included(loaded: &Loaded) -> Vec<(&'static str, PathBuf)> {
    let Settings { store, scripts, .. } = &loaded.settings;
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut found = vec![
        ("the pepper", absolute(&store.pepper_file)),
        ("the scripts", absolute(&scripts.dir)),
        ("their secrets", absolute(&scripts.secrets_dir)),
    ];
    found.extend(store.hmac_key_file.as_deref().map(|path| ("the HMAC key", absolute(path))));
    found.extend(loaded.source.as_deref().map(|path| ("the configuration", absolute(path))));
    found
}

impl Restore {
    /// Restores a backup, or checks it.
    pub async fn run(self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let screen = Screen::process();
        let store = &settings.store;
        if self.check {
            let (checked, headline) = if self.without_pepper {
                let headline =
                    "The backup is complete. Its seal was not checked, so it may have been changed";
                (check_backup_completeness(&self.file), headline)
            } else {
                (check_backup(&self.file, &store.pepper_file), "The backup is whole")
            };
            let contents = checked.map_err(|problem| failure(problem, output))?;
            let mut record = record_of(&contents);
            record["seal"] = json!(if self.without_pepper { "unchecked" } else { "right" });
            return show(&record, output, &screen, headline);
        }
        let Some(engine) = engine_on_disk(settings) else {
            let text = "with store.engine = \"memory\" there is no store that a backup could be put back into";
            return Err(CliError::new(Exit::Usage, text).into());
        };
        let later = if self.bring_back {
            LaterChanges::Undo
        } else if self.keep_revocations {
            LaterChanges::Keep
        } else if self.replace_unreadable {
            LaterChanges::ReplaceUnreadable
        } else {
            LaterChanges::Refuse
        };
        let (path, pepper_file) = (&store.path, &store.pepper_file);
        let restored = restore(&self.file, path, pepper_file, engine, store.cache_mib, later).await;
        let Restored { contents, former_store, revivals, trail } =
            restored.map_err(|problem| failure(problem, output))?;
        if let Some(former) = &former_store {
            screen.note(&format!("The store that was there is in {} now.\n", former.display()));
        }
        if let AuditVerdict::Tampered { number, problem } = trail {
            screen.note(&format!(
                "warning: the audit trail in the backup was tampered with at entry {number}. {problem}\n"
            ));
        }
        if output == Output::Table && !revivals.is_empty() {
            let headline = match later {
                LaterChanges::Keep => "These later changes were kept",
                _ => "These records came back or became wider",
            };
            screen.note(&format!("{headline}:\n{}", listed(&revivals)));
        }
        let mut record = record_of(&contents);
        if !revivals.is_empty() {
            let name = if later == LaterChanges::Keep { "kept" } else { "brought_back" };
            record[name] = json!(revivals);
        }
        show(&record, output, &screen, "The backup is restored")
    }
}

/// The records that a restore brings back, one on each line, for people.
fn listed(revivals: &[Revival]) -> String {
    let mut text = String::new();
    for Revival { kind, id, name, changes, .. } in revivals.iter().take(MAX_LISTED) {
        let name = if name.is_empty() { String::new() } else { format!(" ({name})") };
        let line = printable(&format!("{kind} {id}{name}: {}", changes.join("; ")));
        text.push_str(&format!("  {line}\n"));
    }
    let more = revivals.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        text.push_str(&format!("  and {more} more: --output json lists all\n"));
    }
    text
}

fn record_of(contents: &Contents) -> Value {
    json!({
        "records": contents.records,
        "sequence": contents.sequence,
        "blake3": Digest::from_bytes(contents.blake3),
    })
}

fn show(record: &Value, output: Output, screen: &Screen, headline: &str) -> anyhow::Result<()> {
    match output {
        Output::Json => screen.print(&format!("{record:#}\n"))?,
        Output::Table => {
            let mut record = record.clone();
            if let Some(fields) = record.as_object_mut() {
                // The lists were printed as notes.
                fields.retain(|_, value| !value.is_array());
            }
            screen.note(&format!("{headline}.\n"));
            screen.print_styled(&record::record(&record, &screen.display()))?;
        }
    }
    Ok(())
}

fn failure(problem: RestoreError, output: Output) -> anyhow::Error {
    let exit = match &problem {
        RestoreError::File { problem: ArchiveError::Io(e), .. }
            if e.kind() == io::ErrorKind::NotFound =>
        {
            Exit::Usage
        }
        RestoreError::File { .. }
        | RestoreError::Pepper { .. }
        | RestoreError::WouldRevive { .. }
        | RestoreError::OtherStore { .. } => Exit::Refused,
        RestoreError::InUse(_)
        | RestoreError::UnreadableStore { .. }
        | RestoreError::SealUnchecked { .. }
        | RestoreError::Setup(SetupError::Pepper(_)) => Exit::Unreachable,
        _ => Exit::Failed,
    };
    let text = match &problem {
        RestoreError::WouldRevive { revivals, .. } => {
            let list = match output {
                Output::Table => format!(":\n{}", listed(revivals).trim_end()),
                Output::Json => String::new(),
            };
            format!(
                "{problem}{list}\nUse --keep-revocations to restore and keep these changes, or --bring-back to undo them"
            )
        }
        RestoreError::SealUnchecked { .. } => {
            format!("{problem}\nTo check only that the file is complete, use --without-pepper")
        }
        RestoreError::UnreadableStore { .. } => {
            format!("{problem}\nTo replace it nevertheless, use --replace-unreadable")
        }
        RestoreError::OtherStore { .. } => format!("{problem}. Use --bring-back to replace it"),
        problem => problem.to_string(),
    };
    let mut error = CliError::new(exit, text);
    if let RestoreError::WouldRevive { revivals, .. } = &problem {
        error.problem["revivals"] = json!(revivals);
    }
    error.into()
}
