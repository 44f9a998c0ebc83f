//! Exports the records as a state document. Stores with equal records export equal bytes.
//!
//! The records are written one by one, so an export needs little memory whatever its size. The last
//! line says that the document is complete.

mod names;

use std::io::{self, Write};

use serde_json::{Map, Value};

use names::NamesByUid;

use super::record::StateRecord;
use crate::{
    accounts::{AccountError, Accounts, AdminReader},
    model::{Application, Key, Resource, Role, User},
    store::{Cancel, Snapshot, StoreError, decode},
};

/// The version of the format of state documents.
pub const VERSION: u64 = 1;

/// The line which says that a document has an end mark.
const ENDS_WITH_MARK: &str =
    "# The last line begins with \"# end\". If it is missing, the file is incomplete.";
/// The beginning of the last line.
const END: &str = "# end: ";

/// The comment at the beginning of a document.
const HEADER: &str = "\
# Roles, applications, resources, users and keys of a Keyward, written by keyward export.
# Keep this file secret: it has digests of keys and passwords.
# keyward apply changes a store to match this file; with --dry-run it only shows the changes.
";

/// Whether a document was cut off: it should have an end mark, and has none.
pub fn is_cut_off(document: &str) -> bool {
    let mut comments = document.lines().take_while(|line| line.starts_with('#'));
    let has_mark = |line: &str| line.starts_with(END) && line.ends_with('.');
    comments.any(|line| line == ENDS_WITH_MARK)
        && !document.lines().rev().find(|line| !line.trim().is_empty()).is_some_and(has_mark)
}

/// Why an export ended early.
enum ExportError {
    Account(AccountError),
    Output(io::Error),
}

impl<E: Into<AccountError>> From<E> for ExportError {
    fn from(problem: E) -> Self {
        Self::Account(problem.into())
    }
}

impl AdminReader<'_> {
    /// Exports all records that decisions depend on, from one snapshot of the store. Writers wait
    /// until the export ends.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn export(&self) -> Result<String, AccountError> {
        let (accounts, cancel) = (Accounts::clone(self), Cancel::default());
        let _cancelled_with_the_caller = cancel.on_drop();
        let export = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            accounts.write_export(&mut text, &cancel)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        });
        let aborted = |_| AccountError::refused("The records could not be read.", "Try again.");
        export.await.map_err(aborted)?
    }

    /// Writes the document of [`AdminReader::export`] to `out`, in parts. Blocks the thread until
    /// the last part is written or the writer is cancelled. Returns the number of records.
    ///
    /// # Errors
    /// The store cannot be read, or `out` cannot be written.
    pub fn write_export(&self, out: &mut dyn Write) -> Result<u64, AccountError> {
        Accounts::clone(self).write_export(out, self.cancel())
    }
}

impl Accounts {
    /// A file without a name, beside the store or, if that is not possible, in the folder for
    /// temporary files.
    ///
    /// # Errors
    /// The file cannot be created.
    #[cfg(feature = "server")]
    pub(crate) fn temporary_file(&self) -> Result<std::fs::File, AccountError> {
        let beside = self.store().folder().and_then(std::path::Path::parent);
        let file = match beside.filter(|folder| !folder.as_os_str().is_empty()) {
            Some(folder) => tempfile::tempfile_in(folder).or_else(|_| tempfile::tempfile()),
            None => tempfile::tempfile(),
        };
        file.map_err(|problem| {
            let fix = "Make the folder of the store writable, or set TMPDIR to a folder that is.";
            AccountError::refused(format!("Cannot create a temporary file: {problem}."), fix)
        })
    }

    fn write_export(&self, out: &mut dyn Write, cancel: &Cancel) -> Result<u64, AccountError> {
        Document { out, cancel, records: 0 }.write(self).map_err(|problem| match problem {
            ExportError::Account(problem) => problem,
            ExportError::Output(_) if cancel.is_cancelled() => StoreError::Cancelled.into(),
            ExportError::Output(problem) => AccountError::refused(
                format!("The records cannot be written: {problem}."),
                "Free some disk space, or write to another disk.",
            ),
        })
    }
}

