//! `keyward key scan`: finds leaked keys. It needs neither a server nor a store, because the format
//! and checksum identify a key.

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

const PART: usize = 64 * 1024;

#[derive(Debug, Args)]
pub struct Scan {
    /// Files and folders; - is standard input [default: standard input]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
}

impl Scan {
    /// Scans all files, and prints keys as they are found.
    ///
    /// # Errors
    /// Keys were found, or something could not be read.
    pub fn run(self, output: Output) -> anyhow::Result<()> {
        self.on(output, &Screen::process(), &mut io::stdin().lock())
    }

    fn on(self, output: Output, screen: &Screen, stdin: &mut impl Read) -> anyhow::Result<()> {
        let mut search = Search { output, screen, keys: 0, unread: 0 };
        if self.paths.is_empty() {
            search.stream("-", stdin)?;
        }
        for path in &self.paths {
            match path.to_str() {
                Some("-") => search.stream("-", stdin)?,
                _ => search.path(path)?,
            }
        }
        search.end()
    }
}

struct Search<'a> {
    output: Output,
    screen: &'a Screen,
    keys: u64,
    unread: u64,
}

impl Search<'_> {
    /// A path from the command line. A link is followed.
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

    /// All files of a folder, sorted by name. Links are not followed, since they could form a
    /// cycle.
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
                // Reading pipes and devices could block.
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
        let mut part = zeroize::Zeroizing::new(vec![0; PART]);
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
        for one in found.drain(..) {
            let text = match self.output {
                Output::Table => line(name, &one),
                Output::Json => {
                    let separator = if self.keys == 0 { "[\n" } else { ",\n" };
                    format!("{separator}{}", entry(name, &one))
                }
            };
            self.screen.print(&text)?;
            self.keys += 1;
        }
        Ok(())
    }

    fn cannot_read(&mut self, path: &Path, problem: &io::Error) {
        self.unread += 1;
        let path = printable(&path.to_string_lossy());
        self.screen.note(&format!("{path} cannot be read: {problem}\n"));
    }

    fn end(self) -> anyhow::Result<()> {
        if self.output == Output::Json {
            self.screen.print(if self.keys == 0 { "[]\n" } else { "\n]\n" })?;
        }
        let text = match (self.keys, self.unread) {
            (0, 0) => return Ok(()),
            (0, _) => return Err(CliError::new(Exit::Failed, "not everything was read").into()),
            (1, _) => "1 key was found: revoke it, and take it out".to_owned(),
            (keys, _) => format!("{keys} keys were found: revoke them, and take them out"),
        };
        Err(CliError::new(Exit::Found, text).into())
    }
}

/// `file:line:column: id prefix…last four`, which editors can jump to.
fn line(name: &str, found: &Found) -> String {
    let Found { line, column, id, prefix, last_four, form } = found;
    let form = match form {
        Form::Plain => "",
        Form::Encoded => " (in a credential in Base64)",
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
