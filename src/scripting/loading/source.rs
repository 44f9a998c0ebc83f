//! Reads the folder of scripts: only regular files, only inside the folder, bounded in size and number.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::scripting::{Kind, Limits, ScriptError, entry_points};

/// One file, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scripting) struct Source {
    pub kind: Kind,
    pub name: String,
    /// The path relative to the folder, for people.
    pub file: String,
    pub text: String,
}

/// Reads all scripts of a folder, sorted by path. A folder that is not there has none.
pub(in crate::scripting) fn read(
    folder: &Path,
    limits: &Limits,
) -> Result<Vec<Source>, Vec<ScriptError>> {
    let root = match folder.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(vec![unreadable(".", &error)]),
    };
    let mut reader = Reader { root, limits, found: Vec::new(), problems: Vec::new() };
    reader.folder("");
    let Reader { mut found, problems, .. } = reader;
    if !problems.is_empty() {
        return Err(problems);
    }
    found.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(found)
}

struct Reader<'a> {
    root: PathBuf,
    limits: &'a Limits,
    found: Vec<Source>,
    problems: Vec<ScriptError>,
}

impl Reader<'_> {
    /// Goes through the root (`""`) or a folder in it (`"auth/"`). There is nothing below these.
    fn folder(&mut self, inside: &str) {
        let entries = match fs::read_dir(self.root.join(inside)) {
            Ok(entries) => entries,
            Err(error) => return self.problem(unreadable(inside, &error)),
        };
        // An editor's or a cloud's many temporary files are passed over, but not for ever.
        let most = self.limits.files.saturating_mul(16);
        for (count, entry) in entries.enumerate() {
            if count >= most {
                let message = format!("there are more than {most} files; remove what is no script");
                return self.problem(ScriptError::of_file(inside, message));
            }
            match entry {
                Ok(entry) => self.entry(inside, &entry),
                Err(error) => self.problem(unreadable(inside, &error)),
            }
        }
    }

    fn entry(&mut self, inside: &str, entry: &fs::DirEntry) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = name.to_string_lossy();
            if shown.ends_with(".rhai") {
                let message = "the file's name is no UTF-8; rename it";
                self.problem(ScriptError::of_file(&format!("{inside}{shown}"), message));
            }
            return;
        };
        if name.starts_with('.') || inside.is_empty() && name == entry_points::DEFINITIONS {
            return;
        }
        let path = format!("{inside}{name}");
        if name.ends_with(".rhai") {
            return self.script(&path);
        }
        if inside.is_empty() && self.root.join(name).is_dir() {
            self.folder(&format!("{name}/"));
        }
    }

    fn script(&mut self, path: &str) {
        let placed = match entry_points::place(path) {
            Ok(placed) => placed,
            Err(message) => return self.problem(ScriptError::of_file(path, message)),
        };
        if self.found.len() >= self.limits.files {
            let most = self.limits.files;
            let message = format!("there are more than {most} scripts (scripts.files)");
            return self.problem(ScriptError::of_file(path, message));
        }
        match self.text(path) {
            Ok(text) => {
                let (kind, name) = placed;
                self.found.push(Source { kind, name, file: path.to_owned(), text });
            }
            Err(problem) => self.problem(problem),
        }
    }

    fn text(&self, path: &str) -> Result<String, ScriptError> {
        let no = |message: String| ScriptError::of_file(path, message);
        let real = self.root.join(path).canonicalize().map_err(|error| unreadable(path, &error))?;
        if !real.starts_with(&self.root) {
            return Err(no("the link leads out of the folder of scripts; copy the file".into()));
        }
        // Asked before it is opened: to open a pipe would wait for its writer.
        let about = fs::metadata(&real).map_err(|error| unreadable(path, &error))?;
        if !about.is_file() {
            return Err(no("this is no regular file; a script is one".into()));
        }
        let most = self.limits.script_bytes;
        let mut bytes = Vec::new();
        fs::File::open(&real)
            .and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(path, &error))?;
        if bytes.len() > most {
            return Err(no(format!("the file has more than {most} bytes (scripts.script_bytes)")));
        }
        String::from_utf8(bytes).map_err(|_| no("the file is no UTF-8 text".into()))
    }

    fn problem(&mut self, problem: ScriptError) {
        // Enough to mend; a folder of a thousand wrong files need not be told to its end.
        if self.problems.len() < 32 {
            self.problems.push(problem);
        }
    }
}

fn unreadable(path: &str, error: &io::Error) -> ScriptError {
    let message = format!("it cannot be read: {error}; let Keyward's user read it");
    ScriptError::of_file(if path.is_empty() { "." } else { path }, message)
}
