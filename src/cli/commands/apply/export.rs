//! `keyward export`: writes all records into a file for people and version control.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use http::response::Parts;
use indicatif::ProgressBar;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::{
    api::RECORDS_FIELD,
    cli::{
        CliError, Exit, Session,
        client::{download::Download, paths::path},
        terminal::progress::bar,
    },
};

const TOML: &str = "application/toml";

#[derive(Debug, Args)]
pub struct Export {
    /// The file, which must not exist yet; only its owner can read it [default: standard output]
    file: Option<PathBuf>,
}

impl Export {
    /// Writes all records to the file, or to standard output.
    pub async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Some(file) = self.file else {
            let mut output = Received::new(io::stdout());
            session.client.download(&path(&["state"]), TOML, &mut output).await?;
            return Ok(output.finish().map(drop)?);
        };
        if file.exists() {
            return Err(file_exists(&file).into());
        }
        write(&file, session).await?;
        session.screen.note(&format!(
            "The records are in {}. The file contains digests of keys and passwords: keep it private.\n",
            file.display()
        ));
        Ok(())
    }
}

fn file_exists(file: &Path) -> CliError {
    let file = file.display();
    CliError::new(Exit::Refused, format!("{file}: the file exists already. Choose a new name"))
}

/// Writes a draft, and renames the draft once it is complete. So `file` is never incomplete.
async fn write(file: &Path, session: &Session) -> Result<(), CliError> {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let draft = Draft(PathBuf::from(name));
    let failed = |problem: io::Error| match problem.kind() {
        io::ErrorKind::AlreadyExists => file_exists(file),
        _ => CliError::new(Exit::Usage, format!("{}: {problem}", file.display())),
    };
    let _ = fs::remove_file(&draft.0);
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft.0);
    let mut output = Received::new(created.map_err(failed)?);
    session.client.download(&path(&["state"]), TOML, &mut output).await?;
    let rename = || {
        output.finish()?.sync_all()?;
        renameat_with(CWD, &draft.0, CWD, file, RenameFlags::NOREPLACE)?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    rename().map_err(failed)
}

/// The file under its first name. Dropping it removes that name, which a complete file has lost.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Writes the document as it arrives, and shows how many records have arrived.
struct Received<W: Write> {
    output: BufWriter<W>,
    bar: ProgressBar,
    is_line_start: bool,
}

impl<W: Write> Received<W> {
    fn new(output: W) -> Self {
        Self { output: BufWriter::new(output), bar: bar("records"), is_line_start: true }
    }

    fn finish(self) -> io::Result<W> {
        self.bar.finish_and_clear();
        self.output.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl<W: Write + Send> Download for Received<W> {
    fn begin(&mut self, head: &Parts) {
        let count =
            head.headers.get(RECORDS_FIELD).and_then(|value| value.to_str().ok()?.parse().ok());
        self.bar.set_length(count.unwrap_or_default());
    }

    fn part(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Each record begins with a line such as `[[users]]`. A part can end within that line, so
        // only its first byte is counted; a record's other tables are few.
        let mut records = 0;
        for byte in bytes {
            records += u64::from(self.is_line_start && *byte == b'[');
            self.is_line_start = *byte == b'\n';
        }
        self.bar.inc(records);
        self.output.write_all(bytes)
    }
}
