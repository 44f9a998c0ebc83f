//! Reads the folder of scripts: only regular files inside the folder, with a maximum size and
//! number.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use crate::scripting::{
    entry_points::{DEFINITIONS, ScriptKind, locate},
    error::ScriptError,
    limits::ScriptLimits,
};

/// The maximum number of errors that are reported at once.
const MAX_ERRORS: usize = 32;

/// The text of one script file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scripting) struct SourceFile {
    pub kind: ScriptKind,
    pub name: String,
    /// The path relative to the folder of scripts.
    pub file: String,
    pub text: String,
}

/// Reads all scripts of a folder, sorted by path. A missing folder counts as an empty folder.
pub(in crate::scripting) fn read(
    folder: &Path,
    limits: &ScriptLimits,
) -> Result<Vec<SourceFile>, Vec<ScriptError>> {
    let root = match folder.canonicalize() {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(vec![unreadable(".", &error)]),
    };
    let mut reader = FolderReader { root, limits, files: Vec::new(), errors: Vec::new() };
    reader.read_folder("");
    let FolderReader { mut files, errors, .. } = reader;
    if !errors.is_empty() {
        return Err(errors);
    }
    files.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(files)
}

struct FolderReader<'a> {
    root: PathBuf,
    limits: &'a ScriptLimits,
    files: Vec<SourceFile>,
    errors: Vec<ScriptError>,
}

impl FolderReader<'_> {
    /// Reads the root (`""`) or one of its folders (`"auth/"`). Deeper folders are ignored.
    fn read_folder(&mut self, folder: &str) {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) => return self.record_error(unreadable(folder, &error)),
        };
        // Temporary files of editors and of file synchronisation are skipped. The limit bounds
        // their number.
        let max_entries = self.limits.files.saturating_mul(16);
        for (count, entry) in entries.enumerate() {
            if count >= max_entries {
                let message = format!(
                    "there are more than {max_entries} files; remove those that are not scripts"
                );
                return self.record_error(ScriptError::in_file(folder, message));
            }
            match entry {
                Ok(entry) => self.read_entry(folder, &entry),
                Err(error) => self.record_error(unreadable(folder, &error)),
            }
        }
    }

    fn read_entry(&mut self, folder: &str, entry: &fs::DirEntry) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = name.to_string_lossy();
            if shown.ends_with(".rhai") {
                let message = "the file's name is not UTF-8; rename the file";
                self.record_error(ScriptError::in_file(&format!("{folder}{shown}"), message));
            }
            return;
        };
        if name.starts_with('.') || folder.is_empty() && name == DEFINITIONS {
            return;
        }
        if name.ends_with(".rhai") {
            match self.read_script(&format!("{folder}{name}")) {
                Ok(file) => self.files.push(file),
                Err(error) => self.record_error(error),
            }
        } else if folder.is_empty() && self.root.join(name).is_dir() {
            self.read_folder(&format!("{name}/"));
        }
    }

    fn read_script(&self, path: &str) -> Result<SourceFile, ScriptError> {
        let (kind, name) = locate(path).map_err(|message| ScriptError::in_file(path, message))?;
        let max_files = self.limits.files;
        if self.files.len() >= max_files {
            let message = format!("there are more than {max_files} scripts (scripts.files)");
            return Err(ScriptError::in_file(path, message));
        }
        let text = self.read_text(path)?;
        Ok(SourceFile { kind, name, file: path.to_owned(), text })
    }

    fn read_text(&self, path: &str) -> Result<String, ScriptError> {
        let invalid = |message: String| ScriptError::in_file(path, message);
        let real = self.root.join(path).canonicalize().map_err(|error| unreadable(path, &error))?;
        if !real.starts_with(&self.root) {
            return Err(invalid(
                "the link leads out of the folder of scripts; copy the file into the folder".into(),
            ));
        }
        // This check comes before the open, because opening a named pipe would wait for a writer.
        let metadata = fs::metadata(&real).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_file() {
            return Err(invalid(
                "this is not a regular file; a script must be a regular file".into(),
            ));
        }
        let max_bytes = self.limits.script_bytes;
        let mut bytes = Vec::new();
        fs::File::open(&real)
            .and_then(|file| file.take(max_bytes as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(path, &error))?;
        if bytes.len() > max_bytes {
            let limit = format!("{max_bytes} bytes (scripts.script_bytes)");
            return Err(invalid(format!("the file has more than {limit}")));
        }
        String::from_utf8(bytes).map_err(|_| invalid("the file is not UTF-8 text".into()))
    }

    fn record_error(&mut self, error: ScriptError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

fn unreadable(path: &str, error: &io::Error) -> ScriptError {
    let message = format!("the file or folder cannot be read: {error}; let Keyward's user read it");
    ScriptError::in_file(if path.is_empty() { "." } else { path }, message)
}
