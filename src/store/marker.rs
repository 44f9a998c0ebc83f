//! The marker file: it says that a folder contains a store, and which commit was the last one.
//!
//! An engine can take a file whose last part is lost for the result of a crash, and open the state
//! before. A revoked key could then become valid again. So the number of the last commit is stored
//! here too: a store whose last commit has a smaller number is not opened.
//!
//! ```text
//! A Keyward store, format 2. Do not remove this file.
//! 00000000000000000042 6dcb98a2
//! ```
//! The second line is the number and the CRC32 (ISO-HDLC) of its digits. It is overwritten in place
//! after each sync of the engine. The file itself is synced at most a second later: after a power
//! cut its number can be too small by some commits, but never too large.
//!
//! A process that has the store open holds a lock of the file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use super::Sequence;

/// The file's name.
pub(super) const NAME: &str = "KEYWARD";
/// The name of the file while it is created.
pub(super) const DRAFT: &str = "KEYWARD.new";
const TITLE: &str = "A Keyward store, format 2. Do not remove this file.\n";
const TITLE_START: &str = "A Keyward store, format ";
const FORMAT: u32 = 2;

pub(super) struct MarkerFile(File);

impl MarkerFile {
    /// Reads the number in the folder's marker file. `None` means that there is no such file.
    pub fn read(folder: &Path) -> Result<Option<Sequence>, String> {
        let text = match fs::read_to_string(folder.join(NAME)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("the file {NAME}: {e}")),
        };
        let format = text.strip_prefix(TITLE_START).and_then(|rest| rest.split('.').next());
        match format.and_then(|format| format.parse::<u32>().ok()) {
            Some(format) if format > FORMAT => {
                return Err(format!(
                    "a newer Keyward wrote it (format {format}): use that version"
                ));
            }
            Some(format) if format < FORMAT => {
                return Err(format!(
                    "an older Keyward wrote it (format {format}): export it with that version, \
                     and apply the file to a new store"
                ));
            }
            _ => {}
        }
        let number = text.strip_prefix(TITLE).and_then(|rest| {
            let number = rest.get(..20)?.parse().ok()?;
            (line(number) == rest).then_some(number)
        });
        number.map(Some).ok_or_else(|| format!("the file {NAME} is damaged"))
    }

    /// Creates the marker file of a new store. Its number is 0, and is durable.
    pub fn create(folder: &Path) -> io::Result<Self> {
        // Created under another name first, so that the marker file is always complete.
        let draft = folder.join(DRAFT);
        fs::write(&draft, format!("{TITLE}{}", line(0)))?;
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, folder.join(NAME))?;
        File::open(folder)?.sync_all()?;
        let file = Self::open_file(folder)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self(file))
    }

    /// Opens the marker file of an existing store, to lock it.
    pub fn open_file(folder: &Path) -> io::Result<File> {
        OpenOptions::new().write(true).open(folder.join(NAME))
    }

    /// Opens the folder's marker file, or creates it, and writes the number. The number is durable
    /// afterwards.
    pub fn open(folder: &Path, sequence: Sequence) -> io::Result<Self> {
        if folder.join(NAME).exists() {
            return Self::with_number(Self::open_file(folder)?, sequence);
        }
        let Self(file) = Self::create(folder)?;
        Self::with_number(file, sequence)
    }

    /// The marker file that is open, with this number. The number is durable afterwards.
    pub fn with_number(file: File, sequence: Sequence) -> io::Result<Self> {
        let marker = Self(file);
        marker.set(sequence)?;
        marker.sync()?;
        Ok(marker)
    }

    /// Overwrites the number, without a sync.
    pub fn set(&self, sequence: Sequence) -> io::Result<()> {
        self.0.write_all_at(line(sequence).as_bytes(), TITLE.len() as u64)
    }

    /// Makes the number durable.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn line(sequence: Sequence) -> String {
    let digits = format!("{sequence:020}");
    let check = crc32fast::hash(digits.as_bytes());
    format!("{digits} {check:08x}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_returns_the_number_that_was_set() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(MarkerFile::read(folder.path()), Ok(None));
        let marker = MarkerFile::create(folder.path()).unwrap();
        assert_eq!(MarkerFile::read(folder.path()), Ok(Some(0)));
        marker.set(Sequence::MAX).unwrap();
        assert_eq!(MarkerFile::read(folder.path()), Ok(Some(Sequence::MAX)));
        let file = MarkerFile::open_file(folder.path()).unwrap();
        MarkerFile::with_number(file, 8).unwrap();
        assert_eq!(MarkerFile::read(folder.path()), Ok(Some(8)));
    }

    #[test]
    fn other_formats_are_not_called_damaged() {
        let folder = tempfile::tempdir().unwrap();
        for (format, expected) in [("1", "an older Keyward"), ("3", "a newer Keyward")] {
            let text = TITLE.replace("format 2", &format!("format {format}"));
            fs::write(folder.path().join(NAME), format!("{text}{}", line(7))).unwrap();
            let problem = MarkerFile::read(folder.path()).unwrap_err();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn changed_or_truncated_marker_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        MarkerFile::create(folder.path()).unwrap().set(42).unwrap();
        let whole = fs::read(folder.path().join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(folder.path().join(NAME), &changed).unwrap();
            assert!(MarkerFile::read(folder.path()).is_err(), "byte {at}");
            fs::write(folder.path().join(NAME), &whole[..at]).unwrap();
            assert!(MarkerFile::read(folder.path()).is_err(), "truncated at {at}");
        }
    }
}