/// A document that is being written.
struct Document<'a> {
    out: &'a mut dyn Write,
    cancel: &'a Cancel,
    records: u64,
}

impl Document<'_> {
    fn write(mut self, accounts: &Accounts) -> Result<u64, ExportError> {
        let snapshot = accounts.store().snapshot().map_err(AccountError::from)?;
        let pepper = accounts.pepper().fingerprint().to_hex();
        self.put(&format!(
            "{HEADER}{ENDS_WITH_MARK}\n\nversion = {VERSION}\npepper = \"{pepper}\"\n"
        ))?;
        let names = NamesByUid::read(&*snapshot)?;
        let name = |uid: u64| names.get(uid).map(str::to_owned);
        self.all::<Role>(&*snapshot, |record| Some(record.view(&name)))?;
        self.all::<Application>(&*snapshot, |record| Some(record.view(&name)))?;
        self.all::<Resource>(&*snapshot, |record| Some(record.view(&name)))?;
        self.all::<User>(&*snapshot, |record| Some(record.view(&name)))?;
        // The keys of a user who was just deleted are left out, because the other writer is about
        // to delete them.
        self.all::<Key>(&*snapshot, |key| names.get(key.user).map(|_| key.view(&name)))?;
        self.put(&format!("\n{END}{} records.\n", self.records))?;
        self.out.flush().map_err(ExportError::Output)?;
        Ok(self.records)
    }

    fn put(&mut self, text: &str) -> Result<(), ExportError> {
        self.out.write_all(text.as_bytes()).map_err(ExportError::Output)
    }

    /// Writes all records of a kind. `view` returns `None` for a record that is left out.
    fn all<T: StateRecord>(
        &mut self,
        snapshot: &dyn Snapshot,
        view: impl Fn(&T) -> Option<Map<String, Value>>,
    ) -> Result<(), ExportError> {
        let mut failed = None;
        let walked = snapshot.each(T::TABLE, &mut |key, record| {
            self.cancel.check()?;
            let Some(fields) = view(&decode(T::TABLE, key, record.json)?) else { return Ok(()) };
            self.records += 1;
            let written = section(T::LIST, fields).map_err(ExportError::Account);
            written.and_then(|text| self.put(&text)).map_err(|problem| {
                failed = Some(problem);
                StoreError::Cancelled
            })
        });
        match failed {
            Some(problem) => Err(problem),
            None => Ok(walked.map_err(AccountError::from)?),
        }
    }
}

/// A record as a section of a document, after an empty line.
fn section(list: &str, fields: Map<String, Value>) -> Result<String, AccountError> {
    let document: Map<String, Value> =
        [(list.to_owned(), Value::from(vec![fields]))].into_iter().collect();
    match toml::to_string(&document) {
        Ok(text) => Ok(format!("\n{text}")),
        Err(problem) => Err(AccountError::refused(
            format!("The records cannot be written as TOML: {problem}."),
            "Change the record that contains this value.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_without_its_last_line_is_cut_off() {
        let whole = format!("{HEADER}{ENDS_WITH_MARK}\n\nversion = 1\n\n{END}7 records.\n");
        assert!(!is_cut_off(&whole));
        assert!(!is_cut_off(&format!("{whole}\n\n")));
        for end in 0..whole.len() - 1 {
            let has_mark_line = whole[..end].contains(ENDS_WITH_MARK);
            assert_eq!(is_cut_off(&whole[..end]), has_mark_line, "{}", &whole[..end]);
        }
        // A file that a person wrote has no mark, nor has an export of an earlier version.
        assert!(!is_cut_off("version = 1\n"));
        assert!(!is_cut_off(&format!("{HEADER}\nversion = 1\n")));
    }
}
