//! `keyward key scan`: finds leaked keys. The command needs neither a server nor a store, because a
//! key is recognized by its format and its checksum.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use crate::{
    cli::{
        CliError, Exit, Output,
        terminal::screen::{Screen, printable},
    },
    model::{Form, Found, Scanner},
};

/// The size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
pub struct Scan {
    /// Files and folders; - is standard input [default: standard input]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Scan {
    /// Scans all files, and prints each key when it is found.
    ///
    /// # Errors
    /// Keys were found, or a file or folder could not be read.
    pub fn run(self, output: Output) -> anyhow::Result<()> {
        self.scan(output, &Screen::process(), &mut io::stdin().lock())
    }

    fn scan(self, output: Output, screen: &Screen, stdin: &mut impl Read) -> anyhow::Result<()> {
        let mut search = Search { output, screen, keys: 0, unreadable: 0 };
        if self.paths.is_empty() {
            search.stream("-", stdin)?;
        }
        for path in &self.paths {
            match path.to_str() {
                Some("-") => search.stream("-", stdin)?,
                _ => search.path(path)?,
            }
        }
        search.finish()
    }
}

struct Search<'a> {
    output: Output,
    screen: &'a Screen,
    keys: u64,
    /// The number of files and folders that could not be read.
    unreadable: u64,
}

impl Search<'_> {
    /// Scans a path from the command line. A link is followed.
    fn path(&mut self, path: &Path) -> io::Result<()> {
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
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.folder(&entry.path())?,
                Ok(kind) if kind.is_file() => self.file(&entry.path())?,
                // Links, pipes and devices are skipped: reading a pipe or a device could block.
                Ok(_) => {}
                Err(problem) => self.cannot_read(&entry.path(), &problem),
            }
        }
        Ok(())
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
            self.show(name, &mut found)?;
        }
        scanner.finish(&mut found);
        self.show(name, &mut found)
    }

    fn show(&mut self, name: &str, found: &mut Vec<Found>) -> io::Result<()> {
        for key in found.drain(..) {
            let text = match self.output {
                Output::Table => line(name, &key),
                Output::Json => {
                    let separator = if self.keys == 0 { "[\n" } else { ",\n" };
                    format!("{separator}{}", entry(name, &key))
                }
            };
            self.screen.print(&text)?;
            self.keys += 1;
        }
        Ok(())
    }

    fn cannot_read(&mut self, path: &Path, problem: &io::Error) {
        self.unreadable += 1;
        let path = printable(&path.to_string_lossy());
        self.screen.note(&format!("{path} cannot be read: {problem}\n"));
    }

    fn finish(self) -> anyhow::Result<()> {
        if self.output == Output::Json {
            self.screen.print(if self.keys == 0 { "[]\n" } else { "\n]\n" })?;
        }
        let text = match (self.keys, self.unreadable) {
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

/// Formats a key as `file:line:column: id prefix…last four`. Editors can jump to such a place.
fn line(name: &str, found: &Found) -> String {
    let Found { line, column, id, prefix, last_four, form } = found;
    let form = match form {
        Form::Plain => "",
        Form::Encoded => " (in a Base64 credential)",
    };
    format!("{}:{line}:{column}: {id} {prefix}…{last_four}{form}\n", printable(name))
}

fn entry(name: &str, found: &Found) -> Value {
    json!({
        "file": name,
        "line": found.line,
        "column": found.column,
        "id": found.id,
        "prefix": found.prefix,
        "last_four": found.last_four,
        "form": match found.form {
            Form::Plain => "plain",
            Form::Encoded => "base64",
        },
    })
}
