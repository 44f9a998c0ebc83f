//! `keyward key scan`: searches files for keys that someone has committed or logged by mistake. A
//! key is recognized by its format and its checksum.

mod finding;
mod owners;
mod report;
mod sarif;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use finding::Finding;
use owners::Owners;
use report::Report;

use crate::{
    cli::{
        CliError, Exit, Format,
        terminal::screen::{Screen, printable},
    },
    model::{Found, KeyId, Scanner, redact_keys},
};

/// The size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
pub struct Scan {
    /// Files and folders; - is standard input [default: standard input]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Do not ask the server or the store whose the found keys are
    #[arg(long)]
    offline: bool,
}

impl Scan {
    /// Scans all files, and prints the keys.
    ///
    /// # Errors
    /// Keys were found, or a file or folder could not be read.
    pub fn run(self, config: Option<&Path>, format: Format) -> anyhow::Result<()> {
        let is_offline = self.offline;
        let ask = |ids: &[KeyId]| {
            if is_offline { Ok(Owners::default()) } else { owners::ask(ids, config) }
        };
        self.scan(format, &Screen::process(), &mut io::stdin().lock(), ask)
    }

    fn scan(
        self,
        format: Format,
        screen: &Screen,
        stdin: &mut impl Read,
        ask: impl FnOnce(&[KeyId]) -> anyhow::Result<Owners>,
    ) -> anyhow::Result<()> {
        let mut search = Search { report: Report::new(format, screen), screen, unreadable: 0 };
        if self.paths.is_empty() {
            search.stream("-", stdin)?;
        }
        for path in &self.paths {
            match path.to_str() {
                Some("-") => search.stream("-", stdin)?,
                _ => search.path(path)?,
            }
        }
        search.finish(ask)
    }
}

struct Search<'a> {
    report: Report<'a>,
    screen: &'a Screen,
    /// The number of files and folders that could not be read.
    unreadable: u64,
}

impl Search<'_> {
    /// Scans a path from the command line. A link is followed.
    fn path(&mut self, path: &Path) -> io::Result<()> {
        self.name(path, &path.to_string_lossy())?;
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => self.folder(path),
            Ok(_) => self.file(path),
            Err(problem) => {
                self.cannot_read(path, &problem);
                Ok(())
            }
        }
    }

    /// Scans all files of a folder, sorted by name. Links are not followed, because links could
    /// form a cycle.
    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(problem) => {
                self.cannot_read(folder, &problem);
                return Ok(());
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            self.name(&path, &entry.file_name().to_string_lossy())?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.folder(&path)?,
                Ok(kind) if kind.is_file() => self.file(&path)?,
                // The target of a link is part of the tree, as a file's content is.
                Ok(kind) if kind.is_symlink() => self.link(&path)?,
                // Pipes and devices are skipped: reading a pipe or a device could block.
                Ok(_) => {}
                Err(problem) => self.cannot_read(&path, &problem),
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &Path) -> io::Result<()> {
        match fs::read_link(path) {
            Ok(target) => self.name(path, &target.to_string_lossy()),
            Err(problem) => {
                self.cannot_read(path, &problem);
                Ok(())
            }
        }
    }

    /// Scans the name of a file or folder, or the target of a link.
    fn name(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let (mut scanner, mut found) = (Scanner::default(), Vec::new());
        scanner.read(name.as_bytes(), &mut found);
        scanner.finish(&mut found);
        let file = path.to_string_lossy();
        self.show(&file, false, &mut found)
    }

    fn file(&mut self, path: &Path) -> io::Result<()> {
        match File::open(path) {
            Ok(mut file) => self.stream(&path.to_string_lossy(), &mut file),
            Err(problem) => {
                self.cannot_read(path, &problem);
                Ok(())
            }
        }
    }

    fn stream(&mut self, name: &str, input: &mut impl Read) -> io::Result<()> {
        let mut scanner = Scanner::default();
        let mut part = zeroize::Zeroizing::new(vec![0; BUFFER_BYTES]);
        let mut found = Vec::new();
        loop {
            match input.read(&mut part) {
                Ok(0) => break,
                Ok(read) => scanner.read(&part[..read], &mut found),
                Err(problem) if problem.kind() == io::ErrorKind::Interrupted => {}
                Err(problem) => {
                    self.cannot_read(Path::new(name), &problem);
                    break;
                }
            }
            self.show(name, true, &mut found)?;
        }
        scanner.finish(&mut found);
        self.show(name, true, &mut found)
    }

    /// Reports keys in the content of a file or in its name, which is shown without the key.
    fn show(&mut self, name: &str, is_content: bool, found: &mut Vec<Found>) -> io::Result<()> {
        for found in found.drain(..) {
            let file = redact_keys(name).into_owned();
            self.report.add(Finding { file, is_content, found })?;
        }
        Ok(())
    }

    fn cannot_read(&mut self, path: &Path, problem: &io::Error) {
        self.unreadable += 1;
        let path = path.to_string_lossy();
        let path = printable(&redact_keys(&path));
        self.screen.note(&format!("{path} cannot be read: {problem}\n"));
    }

    fn finish(self, ask: impl FnOnce(&[KeyId]) -> anyhow::Result<Owners>) -> anyhow::Result<()> {
        let owners = match self.report.ids() {
            [] => Ok(Owners::default()),
            ids => ask(ids),
        };
        // A problem with the server must not hide the found keys.
        let (owners, problem) = match owners {
            Ok(owners) => (owners, None),
            Err(problem) => (Owners::default(), Some(problem)),
        };
        let keys = self.report.finish(&owners, self.unreadable == 0)?;
        if let Some(problem) = problem {
            self.screen.note(&format!("The owners of the keys are not known: {problem:#}\n"));
        }
        let text = match (keys, self.unreadable) {
            (0, 0) => return Ok(()),
            (0, _) => {
                return Err(
                    CliError::new(Exit::Failed, "some files or folders could not be read").into()
                );
            }
            (1, _) => "1 key was found: revoke the key, and remove it from the file".to_owned(),
            (keys, _) => {
                format!("{keys} keys were found: revoke the keys, and remove them from the files")
            }
        };
        Err(CliError::new(Exit::Found, text).into())
    }
}
