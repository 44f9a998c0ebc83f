//! The file that says that a store was made here, and how far it had come.
//!
//! sled takes a log that was cut or damaged in its last part for one that a crash left behind, and opens what stands before. A key that was
//! taken back would then be good again. So the number of the last commit is kept here as well: a store that has come less far is not opened.
//!
//! ```text
//! A Keyward store, format 1. Do not remove this file.
//! 00000000000000000042 6dcb98a2
//! ```
//! The second line is the number and the CRC32 (ISO-HDLC) of its digits. It is written over in place after each sync of the log, and is itself
//! synced when the store is opened and closed: after a power cut it can be a little behind, and never ahead.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::Sequence;

/// The file's name.
pub(super) const NAME: &str = "KEYWARD";
const TITLE: &str = "A Keyward store, format 1. Do not remove this file.\n";

pub(super) struct Mark(File);

impl Mark {
    /// The number in the folder's mark; none: there is no mark.
    pub fn read(folder: &Path) -> Result<Option<Sequence>, String> {
        let text = match fs::read_to_string(folder.join(NAME)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("the file {NAME}: {e}")),
        };
        let number = text.strip_prefix(TITLE).and_then(|rest| {
            let number = rest.get(..20)?.parse().ok()?;
            (line(number) == rest).then_some(number)
        });
        number.map(Some).ok_or_else(|| format!("the file {NAME} is damaged"))
    }

    /// Leaves a mark in a folder that has none, or takes the one there is, and sets it.
    pub fn open(folder: &Path, sequence: Sequence) -> io::Result<Self> {
        let path = folder.join(NAME);
        if !path.exists() {
            // Under another name first, so that there is never half a mark.
            let draft = folder.join(format!("{NAME}.new"));
            fs::write(&draft, format!("{TITLE}{}", line(sequence)))?;
            File::open(&draft)?.sync_all()?;
            fs::rename(&draft, &path)?;
            File::open(folder)?.sync_all()?;
        }
        let mark = Self(OpenOptions::new().write(true).open(path)?);
        mark.set(sequence)?;
        mark.sync()?;
        Ok(mark)
    }

    /// Writes a number over the one before it.
    pub fn set(&self, sequence: Sequence) -> io::Result<()> {
        self.0.write_all_at(line(sequence).as_bytes(), TITLE.len() as u64)
    }

    /// Puts it on the disk.
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
    fn a_mark_is_read_as_it_was_set() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(folder.path()), Ok(None));
        let mark = Mark::open(folder.path(), 7).unwrap();
        assert_eq!(Mark::read(folder.path()), Ok(Some(7)));
        mark.set(Sequence::MAX).unwrap();
        assert_eq!(Mark::read(folder.path()), Ok(Some(Sequence::MAX)));
        Mark::open(folder.path(), 8).unwrap();
        assert_eq!(Mark::read(folder.path()), Ok(Some(8)));
    }

    #[test]
    fn a_mark_that_was_touched_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        Mark::open(folder.path(), 42).unwrap();
        let whole = fs::read(folder.path().join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(folder.path().join(NAME), &changed).unwrap();
            assert!(Mark::read(folder.path()).is_err(), "byte {at}");
            fs::write(folder.path().join(NAME), &whole[..at]).unwrap();
            assert!(Mark::read(folder.path()).is_err(), "cut at {at}");
        }
    }
}
