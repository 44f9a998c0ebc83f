//! Reads the folder of scripts: only regular files inside the folder, bounded in size and number.

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

/// The most errors that are reported at once.
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

/// Reads all scripts of a folder, sorted by path. A missing folder has no scripts.
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
            Err(error) => return self.error(unreadable(folder, &error)),
        };
        // Temporary files of editors and of file synchronisation are skipped, but not without
        // limit.
        let max_entries = self.limits.files.saturating_mul(16);
        for (count, entry) in entries.enumerate() {
            if count >= max_entries {
                let message = format!(
                    "there are more than {max_entries} files; remove those that are not scripts"
                );
                return self.error(ScriptError::in_file(folder, message));
            }
            match entry {
                Ok(entry) => self.read_entry(folder, &entry),
                Err(error) => self.error(unreadable(folder, &error)),
            }
        }
    }

    fn read_entry(&mut self, folder: &str, entry: &fs::DirEntry) {
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let shown = name.to_string_lossy();
            if shown.ends_with(".rhai") {
                let message = "the file's name is not UTF-8; rename it";
                self.error(ScriptError::in_file(&format!("{folder}{shown}"), message));
            }
            return;
        };
        if name.starts_with('.') || folder.is_empty() && name == DEFINITIONS {
            return;
        }
        if name.ends_with(".rhai") {
            match self.read_script(&format!("{folder}{name}")) {
                Ok(file) => self.files.push(file),
                Err(error) => self.error(error),
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
        let error = |message: String| ScriptError::in_file(path, message);
        let real = self.root.join(path).canonicalize().map_err(|error| unreadable(path, &error))?;
        if !real.starts_with(&self.root) {
            return Err(error("the link leads out of the folder of scripts; copy the file".into()));
        }
        // Checked before the file is opened: opening a pipe would wait for its writer.
        let metadata = fs::metadata(&real).map_err(|error| unreadable(path, &error))?;
        if !metadata.is_file() {
            return Err(error("this is not a regular file; a script must be one".into()));
        }
        let max_bytes = self.limits.script_bytes;
        let mut bytes = Vec::new();
        fs::File::open(&real)
            .and_then(|file| file.take(max_bytes as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(path, &error))?;
        if bytes.len() > max_bytes {
            let limit = format!("{max_bytes} bytes (scripts.script_bytes)");
            return Err(error(format!("the file has more than {limit}")));
        }
        String::from_utf8(bytes).map_err(|_| error("the file is not UTF-8 text".into()))
    }

    fn error(&mut self, error: ScriptError) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

fn unreadable(path: &str, error: &io::Error) -> ScriptError {
    let message = format!("it cannot be read: {error}; let Keyward's user read it");
    ScriptError::in_file(if path.is_empty() { "." } else { path }, message)
}
