//! A whole store in one sealed file, for backups. Equal records yield equal bytes.
//!
//! ```text
//! start      "keyward backup 2\n"
//! record     u8 table, u16 length of the key, u32 length of the JSON, key, JSON
//! …          in the order of tables and keys
//! end        u8 0, u64 number of records, u64 last commit, 32 bytes BLAKE3 of all bytes before
//! seal       32 bytes keyed BLAKE3 of all bytes before
//! ```
//! Numbers are little-endian. An archive contains no revisions: a restored store numbers its
//! commits from 1 again.
//!
//! The checksum detects damage, and anybody can check it. The seal detects changes by a person: its
//! key derives from the server's pepper. Version 1 had no seal, and is refused.

use std::io::{self, Read, Write};

use super::{Sequence, Snapshot, StoreError, Table, codec::MAX_VALUE_SIZE};
use crate::model::{BackupKey, Digest};

const MAGIC: &[u8] = b"keyward backup ";
const VERSION: u64 = 2;
/// The last version whose archives have no seal.
const UNSEALED_VERSION: u64 = 1;
/// The most digits of a version that is read.
const MAX_VERSION_DIGITS: usize = 18;
const END: u8 = 0;

/// A summary of an archive's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// The number of records.
    pub records: u64,
    /// The last commit of the store that the archive was made from.
    pub sequence: Sequence,
    /// The checksum.
    pub blake3: [u8; 32],
}

/// Why an archive could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file is not an archive.
    #[error("the file is not a backup of Keyward")]
    NotAnArchive,
    /// The archive has no seal: an early version wrote it.
    #[error(
        "the backup has format 1, which has no seal, so nobody can tell whether it was changed. \
         Make a new one with keyward backup, from the store that it was made from"
    )]
    Unsealed,
    /// A later version wrote the archive.
    #[error("a newer Keyward wrote the backup: restore it with that version")]
    Newer,
    /// The archive ends too early.
    #[error("the backup is truncated")]
    Truncated,
    /// The archive's bytes are not what was written.
    #[error("the backup is damaged: its checksum is wrong")]
    Damaged,
    /// The checksum is right and the seal is not: a person without the pepper has changed it.
    #[error(
        "the backup was changed after it was written: its checksum is right, but its seal was not \
         made with this pepper. Do not use it"
    )]
    Forged,
}

/// Writes all records of a snapshot, and seals them.
pub fn write(
    snapshot: &dyn Snapshot,
    out: impl Write,
    key: &BackupKey,
) -> Result<Contents, ArchiveError> {
    let mut out = Hashed::new(out, Some(key));
    writeln!(out, "{}{VERSION}", MAGIC.escape_ascii())?;
    let mut records = 0;
    for table in Table::ALL {
        // The callback can return only a `StoreError`, so an I/O error is kept here.
        let mut io_error = None;
        let result = snapshot.each(table, &mut |key, record| {
            records += 1;
            write_record(&mut out, table, key, record.json).map_err(|problem| {
                io_error = Some(problem);
                StoreError::Failed("a backup could not be written".into())
            })
        });
        if let Some(problem) = io_error {
            return Err(problem.into());
        }
        result?;
    }
    let sequence = snapshot.sequence();
    out.write_all(&[END])?;
    out.write_all(&u64::to_le_bytes(records))?;
    out.write_all(&sequence.to_le_bytes())?;
    let blake3 = out.checksum();
    out.write_all(&blake3)?;
    let seal = out.seal().ok_or(ArchiveError::Forged)?;
    out.write_all(seal.as_bytes())?;
    out.flush()?;
    Ok(Contents { records, sequence, blake3 })
}

fn write_record(out: &mut impl Write, table: Table, key: &[u8], json: &[u8]) -> io::Result<()> {
    let too_long = |_| io::Error::other("a record is too long");
    out.write_all(&[table as u8])?;
    out.write_all(&u16::try_from(key.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(&u32::try_from(json.len()).map_err(too_long)?.to_le_bytes())?;
    out.write_all(key)?;
    out.write_all(json)
}

/// Reads an archive to its end and calls `each` with every record. The caller must not use the
/// records before this function has returned successfully: checksum and seal are at the end.
///
/// Without a key, only the checksum is compared: a person could have changed the archive.
pub fn read(
    input: impl Read,
    key: Option<&BackupKey>,
    mut each: impl FnMut(Table, Vec<u8>, Vec<u8>) -> Result<(), ArchiveError>,
) -> Result<Contents, ArchiveError> {
    let mut input = Hashed::new(input, key);
    read_start(&mut input)?;
    let mut records = 0;
    // Records that this version cannot read are skipped: the checksum tells whether a newer version
    // wrote them or the file is damaged.
    let mut has_unknown_records = false;
    loop {
        let [table] = read_array(&mut input)?;
        if table == END {
            let contents = read_end(input, records)?;
            return if has_unknown_records { Err(ArchiveError::Newer) } else { Ok(contents) };
        }
        let key_length = usize::from(u16::from_le_bytes(read_array(&mut input)?));
        let json_length = u32::from_le_bytes(read_array(&mut input)?) as usize;
        records += 1;
        // Checked before the allocation: a damaged length could ask for 4 GiB.
        let known = Table::from_byte(table).filter(|_| json_length <= MAX_VALUE_SIZE);
        let Some(table) = known else {
            has_unknown_records = true;
            skip(&mut input, key_length as u64 + json_length as u64)?;
            continue;
        };
        each(table, read_vec(&mut input, key_length)?, read_vec(&mut input, json_length)?)?;
    }
}

/// Reads the title and the version.
fn read_start(input: &mut impl Read) -> Result<(), ArchiveError> {
    let magic: [u8; MAGIC.len()] = read_array(input).map_err(|_| ArchiveError::NotAnArchive)?;
    if magic != MAGIC {
        return Err(ArchiveError::NotAnArchive);
    }
    let mut version = Vec::new();
    loop {
        let [byte] = read_array(input)?;
        if byte == b'\n' {
            break;
        }
        if !byte.is_ascii_digit() || version.len() == MAX_VERSION_DIGITS {
            return Err(ArchiveError::Damaged);
        }
        version.push(byte);
    }
    let version = version.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'));
    match version {
        VERSION => Ok(()),
        UNSEALED_VERSION => Err(ArchiveError::Unsealed),
        version if version > VERSION => Err(ArchiveError::Newer),
        _ => Err(ArchiveError::Damaged),
    }
}

fn read_end(mut input: Hashed<impl Read>, records: u64) -> Result<Contents, ArchiveError> {
    let expected_records = u64::from_le_bytes(read_array(&mut input)?);
    let sequence = u64::from_le_bytes(read_array(&mut input)?);
    let computed = input.checksum();
    let blake3: [u8; 32] = read_array(&mut input)?;
    let computed_seal = input.seal();
    let seal = Digest::from_bytes(read_array(&mut input)?);
    let has_trailing_bytes = input.inner.read(&mut [0])? > 0;
    if expected_records != records || computed != blake3 || has_trailing_bytes {
        return Err(ArchiveError::Damaged);
    }
    if computed_seal.is_some_and(|computed| computed != seal) {
        return Err(ArchiveError::Forged);
    }
    Ok(Contents { records, sequence, blake3 })
}

fn read_array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], ArchiveError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

fn read_vec(input: &mut impl Read, length: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(read_error)?;
    Ok(bytes)
}

fn skip(input: &mut impl Read, length: u64) -> Result<(), ArchiveError> {
    let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
    if skipped == length { Ok(()) } else { Err(ArchiveError::Truncated) }
}

fn read_error(problem: io::Error) -> ArchiveError {
    match problem.kind() {
        io::ErrorKind::UnexpectedEof => ArchiveError::Truncated,
        _ => problem.into(),
    }
}

/// Adds all bytes that are read or written to the checksum and to the seal.
struct Hashed<T> {
    inner: T,
    hasher: blake3::Hasher,
    /// `None` means that the seal is not computed.
    keyed: Option<blake3::Hasher>,
}

impl<T> Hashed<T> {
    fn new(inner: T, key: Option<&BackupKey>) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), keyed: key.map(BackupKey::hasher) }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        if let Some(keyed) = &mut self.keyed {
            keyed.update(bytes);
        }
    }

    fn checksum(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    fn seal(&self) -> Option<Digest> {
        self.keyed.as_ref().map(|keyed| Digest::from_bytes(*keyed.finalize().as_bytes()))
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.add(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.add(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::Pepper,
        store::{Batch, MemoryStore, Store as _},
    };

    type Records = Vec<(Table, Vec<u8>, Vec<u8>)>;

    async fn store() -> MemoryStore {
        let store = MemoryStore::new();
        let mut batch = Batch::new();
        for table in Table::ALL {
            batch.put(table, *b"a", table.name().into());
            batch.put(table, Vec::new(), b"{}".to_vec());
        }
        store.commit(batch).await.unwrap();
        store
    }

    fn archive_of(store: &MemoryStore) -> (Vec<u8>, Contents) {
        let mut file = Vec::new();
        let contents = write(&*store.snapshot().unwrap(), &mut file, &key()).unwrap();
        (file, contents)
    }

    fn key() -> BackupKey {
        Pepper::from_bytes([7; 32]).backup_key()
    }

    /// Computes the checksum again, as a person without the pepper can.
    fn with_new_checksum(file: &[u8]) -> Vec<u8> {
        let (records, end) = file.split_at(file.len() - 64);
        [records, blake3::hash(records).as_bytes(), &end[32..]].concat()
    }

    fn read_all(file: &[u8]) -> Result<(Records, Contents), ArchiveError> {
        let mut records = Vec::new();
        let contents = read(file, Some(&key()), |table, key, json| {
            records.push((table, key, json));
            Ok(())
        })?;
        Ok((records, contents))
    }

    #[tokio::test]
    async fn archive_contains_all_records_and_is_deterministic() {
        let store = store().await;
        let (file, contents) = archive_of(&store);
        assert_eq!(archive_of(&store).0, file);
        let (records, read_contents) = read_all(&file).unwrap();
        assert_eq!((read_contents, contents.records, contents.sequence), (contents, 30, 1));
        for table in Table::ALL {
            let found: Records =
                records.iter().filter(|record| record.0 == table).cloned().collect();
            let expected = [
                (table, vec![], b"{}".to_vec()),
                (table, b"a".to_vec(), table.name().as_bytes().to_vec()),
            ];
            assert_eq!(found, expected);
        }
        let empty = archive_of(&MemoryStore::new()).0;
        assert_eq!(read_all(&empty).unwrap().1.records, 0);
    }

    #[tokio::test]
    async fn every_changed_byte_and_every_truncation_is_detected() {
        let (file, _) = archive_of(&store().await);
        for at in 0..file.len() {
            for bit in [1, 0x80] {
                let mut changed = file.clone();
                changed[at] ^= bit;
                assert!(read_all(&changed).is_err(), "byte {at}");
            }
        }
        for length in 0..file.len() {
            let problem = read_all(&file[..length]).unwrap_err();
            assert!(
                matches!(problem, ArchiveError::Truncated | ArchiveError::NotAnArchive),
                "{length}"
            );
        }
        assert!(read_all(&[&file[..], b"\n"].concat()).is_err());
        // A length above the limit, without the record that it announces.
        let long = [b"keyward backup 2\nu\0\0", &[0xff; 4][..]].concat();
        assert!(matches!(read_all(&long), Err(ArchiveError::Truncated)));
    }

    #[tokio::test]
    async fn change_with_a_new_checksum_is_refused_by_the_seal() {
        let (file, _) = archive_of(&store().await);
        assert_eq!(with_new_checksum(&file), file);
        let ignore = |_, _, _| Ok(());
        let mut forged = 0;
        for at in 17..file.len() - 64 {
            let mut changed = file.clone();
            changed[at] ^= 1;
            let changed = with_new_checksum(&changed);
            let problem = read_all(&changed).unwrap_err();
            // Some changes make lengths or tables invalid. All others are for the seal alone.
            if read(&changed[..], None, ignore).is_ok() {
                assert!(matches!(problem, ArchiveError::Forged), "byte {at}: {problem}");
                forged += 1;
            }
        }
        assert!(forged > 100, "{forged}");
        for at in file.len() - 32..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x80;
            assert!(matches!(read_all(&changed), Err(ArchiveError::Forged)), "byte {at}");
        }
        let other = Pepper::from_bytes([8; 32]).backup_key();
        assert!(matches!(read(&file[..], Some(&other), ignore), Err(ArchiveError::Forged)));
        assert!(read(&file[..], None, ignore).is_ok());
    }

    #[tokio::test]
    async fn other_versions_are_not_called_damaged() {
        let (file, _) = archive_of(&store().await);
        let with_version =
            |version: &str| [b"keyward backup ", version.as_bytes(), b"\n", &file[17..]].concat();
        assert!(matches!(read_all(&with_version("1")), Err(ArchiveError::Unsealed)));
        for newer in ["3", "10", "999999999999999999"] {
            let problem = read_all(&with_version(newer)).unwrap_err();
            assert!(matches!(problem, ArchiveError::Newer), "{newer}: {problem}");
        }
        for damaged in ["0", "x", "2x", "9999999999999999999"] {
            let problem = read_all(&with_version(damaged)).unwrap_err();
            assert!(matches!(problem, ArchiveError::Damaged), "{damaged}: {problem}");
        }
        // A kind of record, and a size, that a newer version may have within this format.
        let (records, end) = file.split_at(file.len() - 64 - 17);
        let count = u64::from_le_bytes(end[1..9].try_into().unwrap()) + 1;
        let large = u32::try_from(MAX_VALUE_SIZE + 1).unwrap();
        for record in [
            b"Z\x01\0\x02\0\0\0k{}".to_vec(),
            [b"k\0\0", &large.to_le_bytes()[..], &vec![b' '; large as usize]].concat(),
        ] {
            let mut newer = [records, &record, &[END], &count.to_le_bytes(), &end[9..17]].concat();
            let checksum = blake3::hash(&newer);
            newer.extend(checksum.as_bytes());
            let mut keyed = key().hasher();
            let seal = *keyed.update(&newer).finalize().as_bytes();
            newer.extend(seal);
            assert!(matches!(read_all(&newer), Err(ArchiveError::Newer)));
            newer[20] ^= 1;
            assert!(matches!(
                read_all(&newer),
                Err(ArchiveError::Damaged | ArchiveError::Truncated)
            ));
        }
    }
}
